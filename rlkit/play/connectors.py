"""A policy that runs a checkpoint's own connector pipelines, and the choice between it and the short way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors import module_to_env
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces import space_utils

from rlkit.algos.sampling import acting
from rlkit.algos.sampling.connectors import ACTING, OBSERVING, extras, is_multi_agent
from rlkit.play.answers import ALONE, Answer
from rlkit.play.joint_values import joint_values
from rlkit.play.policy import DirectPolicy, Policy
from rlkit.rllib.episodes import EnvEpisode

LOOKBACK = 128  # steps that stay visible to connectors when a long episode is cut
CHUNK = 1024  # steps after which it is cut, so that memory stays bounded

NO_LOOK_BACK = {*OBSERVING, FlattenObservations, MeanStdFilter}


@dataclass
class _Record:
    """ConnectorPolicy's memory: the RLlib episode so far, and the last action until its outcome is known."""

    name: str
    data: Mapping[str, Any]
    episode: Any = None
    actions: Any = None
    extras: Any = None


class _Watched(EnvEpisode):
    """An episode as one policy sees it: its agents may all be gone while others play on or are yet to come."""

    __slots__ = ()

    def _living(self) -> bool:
        return True


class ConnectorPolicy(Policy):
    """Any connectors: each `act` runs both pipelines on RLlib episodes, as RLlib's env runners do."""

    @property
    def memoryless(self) -> bool:
        pieces = {type(c) for c in self.env_to_module.connectors}
        recurrent = any(module.is_stateful() for module in self.modules.values())
        plain = not extras(self.module_to_env, ACTING, self.multi_agent)
        return pieces <= NO_LOOK_BACK and plain and not recurrent

    @property
    def watches_others(self) -> bool:
        return any(getattr(piece, "watches_others", False) for piece in self.env_to_module.connectors)

    def hear(self, memory: _Record, actions: Mapping[Any, Any]) -> None:
        memory.actions = {**memory.actions, **actions}

    def begin(self, name: str, data: Mapping[str, Any] | None = None) -> _Record:
        return _Record(name, data or {})

    def see(
        self,
        memory: _Record,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        if memory.episode is None:
            memory.episode = self._episode(memory.name)
            memory.episode.custom_data.update(memory.data)
            name = "observations" if self.multi_agent else "observation"
            memory.episode.add_env_reset(**{name: observation}, infos=info or {})
            return
        if self.multi_agent:
            if not isinstance(reward, dict):
                reward = dict.fromkeys(memory.actions, reward)
            if not isinstance(terminated, dict):
                terminated, truncated = {"__all__": terminated}, {"__all__": truncated}
        memory.episode.add_env_step(
            observation,
            memory.actions,
            reward,
            info or {},
            **dict(zip(self._done_names, (terminated, truncated), strict=True)),
            extra_model_outputs=memory.extras,
        )
        if len(memory.episode) >= CHUNK and not memory.episode.is_done:
            memory.episode = memory.episode.cut(len_lookback_buffer=LOOKBACK)
            memory.episode.custom_data.update(memory.data)

    @property
    def _done_names(self) -> tuple[str, str]:
        return ("terminateds", "truncateds") if self.multi_agent else ("terminated", "truncated")

    def _episode(self, name: str) -> Any:
        if self.multi_agent:
            return _Watched(
                name,
                observation_space=dict(self.observation_space.spaces),
                action_space=dict(self.action_space.spaces),
                agent_to_module_mapping_fn=self.mapping,
            )
        return SingleAgentEpisode(
            name, observation_space=self.observation_space, action_space=self.action_space
        )

    def act(
        self,
        memories: Sequence[_Record],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        answers = [Answer() for _ in memories]
        episodes = [memory.episode for memory in memories]
        rl_module = self.modules if self.multi_agent else self.modules[DEFAULT_MODULE_ID]
        call: dict[str, Any] = {"rl_module": rl_module, "episodes": episodes, "explore": explore}
        call["shared_data"] = {}
        inputs = self.env_to_module(batch={}, **call)
        if not inputs:  # nobody's turn
            for memory in memories:
                memory.actions, memory.extras = {}, {}
            return answers
        batches = inputs if self.multi_agent else {DEFAULT_MODULE_ID: inputs}
        orders = self._row_orders(call["shared_data"]) if explore and self.multi_agent else {}
        batches = {name: _permuted(batches[name], orders.get(name)) for name in sorted(batches)}
        outs = {name: dict(out) for name, out in self._forward(batches, explore, block).items()}
        if isinstance(self.module_to_env.connectors[0], module_to_env.GetActions):
            for name, out in outs.items():  # here, where the rows are in the order of their agents
                out[Columns.ACTIONS] = acting.Chooser(self.modules[name], explore)(out).actions
        for name, order in orders.items():
            back = np.argsort(order)
            batches[name], outs[name] = _permuted(batches[name], back), _permuted(outs[name], back)
        columns = self.module_to_env(
            batch=outs if self.multi_agent else outs[DEFAULT_MODULE_ID],
            **call,
        )
        actions = columns.pop(Columns.ACTIONS)
        for_env = columns.pop(Columns.ACTIONS_FOR_ENV, actions)
        if not self.multi_agent:
            actions, for_env = space_utils.unbatch(actions), space_utils.unbatch(for_env)
        for index, memory in enumerate(memories):
            memory.actions = actions[index]
            if self.multi_agent:
                memory.extras = {
                    agent: {name: values[index][agent] for name, values in columns.items()}
                    for agent in actions[index]
                }
                answers[index].actions = dict(for_env[index])
                answers[index].module_actions = dict(actions[index])
            else:
                memory.extras = {name: values[index] for name, values in columns.items()}
                answers[index].actions = {ALONE: for_env[index]}
                answers[index].module_actions = {ALONE: actions[index]}
        if q_values:
            self._add_q_values(batches, memories, call["shared_data"], answers, judged, block)
        return answers

    def _row_orders(self, shared: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return, by module, the order of its rows sorted by agent.

        So that which random number an agent gets does not depend on the order in which the agents came.
        """
        rows = shared.get("memorized_map_structure") or {}
        return {
            name: np.argsort([str(agent) for _, agent in where], kind="stable")
            for name, where in rows.items()
        }

    def _add_q_values(
        self,
        batches: dict[str, dict],
        memories: Sequence[_Record],
        shared: dict[str, Any],
        answers: list[Answer],
        judged: Sequence[Mapping[Any, Any]] | None,
        block: int | None,
    ) -> None:
        """Give each row's Q-values to its episode and agent, by the pipeline's own note of the row order."""
        order: Any = shared["memorized_map_structure"]
        by_id = {memory.episode.id_: index for index, memory in enumerate(memories)}
        if not self.multi_agent:
            order = {DEFAULT_MODULE_ID: [(episode_id, ALONE) for episode_id in order]}
        parts: dict[str, Any] = {}
        for name, rows in order.items():
            where = [(by_id[episode_id], agent) for episode_id, agent in rows]
            if judged is not None:
                actions = [judged[index][agent] for index, agent in where]
            elif self.multi_agent:
                actions = [memories[index].actions[agent] for index, agent in where]
            else:
                actions = [memories[index].actions for index, _ in where]
            parts[name] = (where, batches[name][Columns.OBS], acting.stack(actions))
            values = self._q_values(name, batches[name], parts[name][2], block)
            if values is not None:
                for (index, agent), value in zip(where, values, strict=True):
                    answers[index].q_values[agent] = value
            self._tell(name, batches[name], where, answers, block)
        for (index, agent), value in joint_values(self.modules, parts).items():
            answers[index].q_values[agent] = value


def policy_of(modules: Any, env_to_module: Any, module_to_env: Any, env_steps: int | None = 0) -> Policy:
    """Return the policy of modules and connectors.

    The short way if every connector is RLlib's default or says what it does to an array of observations, `rows`.
    """
    several = is_multi_agent(env_to_module)
    before, after = extras(env_to_module, OBSERVING, several), extras(module_to_env, ACTING, several)
    plain = before is not None and all(hasattr(piece, "rows") for piece in before) and after == []
    kind = DirectPolicy if plain else ConnectorPolicy
    return kind(modules, env_to_module, module_to_env, env_steps)


def _permuted(batch: Any, order: np.ndarray | None) -> Any:
    return batch if order is None else acting.map_tensors(lambda x: x[torch.from_numpy(order)], batch)
