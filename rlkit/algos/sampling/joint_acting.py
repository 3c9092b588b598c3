"""Actions of all agents in all environments: one call of each module per step, no connectors.

The acting core (`acting`, `actions`) for teams: who plays whom, and where each row of a module's batch comes from.
Explorations of `rlkit.exploration` stand in front of `forward_exploration` and work here unchanged.

Legend: E environments, N agents, B rows of a module's batch: environments outside, its agents inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns

from rlkit import rllib
from rlkit.algos.sampling import acting
from rlkit.algos.sampling.actions import ActionMap
from rlkit.algos.sampling.connectors import PerEpisode
from rlkit.algos.sampling.joint_rows import Leaves, TeamLayout

KEPT = (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)


@dataclass
class _Group:
    """Who a module plays: `agents` in any environment; `mask` (E, len(agents)) where not all in all."""

    agents: list[int]
    mask: np.ndarray | None = None
    keys: list[tuple[str, str]] = field(default_factory=list)


class Acting:
    """Chooses actions for E environments.

    Args:
        config: RLlib's; `normalize_actions`, `clip_actions`.
        module: the runner's MultiRLModule.
        roster: the agents.
        num_envs: E.
        device: of the modules.
        constants: what modules are told once per episode.
        keeps: note in `outputs` what on-policy learners need of a choice.

    Attributes:
        outputs: of the last call, (E, ...) per agent: `action_logp`, and `action_dist_inputs`; empty for agents whose
            module chooses without a distribution.
    """

    def __init__(
        self,
        config: Any,
        module: Any,
        roster: TeamLayout,
        num_envs: int,
        device: Any,
        constants: Sequence[PerEpisode],
        keeps: bool = False,
    ):
        self._keeps, self.outputs = keeps, dict[str, Leaves]()
        self.roster, self.num_envs, self.device = roster, num_envs, device
        self.modules: list[list[str]] = [[""] * len(roster.agents) for _ in range(num_envs)]
        self._constants = {piece: np.zeros((num_envs, len(roster.agents)), np.int64) for piece in constants}
        self._groups: dict[str, _Group] = {}
        self._module, self._explore = module, True
        self._calls: dict[str, tuple[Callable[..., Any], acting.Chooser]] = {}
        self._maps = {
            agent: ActionMap(space, config.normalize_actions, config.clip_actions)
            for agent, space in roster.action_spaces.items()
        }

    def assign(self, env: int, episode: Any) -> None:
        """Take from a new episode which module plays each agent, and what modules are told in it."""
        modules = [episode.module_for(agent) for agent in self.roster.agents]
        if self.modules[env] != modules:
            self.modules[env] = modules
            self._groups = {}
        for piece, table in self._constants.items():
            table[env] = [piece.value(episode.id_, episode.custom_data, a) for a in self.roster.agents]

    def keys(self, episode_ids: list[str]) -> dict[str, list[tuple[str, str]]]:
        """Return what each row of each module's batch belongs to: (episode id, agent)."""
        agents = self.roster.agents
        found = {}
        for module_id, group in self._regroup().items():
            places = [(e, i) for e in range(self.num_envs) for i in range(len(group.agents))]
            if group.mask is not None:
                places = [(e, i) for e, i in places if group.mask[e, i]]
            found[module_id] = [(episode_ids[e], agents[group.agents[i]]) for e, i in places]
        return found

    def prepare(self, module: Any, explore: bool) -> None:
        """Look up anew how the modules are called; they may have been replaced or given an exploration."""
        self._module, self._explore, self._calls = module, explore, {}
        call = acting.EXPLORE if explore else acting.INFER
        self._together = not rllib.forwards_separately(module, call)
        self._whole = getattr(module, call)

    def _call_of(self, module_id: str) -> tuple[Callable[..., Any], acting.Chooser]:
        if module_id not in self._calls:
            part = self._module[module_id]
            if isinstance(part, torch.nn.Module) and part.training:
                part.eval()
            call = rllib.forward(part, acting.EXPLORE if self._explore else acting.INFER)
            self._calls[module_id] = call, acting.Chooser(part, self._explore)
        return self._calls[module_id]

    def __call__(self, obs: Leaves, t: int) -> tuple[Leaves, dict[str, np.ndarray]]:
        """Return the modules' actions, (E, ...) per leaf of the roster's actions, and those for the environments.

        Args:
            obs: (E, ...) per leaf.
            t: env steps of all runners.
        """
        extra = {"t": t} if self._explore else {}
        batches = {
            mid: {Columns.OBS: self._batch(obs, group), **self._told(group)}
            for mid, group in self._regroup().items()
        }
        calls = {mid: self._call_of(mid) for mid in batches}
        if self._together:
            outs = self._whole(batches, **extra)
        else:
            outs = {mid: calls[mid][0](batch, **extra) for mid, batch in batches.items()}
        actions: Leaves = [np.empty(0)] * len(self.roster.agents)
        if self._keeps:
            self.outputs = {name: [np.empty(0)] * len(self.roster.agents) for name in KEPT}
        for module_id, group in self._groups.items():
            chosen = calls[module_id][1](outs[module_id], logp=self._keeps)
            self._scatter(acting.arrays(chosen.actions), group, actions)
            if self._keeps and chosen.logp is not None and chosen.inputs is not None:
                for name, part in zip(KEPT, (chosen.logp, chosen.inputs), strict=True):
                    self._scatter(acting.arrays(part), group, self.outputs[name])
        return actions, {agent: self._maps[agent](actions[i]) for i, agent in enumerate(self.roster.agents)}

    def _regroup(self) -> dict[str, _Group]:
        if not self._groups:
            table = np.array(self.modules, dtype=object)
            for module_id in dict.fromkeys(table.ravel().tolist()):
                plays = table == module_id
                agents = np.flatnonzero(plays.any(axis=0)).tolist()
                mask = plays[:, agents]
                self._groups[module_id] = _Group(agents, None if mask.all() else mask)
        return self._groups

    def _batch(self, obs: Leaves, group: _Group) -> Any:
        """Stack the observations of a module's agents, (B, ...), nested like their space."""
        names = [self.roster.agents[i] for i in group.agents]
        places = [self.roster.leaves_of[name] for name in names]
        stacked = []
        for leaf in zip(*places, strict=True):
            parts = [obs[i] for i in leaf]
            values = parts[0][:, None] if len(parts) == 1 else np.stack(parts, axis=1)
            if group.mask is not None:
                values = values[group.mask]
            else:
                values = values.reshape(-1, *values.shape[2:])
            # a copy, because the environments write their next observations into the same memory
            stacked.append(acting.tensors(values.copy() if len(parts) == 1 else values, self.device))
        return self.roster.columns[names[0]].nest(stacked)

    def _told(self, group: _Group) -> dict[str, torch.Tensor]:
        """Return the columns (B,) that stay the same within an episode."""
        found = {}
        for piece, table in self._constants.items():
            values = table[:, group.agents]
            values = values.ravel() if group.mask is None else values[group.mask]
            found[piece.column] = torch.from_numpy(values).to(self.device)
        return found

    def _scatter(self, chosen: np.ndarray, group: _Group, actions: Leaves) -> None:
        count = len(group.agents)
        if group.mask is None:
            table = chosen.reshape(self.num_envs, count, *chosen.shape[1:])
            for i, agent in enumerate(group.agents):
                actions[agent] = table[:, i]
            return
        for i, agent in enumerate(group.agents):
            if not actions[agent].size:
                actions[agent] = np.zeros((self.num_envs, *chosen.shape[1:]), chosen.dtype)
            rows = np.cumsum(group.mask.ravel()).reshape(group.mask.shape)[:, i] - 1
            here = group.mask[:, i]
            actions[agent][here] = chosen[rows[here]]
