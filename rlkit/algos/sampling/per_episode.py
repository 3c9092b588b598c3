"""Connectors whose column stays the same for an agent as long as its episode lasts.

RLlib's runner calls them in every step like any connector. The joint runner, which calls no connectors, asks for
the values once per episode and repeats them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from rlkit.replay.ring import Fragment


class PerEpisode(ConnectorV2):
    """Adds `column`, one int64 per row, to the batches of modules that act.

    Attributes:
        column: its name in a module's batch.
    """

    column: str

    def value(self, episode_id: str, custom_data: Mapping[str, Any], agent: str) -> int:
        """Return what all rows of an agent have in this episode."""
        raise NotImplementedError

    def mark(self, fragment: Fragment, episode_id: str, custom_data: Mapping[str, Any]) -> Fragment:
        """Return a joint fragment of the episode with the columns that the replay wants to have."""
        return fragment

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        custom = {episode.id_: episode.custom_data for episode in episodes}
        column = {}
        for key, rows in batch.get(Columns.OBS, {}).items():  # nobody acts after the last step of an episode
            value = self.value(key[0], custom.get(key[0], {}), str(key[1]))
            column[key] = [np.int64(value)] * len(rows)
        if column:
            batch[self.column] = column
        return batch
