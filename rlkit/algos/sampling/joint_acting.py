"""Actions of all agents in all environments: one call of each module per step, no connectors.

What RLlib's default pipelines do with a plain module, on whole arrays: stack, make tensors, `forward_exploration` or
`forward_inference`, sample from the module's distribution if it chose no actions itself, then unsquash or clip Box
actions to the bounds of the environment. Explorations of `rlkit.exploration` stand in front of
`forward_exploration` and work here unchanged.

Legend: E environments, N agents, B rows of a module's batch: environments outside, its agents inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rlkit import rllib
from rlkit.algos.sampling.joint_rows import Leaves, Roster
from rlkit.algos.sampling.per_episode import PerEpisode


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
    """

    def __init__(
        self,
        config: Any,
        module: Any,
        roster: Roster,
        num_envs: int,
        device: Any,
        constants: Sequence[PerEpisode],
    ):
        self.roster, self.num_envs, self.device = roster, num_envs, device
        self.modules: list[list[str]] = [[""] * len(roster.agents) for _ in range(num_envs)]
        self._constants = {piece: np.zeros((num_envs, len(roster.agents)), np.int64) for piece in constants}
        self._groups: dict[str, _Group] = {}
        self._module, self._explore = module, True
        self._fit = {
            agent: _Fit(space, config.normalize_actions, config.clip_actions)
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
        """Look up how the modules are called; they may have been replaced or given an exploration."""
        self._module, self._explore = module, explore
        call = "forward_exploration" if explore else "forward_inference"
        parts = {module_id: module[module_id] for module_id in self._regroup()}
        for part in parts.values():
            if isinstance(part, torch.nn.Module) and part.training:
                part.eval()
        plain = getattr(type(module), f"_{call}") is getattr(MultiRLModule, f"_{call}")
        self._calls = {mid: rllib.forward(part, call) for mid, part in parts.items()} if plain else None
        self._whole = getattr(module, call)

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
        if self._calls is None:
            outs = self._whole(batches, **extra)
        else:
            outs = {mid: self._calls[mid](batch, **extra) for mid, batch in batches.items()}
        actions: Leaves = [np.empty(0)] * len(self.roster.agents)
        for module_id, group in self._groups.items():
            chosen = self._choose(module_id, outs[module_id])
            self._scatter(chosen, group, actions)
        return actions, {agent: self._fit[agent](actions[i]) for i, agent in enumerate(self.roster.agents)}

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
            stacked.append(torch.from_numpy(values.copy() if len(parts) == 1 else values).to(self.device))
        return self.roster.columns[names[0]].nest(stacked)

    def _told(self, group: _Group) -> dict[str, torch.Tensor]:
        """Return the columns (B,) that stay the same within an episode."""
        found = {}
        for piece, table in self._constants.items():
            values = table[:, group.agents]
            values = values.ravel() if group.mask is None else values[group.mask]
            found[piece.column] = torch.from_numpy(values).to(self.device)
        return found

    def _choose(self, module_id: str, out: Mapping[str, Any]) -> np.ndarray:
        actions = out.get(Columns.ACTIONS)
        if actions is None:
            part = self._module[module_id]
            if self._explore:
                kind = part.get_exploration_action_dist_cls()
                actions = kind.from_logits(out[Columns.ACTION_DIST_INPUTS]).sample()
            else:
                kind = part.get_inference_action_dist_cls()
                actions = kind.from_logits(out[Columns.ACTION_DIST_INPUTS]).to_deterministic().sample()
        if isinstance(actions, torch.Tensor):
            actions = actions.detach().cpu().numpy()
        return np.asarray(actions)

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


class _Fit:
    """`unsquash_action` and `clip_action` of RLlib (2.60, utils/spaces/space_utils.py) for (E, ...) actions."""

    def __init__(self, space: gym.Space, normalize: bool, clip: bool):
        self.space, self.how = space, ""
        if not isinstance(space, gym.spaces.Box):
            return
        if normalize and space.is_bounded():
            self.how = "shift" if np.issubdtype(space.dtype, np.integer) else "unsquash"
        elif clip and not normalize:
            self.how = "clip"
        self.low, self.high = space.low, space.high
        self.width: Any = space.high - space.low if self.how == "unsquash" else None

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        if self.how == "unsquash":
            return np.clip(self.low + (actions + 1.0) * self.width / 2.0, self.low, self.high)
        if self.how == "clip":
            return np.clip(actions, self.low, self.high)
        return self.low + actions if self.how == "shift" else actions
