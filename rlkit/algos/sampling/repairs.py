"""RLlib's module-to-env pieces made right, for wherever its pipelines act: its own loops, and agents with connectors.

The classes carry RLlib's names, so that states and checkpoints of pipelines with either fit each other. Checked
against ray 2.60.0.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
from ray.rllib.connectors import module_to_env
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rlkit.algos.sampling.acting import Chooser
from rlkit.algos.sampling.actions import ActionMap


class GetActions(module_to_env.GetActions):
    """Through `Chooser`: RLlib's fails for the log-probability of the greedy action of a Dict or Tuple space."""

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: list[Any],
        explore: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        several = isinstance(episodes[0], MultiAgentEpisode)
        for module_id, out in list(batch.items()) if several else [(None, batch)]:
            if Columns.ACTIONS in out or Columns.ACTION_DIST_INPUTS not in out:
                continue
            choice = Chooser(rl_module[module_id] if several else rl_module, bool(explore))(out, logp=True)
            out[Columns.ACTIONS], out[Columns.ACTION_LOGP] = choice.actions, choice.logp
        return batch


class NormalizeAndClipActions(module_to_env.NormalizeAndClipActions):
    """Through `ActionMap`: what leaves it lies in the environment's space."""

    def recompute_output_action_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        self._maps: dict[Any, ActionMap] = {}
        return super().recompute_output_action_space(input_observation_space, input_action_space)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what makes an equal piece; RLlib notes it only for a class with an `__init__` of its own."""
        return (), {
            "input_observation_space": self.input_observation_space,
            "input_action_space": self.input_action_space,
            "normalize_actions": self.normalize_actions,
            "clip_actions": self.clip_actions,
        }

    def map_of(self, agent: Any) -> ActionMap:
        """Return the map of an agent's actions; None: of the only agent."""
        if agent not in self._maps:
            space: Any = self.input_action_space
            space = space if agent is None else space[agent]
            self._maps[agent] = ActionMap(space, self.normalize_actions, self.clip_actions)
        return self._maps[agent]

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        batch[Columns.ACTIONS_FOR_ENV] = copy.deepcopy(batch[Columns.ACTIONS])
        self.foreach_batch_item_change_in_place(
            batch=batch,
            column=Columns.ACTIONS_FOR_ENV,
            func=lambda action, episode, agent, module: self.map_of(agent).one(action),
        )
        return batch


def repair(pipeline: Any) -> None:
    """Put the pieces of this file into the place of RLlib's in a module-to-env pipeline."""
    for i, piece in enumerate(pipeline.connectors):
        spaces = piece.input_observation_space, piece.input_action_space
        if type(piece) is module_to_env.GetActions:
            pipeline.connectors[i] = GetActions(*spaces)
        elif type(piece) is module_to_env.NormalizeAndClipActions:
            pipeline.connectors[i] = NormalizeAndClipActions(
                *spaces, normalize_actions=piece.normalize_actions, clip_actions=piece.clip_actions
            )
