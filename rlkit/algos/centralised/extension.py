"""What a variant of MADDPG may change: the hooks that config, replay and learner call, each doing nothing here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlkit.algos.centralised.groups import Part
from rlkit.algos.centralised.module import MADDPGModule
from rlkit.algos.centralised.rows import ByAgent, Rows
from rlkit.replay import Column, Fragment, Replay

JOINT = "joint"


class Extension:
    """Hooks in the order in which they are called; `config.extension` is the one in use.

    Args:
        config: of the algorithm.
    """

    module_class: type[MADDPGModule] = MADDPGModule

    def __init__(self, config: Any):
        self.config = config

    @classmethod
    def wanted(cls, config: Any) -> bool:
        """Whether the options ask for this extension."""
        return False

    # of the config

    def validate(self) -> None:
        """Raise ValueError for options that cannot work together; add callbacks."""

    def module_options(self, module_id: str) -> dict[str, Any]:
        """Return what a module must know beside the base options."""
        return {}

    def connectors(self, agents: Sequence[str]) -> list[Any]:
        """Return connectors that follow those which add observations to the modules' batches."""
        return []

    # of the replay

    def columns(self, agents: Sequence[str]) -> dict[str, Column]:
        """Return further step columns of joint rows."""
        return {}

    def mark(self, fragment: Fragment, episode: Any) -> Fragment:
        """Return a fragment of an episode with these columns."""
        return fragment

    def draw(self, replay: Replay, size: int, updates: int) -> dict[str, np.ndarray]:
        """Return rows (K, B) by the name of what they are for."""
        return {JOINT: replay.draw(size, updates)}

    # of the learner

    def build(self, learner: Any) -> list[Part]:
        """Return what is updated; prepare what the extension needs."""
        return [learner.part(JOINT, learner.players)]

    def before_update(self, rows: Mapping[str, Rows], log: Any) -> None:
        """Do something with the minibatches before critics and actors learn from them."""

    def played(self, rows: Rows, codes: Sequence[ByAgent]) -> ByAgent:
        """Return the target policies' next actions, as codes by agent, from those of each part."""
        return codes[0]

    def believed(self, rows: Rows) -> dict[str, ByAgent]:
        """Return {module: codes by agent}, next actions that a module's critics take in the place of the true ones."""
        return {}

    def after_update(self, rows: Mapping[str, Rows], log: Any) -> None:
        """Log something about an update; called only where values are logged, without gradients."""
