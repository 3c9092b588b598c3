"""What policies say, and who can say more: shared by checkpoints, bundles and agents. Imports no ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

ALONE = "default_agent"  # the agent of a single-agent environment: RLlib's DEFAULT_AGENT_ID
BLOCK = 32  # rows of one forward pass in evaluations


@dataclass
class Answer:
    """What a policy says for one episode, by agent: the action for the environment and, if asked, more.

    That is Q-values and, by name, whatever else a module can tell (see `named_outputs`). `module_actions` are those of
    the module, before they were scaled and clipped.
    """

    actions: dict[Any, Any] = field(default_factory=dict)
    module_actions: dict[Any, Any] = field(default_factory=dict)
    q_values: dict[Any, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, dict[Any, np.ndarray]] = field(default_factory=dict)


def judges_jointly(module: Any) -> bool:
    """Whether a module has critics that need everybody's observations and actions, and they are loaded."""
    return bool(getattr(module, "judges_jointly", False))


def has_q_values(module: Any) -> bool:
    """Whether a module can say what actions are worth: DQN, SAC and their kin, with their critics loaded.

    Critics that need a past of their own (`critics_remember`: those of recurrent SAC) cannot.
    """
    if getattr(module, "inference_only", False) or getattr(module, "critics_remember", False):
        return False
    return judges_jointly(module) or callable(getattr(module, "compute_q_values", None))


def named_outputs(module: Any) -> dict[str, int]:
    """Return what a module can tell about an observation beside its action: {name: width}.

    A module that can has a property `named_outputs` like this, and `named_output(name, observations)`, which returns
    (B, width) for nested tensors (B, ...): the weights of DRON's experts, for example.
    """
    return dict(getattr(module, "named_outputs", None) or {})
