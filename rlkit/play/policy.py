"""Observations in, actions out, without an env runner: what RLlib's runners do between two environment steps.

A `Policy` is the modules and connectors of one checkpoint; `rlkit.play.connectors.policy_of` makes one. It has two
forms with the same methods and, bit for bit, the same answers. `ConnectorPolicy` runs the checkpoint's own
connector pipelines. RLlib's default pieces only stack observations and scale actions, at 20 to 50 us per row
and step (benchmarks/evaluate_cost.py); with those alone, `DirectPolicy` does the same on arrays.

Shapes: B rows (one per episode and acting agent), O observation, A action. Recurrent modules see (B, 1, O).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rlkit import rllib
from rlkit.algos.sampling import acting, actions, connectors
from rlkit.errors import UsageError, did_you_mean
from rlkit.play.answers import ALONE, Answer, has_q_values, judges_jointly, named_outputs
from rlkit.play.joint_values import joint_values


class Policy:
    """The modules and connectors of one checkpoint. An episode in progress is a `memory`, from `begin`.

    Args:
        modules: every RLModule by id, a MultiRLModule or a dict.
        env_to_module: RLlib's connector pipeline; its state is applied and no longer updated.
        module_to_env: the same for actions.
        env_steps: environment steps trained, for exploration schedules; None where nobody knows.

    Attributes:
        normalized: whether Box actions are scaled from a module's [-1, 1].
    """

    def __init__(self, modules: Any, env_to_module: Any, module_to_env: Any, env_steps: int | None = 0):
        self.modules = modules
        self.env_to_module = env_to_module
        self.module_to_env = module_to_env
        self.env_steps = env_steps
        self.mapping: Callable[..., str] | None = rllib.policy_mapping(env_to_module)
        self.observation_space: gym.Space = env_to_module.input_observation_space
        self.action_space: gym.Space = module_to_env.input_action_space
        self._joint = isinstance(modules, MultiRLModule) and not all(
            rllib.forwards_separately(modules, call) for call in (acting.EXPLORE, acting.INFER)
        )
        connectors.repair(module_to_env)
        scaling = [c for c in module_to_env.connectors if isinstance(c, connectors.NormalizeAndClipActions)]
        self.normalized = any(c.normalize_actions for c in scaling)
        self._clip = any(c.clip_actions for c in scaling)
        self._maps: dict[Any, actions.ActionMap] = {}
        rllib.freeze_connectors(env_to_module)
        self._pieces = [piece for piece in env_to_module.connectors if hasattr(piece, "rows")]

    @property
    def multi_agent(self) -> bool:
        return self.mapping is not None

    @property
    def schedule_steps(self) -> int:
        """The environment steps that exploration schedules are read at.

        Raises:
            UsageError: nobody knows them.
        """
        if self.env_steps is None:
            raise UsageError(
                "the checkpoint does not say how many environment steps it has trained (neither algorithm_state nor "
                "env_runner/state has RLlib's count), so exploration schedules cannot be read; leave out --explore "
                "(Python: explore=False)"
            )
        return self.env_steps

    @property
    def acts_jointly(self) -> bool:
        """Whether modules see each other's batches when they act."""
        return self._joint and self.multi_agent

    def action_map(self, agent: Any) -> actions.ActionMap:
        """Return how module actions of an agent become the environment's, and back."""
        if agent not in self._maps:
            space: Any = self.action_space
            if self.multi_agent:
                known = list(space.spaces)
                if agent not in known:
                    raise UsageError(f"unknown agent {agent!r}{did_you_mean(agent, known)}; agents: {known}")
                space = space[agent]
            self._maps[agent] = actions.ActionMap(space, self.normalized, self._clip)
        return self._maps[agent]

    @property
    def memoryless(self) -> bool:
        """Whether an action depends on the latest observation alone."""
        return False

    @property
    def watches_others(self) -> bool:
        """Whether its inputs depend on other agents' observations and actions, as DRON's do."""
        return False

    def hear(self, memory: Any, actions: Mapping[Any, Any]) -> None:
        """Tell which actions agents that others play took in this step, as a module puts them out; by agent."""

    def begin(self, name: str, data: Mapping[str, Any] | None = None) -> Any:
        """Return the memory of a new episode.

        Args:
            name: the id that a policy mapping may look at.
            data: what it finds in the episode's `custom_data`, such as the opponent of self-play.
        """
        raise NotImplementedError

    def see(
        self,
        memory: Any,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        """Tell what `reset` (the first call) or `step` returned; multi-agent: the environment's dicts."""
        raise NotImplementedError

    def act(
        self,
        memories: Sequence[Any],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        """Answer the latest observation of each episode.

        Args:
            memories: the episodes, each with an observation that waits for its action.
            explore: sample as in training instead of taking the best action.
            q_values: also compute the Q-values of the modules that have them.
            judged: module actions by agent, per episode, to compute those Q-values for (where actions are
                continuous) instead of the chosen actions.
            block: rows per forward pass, padded. BLAS chooses its summation order by the number of rows: a
                row gives other last bits in a batch of 2 than in one of 32 (measured, MKL 2024.2). With a
                fixed number it gives the same, whatever the other rows are.
        """
        raise NotImplementedError

    def _forward(self, batches: Mapping[str, dict], explore: bool, block: int | None) -> dict[str, dict]:
        """Run each module on its batch of tensors (B, ...)."""
        t = self.schedule_steps if explore else 0
        with torch.no_grad():
            if self.acts_jointly:
                if explore:
                    return self.modules.forward_exploration(batches, t=t)
                return self.modules.forward_inference(batches)
            return {
                name: acting.act(self.modules[name], batch, explore=explore, t=t, block=block)
                for name, batch in batches.items()
            }

    def _q_values(
        self, name: str, batch: Mapping[str, Any], actions: Any, block: int | None
    ) -> np.ndarray | None:
        """Q of every action (B, n); where actions are continuous (B,), of the given module actions."""
        module = self.modules[name]
        if not has_q_values(module) or judges_jointly(module):
            return None
        inputs = dict(batch)
        if not isinstance(module.action_space, gym.spaces.Discrete):
            inputs[Columns.ACTIONS] = actions

        def run(part: dict) -> dict:
            out = module.compute_q_values(part)
            return {"q": out["qf_preds"] if isinstance(out, dict) else out}

        with torch.no_grad():
            values = acting.in_blocks(run, inputs, block)["q"]
        return (values.squeeze(1) if module.is_stateful() else values).numpy()

    def _tell(
        self,
        name: str,
        batch: Mapping[str, Any],
        where: Sequence[tuple[int, Any]],
        answers: Sequence[Answer],
        block: int | None,
    ) -> None:
        """Add the named outputs of a module to the answers of its rows."""
        module = self.modules[name]
        for output in named_outputs(module):

            def run(part: dict, output: str = output) -> dict:
                return {output: module.named_output(output, part[Columns.OBS])}

            with torch.no_grad():
                values = acting.in_blocks(run, batch, block)[output].numpy()
            for (index, agent), value in zip(where, values, strict=True):
                answers[index].outputs.setdefault(output, {})[agent] = value


@dataclass
class _Latest:
    """DirectPolicy's memory: what each agent that must act has seen, and its recurrent state."""

    name: str
    data: Mapping[str, Any]
    observations: dict[Any, Any] = field(default_factory=dict)
    states: dict[Any, Any] = field(default_factory=dict)
    modules: dict[Any, str] = field(default_factory=dict)
    episode: MultiAgentEpisode | None = None


class DirectPolicy(Policy):
    """RLlib's default connectors done on arrays, and those with a method `rows`."""

    @property
    def memoryless(self) -> bool:
        return not any(module.is_stateful() for module in self.modules.values())

    def begin(self, name: str, data: Mapping[str, Any] | None = None) -> _Latest:
        return _Latest(name, data or {})

    def see(
        self,
        memory: _Latest,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        if not self.multi_agent:
            memory.observations = {ALONE: observation}
            return
        flags = [f for f in (terminated, truncated) if isinstance(f, dict)]
        memory.observations = {
            agent: o for agent, o in observation.items() if not any(f.get(agent) for f in flags)
        }

    def act(
        self,
        memories: Sequence[_Latest],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        rows: dict[str, list[tuple[int, Any]]] = {}
        for index, memory in enumerate(memories):
            # Sorted, so that the same agent always draws the same random numbers.
            for agent in sorted(memory.observations, key=str) if explore else memory.observations:
                rows.setdefault(self._module_of(memory, agent), []).append((index, agent))
        rows = dict(sorted(rows.items()))
        batches = {name: self._batch(name, memories, where) for name, where in rows.items()}
        outs = self._forward(batches, explore, block)
        answers = [Answer() for _ in memories]
        parts: dict[str, Any] = {}
        for name, where in rows.items():
            module, out = self.modules[name], outs[name]
            chosen = acting.Chooser(module, explore)(out).actions
            if q_values:
                asked = chosen if judged is None else acting.stack([judged[i][agent] for i, agent in where])
                parts[name] = (where, batches[name][Columns.OBS], asked)
                q = self._q_values(name, batches[name], asked, block)
                for (index, agent), values in zip(where, q, strict=True) if q is not None else ():
                    answers[index].q_values[agent] = values
                self._tell(name, batches[name], where, answers, block)
            if module.is_stateful():
                chosen = acting.map_tensors(lambda a: a.squeeze(1), chosen)
                for row, (index, agent) in enumerate(where):
                    memories[index].states[agent] = acting.map_tensors(
                        lambda s, row=row: s[row], out[Columns.STATE_OUT]
                    )
            chosen = acting.arrays(chosen)
            for i, ((index, agent), action) in enumerate(
                zip(where, self._for_env(chosen, where), strict=True)
            ):
                answers[index].actions[agent] = action
                answers[index].module_actions[agent] = acting.row(chosen, i)
        for (index, agent), value in joint_values(self.modules, parts).items():
            answers[index].q_values[agent] = value
        return answers

    def _module_of(self, memory: _Latest, agent: Any) -> str:
        if self.mapping is None:
            return DEFAULT_MODULE_ID
        if agent not in memory.modules:
            if memory.episode is None:
                memory.episode = MultiAgentEpisode(memory.name)
                memory.episode.custom_data.update(memory.data)
            memory.modules[agent] = self.mapping(agent, memory.episode)
        return memory.modules[agent]

    def _batch(self, name: str, memories: Sequence[_Latest], where: list[tuple[int, Any]]) -> dict[str, Any]:
        """Return {obs: (B, O)}, or {obs: (B, 1, O), state_in: (B, ...)} for a recurrent module."""
        module = self.modules[name]
        seen: Any = [memories[index].observations[agent] for index, agent in where]
        for piece in self._pieces:
            seen = piece.rows(seen)
        batch = {Columns.OBS: acting.stack(seen)}
        if module.is_stateful():
            batch[Columns.OBS] = acting.with_time(batch[Columns.OBS])
            states = [memories[index].states.get(agent) for index, agent in where]
            if any(state is None for state in states):
                first = acting.initial_state(module)
                states = [first if state is None else state for state in states]
            batch[Columns.STATE_IN] = acting.map_tensors(lambda *parts: torch.stack(parts), *states)
        return batch

    def _for_env(self, chosen: Any, where: list[tuple[int, Any]]) -> list[Any]:
        """Turn module actions (B, A) into the environment's; return one per row."""
        maps = {agent: self.action_map(agent) for agent in {agent for _, agent in where}}
        first, *others = maps.values()
        if any(other.space != first.space for other in others):
            return [maps[agent].one(acting.row(chosen, i)) for i, (_, agent) in enumerate(where)]
        return first.rows(chosen)
