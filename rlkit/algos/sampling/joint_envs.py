"""Environments for the joint runner, stepped with arrays: copies of a MultiAgentEnv, or one native batch.

Copies that know how to step together are asked to (`Together`). All keep the current observation of every environment
in `obs`, (E, ...) per leaf, and return what a step brought as a `Step`. An environment that ended stays where it is
until `reset_where`.

Legend: E environments, N agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from rlkit.algos.sampling.joint_rows import Leaves, TeamLayout
from rlkit.errors import EnvError, UsageError
from rlkit.replay.columns import pick


class RosterError(UsageError):
    """An environment whose agents are not the same in every step: `what` was seen."""

    def __init__(self, what: str, fix: str = ""):
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what = what


@dataclass
class Step:
    """Rewards (E, N) float64, flags (E, N) as a joint row has them, `over` (E,), and the infos where asked for."""

    rewards: np.ndarray
    terminateds: np.ndarray
    truncateds: np.ndarray
    over: np.ndarray
    infos: Sequence[Mapping[str, Any]] | None


class JointEnvs(Protocol):
    """What the runner needs of E environments."""

    obs: Leaves

    def reset(self, seeds: list[int] | None) -> Sequence[Mapping[str, Any]]:
        """Start all anew, with a seed for each or where their streams are; return the infos of each."""

    def step(self, actions: Mapping[str, np.ndarray]) -> Step:
        """Step all; `actions` (E, ...) per agent, as the environment wants them."""

    def reset_where(self, envs: np.ndarray) -> Sequence[Mapping[str, Any]]:
        """Start some anew, by their indices; return the infos of each of them."""


class Copies:
    """E copies of a MultiAgentEnv: RLlib's vector environment, whose own `reset` starts them all with seeds.

    RLlib's `step` copies and packs every dict twice and spends a step on each reset; here the copies are
    stepped one by one and their values go into the arrays.
    """

    def __init__(self, vector: Any, roster: TeamLayout):
        self.vector, self.envs, self.roster = vector, list(vector.envs), roster
        self.obs = roster.empty(len(self.envs))
        shape = (len(self.envs), len(roster.agents))
        self._rewards = np.zeros(shape)
        self._flags = np.zeros((2, *shape), bool)

    def reset(self, seeds: list[int] | None) -> Sequence[Mapping[str, Any]]:
        observations, infos = self.vector.reset(seed=seeds)
        self.envs = list(self.vector.envs)
        for row, found in enumerate(observations):
            self._observe(row, found, "reset()")
        return list(infos)

    def step(self, actions: Mapping[str, np.ndarray]) -> Step:
        agents, rewards = self.roster.agents, self._rewards
        terminateds, truncateds = self._flags
        terminateds[:] = truncateds[:] = False
        over = np.zeros(len(self.envs), bool)
        infos = []
        for row, env in enumerate(self.envs):
            found, paid, terminated, truncated, info = env.step({a: actions[a][row] for a in agents})
            self._observe(row, found, "step()")
            if paid.keys() != self.roster.members:
                self._changed("step() paid", paid)
            rewards[row] = [paid[agent] for agent in agents]
            ended, cut = terminated.get("__all__", False), truncated.get("__all__", False)
            if ended or cut:
                over[row] = True
                self._last_flags(row, terminated, truncated)
            elif any(terminated.values()) or any(truncated.values()):
                left = [a for a in agents if not (terminated.get(a) or truncated.get(a))]
                self._changed("the episode goes on with", left)
            infos.append(info)
        return Step(rewards, terminateds, truncateds, over, infos)

    def _last_flags(self, row: int, terminated: Mapping[str, Any], truncated: Mapping[str, Any]) -> None:
        """Read the last flags as episodes do: an agent's own before `__all__`, termination before truncation."""
        ended, cut = terminated.get("__all__", False), truncated.get("__all__", False)
        for i, agent in enumerate(self.roster.agents):
            own_end, own_cut = terminated.get(agent, False), truncated.get(agent, False)
            self._flags[0, row, i] = own_end or (ended and not own_cut)
            self._flags[1, row, i] = (own_cut or cut) and not self._flags[0, row, i]

    def reset_where(self, envs: np.ndarray) -> Sequence[Mapping[str, Any]]:
        infos = []
        for row in envs.tolist():
            # a curriculum may have put another environment into its place
            env = self.envs[row] = self.vector.envs[row]
            observations, info = env.reset()
            self._observe(row, observations, "reset()")
            infos.append(info)
        return infos

    def _observe(self, row: int, observations: Mapping[str, Any], call: str) -> None:
        if observations.keys() != self.roster.members:
            self._changed(f"{call} returned observations of", observations)
        for array, leaf in zip(self.obs, self.roster.obs.leaves, strict=True):
            array[row] = pick(observations, leaf.path)

    def _changed(self, what: str, agents: Any) -> None:
        raise RosterError(
            f"{self.roster.name}: {what} {sorted(agents)}, expected the fixed roster {self.roster.agents}",
            "agents that come, go or take turns need `config: {env_runners: {sampling: episodes}}`",
        )


class Together(Copies):
    """Copies that reset one by one and step together, such as `rlkit.envs.mpe_together.SpreadTogether`.

    A copy that another has replaced, or whose rules have changed, ends that: then all are stepped one by one.
    """

    def __init__(self, vector: Any, roster: TeamLayout, batch: Any):
        super().__init__(vector, roster)
        self.batch: Any = batch
        self._given = list(vector.envs)
        self._order = [batch.agents.index(agent) for agent in roster.agents]
        self.obs = [batch.obs[:, i] for i in self._order]  # views: the batch writes them

    def reset(self, seeds: list[int] | None) -> Sequence[Mapping[str, Any]]:
        infos = super().reset(seeds)
        for row in range(len(self.envs)):
            self._check(row)
        return infos

    def step(self, actions: Mapping[str, np.ndarray]) -> Step:
        if self.batch is None:
            return super().step(actions)
        rewards, over = self.batch.step(actions)
        terminateds, truncateds = self._flags
        truncateds[:] = over[:, None]
        return Step(rewards[:, self._order], terminateds, truncateds, over, None)

    def reset_where(self, envs: np.ndarray) -> Sequence[Mapping[str, Any]]:
        infos = super().reset_where(envs)
        for row in envs.tolist():
            self._check(row)
        return infos

    def _check(self, row: int) -> None:
        if self.batch is not None and not (self.envs[row] is self._given[row] and self.batch.see(row)):
            self.batch = None


def copies(vector: Any, roster: TeamLayout) -> Copies:
    """Return the copies of a vector environment, stepped together where they can be."""
    find = getattr(vector.envs[0].unwrapped, "together", None)
    batch = find(vector.envs) if callable(find) else None
    return Copies(vector, roster) if batch is None else Together(vector, roster, batch)


class NativeBatch:
    """One computation for all environments: `VmasBatch`, or anything with its `reset`, `step` and `reset_where`."""

    def __init__(self, batch: Any, roster: TeamLayout):
        self.batch, self.roster = batch, roster
        self.obs = roster.empty(batch.num_envs)
        self._order = [list(batch.possible_agents).index(agent) for agent in roster.agents]
        self._steps = np.zeros(batch.num_envs, np.int64)  # of each environment's episode

    def reset(self, seeds: list[int] | None) -> Sequence[Mapping[str, Any]]:
        self._steps[:] = 0
        self._observe(self.batch.reset(seeds[0] if seeds else None))  # one stream for all
        return [{}] * self.batch.num_envs

    def step(self, actions: Mapping[str, np.ndarray]) -> Step:
        count = len(self._order)
        device = self.batch.env.device
        given = {
            agent: torch.as_tensor(np.ascontiguousarray(a), device=device) for agent, a in actions.items()
        }
        self._steps += 1
        observations, rewards, terminated, truncated, _ = self.batch.step(given)
        self._observe(observations)
        ended, cut = terminated.cpu().numpy(), truncated.cpu().numpy()
        paid = rewards.cpu().numpy()[:, self._order].astype(np.float64)
        good = np.isfinite(paid)
        if not good.all():
            row, place = np.argwhere(~good)[0]
            self._refuse(row, self.roster.agents[place], "reward", paid[row, place])
        terminateds, truncateds = (np.repeat(f[:, None], count, axis=1) for f in (ended & ~cut, cut))
        return Step(paid, terminateds, truncateds, ended | cut, None)

    def reset_where(self, envs: np.ndarray) -> Sequence[Mapping[str, Any]]:
        marked = torch.zeros(self.batch.num_envs, dtype=torch.bool, device=self.batch.env.device)
        marked[envs] = True
        self._steps[envs] = 0
        self._observe(self.batch.reset_where(marked))
        return [{}] * len(envs)

    def _observe(self, observations: Mapping[str, Any]) -> None:
        for array, leaf in zip(self.obs, self.roster.obs.leaves, strict=True):
            array[:] = pick(observations, leaf.path).cpu().numpy()
            good = np.isfinite(array)
            if not good.all():
                at = tuple(np.argwhere(~good)[0])
                agent, *inside = leaf.path
                field = "".join(["observation", *(f"[{key!r}]" for key in inside)])
                self._refuse(at[0], agent, f"{field} at index {', '.join(map(str, at[1:]))}", array[at])

    def _refuse(self, row: int, agent: Any, field: str, got: Any) -> NoReturn:
        raise EnvError(
            f"{self.roster.name}: environment {row}, agent {agent!r}, step {self._steps[row]} of its episode: {field}: "
            f"got {got}; expected finite numbers. Fix: look for a division by zero or an overflow"
        )
