"""Batches of policies with a centralised critic: a row is a step of the team, with the k agents of the module in it.

The critic reads the team once per row and gives k values. Policy and losses see B k agent steps; those of agents that
did not act are masked. Value targets are normalised once per batch, before its epochs.

Legend: T rows, E environments, B rows of a batch, k agents of a module, M rows of a minibatch, K minibatches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from rlkit.algos.learning.minibatches import map_arrays, tensors
from rlkit.algos.onpolicy.gae import gae_of_team, standardised
from rlkit.algos.onpolicy.learner import MAX_BYTES, VALUES, OnPolicyLearner, check_finite, joined, map_tensors
from rlkit.algos.onpolicy.team_module import CRITIC_INPUT, TeamPPOModule
from rlkit.algos.sampling.team_fragment import TeamFragment
from rlkit.errors import RunFailed


class TeamLearner(OnPolicyLearner):
    """Mixin before `OnPolicyLearner`'s users: modules with a centralised critic learn from `TeamFragment`s."""

    _inputs: dict[int, torch.Tensor]  # of the fragments of this call, for all modules

    def update_from_fragments(self, fragments: Mapping[str, Sequence[Any]], **kwargs: Any) -> dict[str, Any]:
        self._inputs = {}
        try:
            return super().update_from_fragments(fragments, **kwargs)
        finally:
            self._inputs = {}

    def judges_team(self, module_id: str) -> bool:
        """Whether a module has a centralised critic."""
        module = self.module[module_id].unwrapped()
        return isinstance(module, TeamPPOModule) and module.judges_team

    def minibatch_rows(self, module_id: str, columns: Mapping[str, Any], size: int) -> int:
        """Return the rows of a minibatch: `minibatch_size` counts agent steps, rows are steps of the team."""
        wanted = self.config.minibatch_size
        if not wanted or not self.judges_team(module_id):
            return super().minibatch_rows(module_id, columns, size)
        return max(1, wanted // len(self.module[module_id].unwrapped().players))

    def minibatches(self, module_id: str, columns: dict[str, Any]) -> dict[str, Any]:
        """Return minibatches (K, M, k, ...) as (K, M k, ...); the critic's input stays (K, M, D)."""
        if not self.judges_team(module_id):
            return columns
        return {
            n: c if n == CRITIC_INPUT else map_tensors(c, lambda t: t.flatten(1, 2))
            for n, c in columns.items()
        }

    def rows_of(self, module_id: str, fragments: Sequence[Any]) -> dict[str, Any]:
        if not self.judges_team(module_id):
            return super().rows_of(module_id, fragments)
        module = self.module[module_id].unwrapped()
        parts = [self._team_rows(module_id, module, fragment) for fragment in fragments]
        columns = {name: joined([part[name] for part in parts]) for name in parts[0]}
        acted = columns[Columns.LOSS_MASK]
        if bool(acted.all()):
            del columns[Columns.LOSS_MASK]
        names = VALUES, Postprocessing.VALUE_TARGETS
        columns.update(zip(names, module.in_its_units(*(columns[n] for n in names), acted), strict=True))
        if self.config.get_config_for_module(module_id).standardize_advantages == "batch":
            advantages = columns[Postprocessing.ADVANTAGES]
            advantages[acted] = torch.from_numpy(standardised(advantages[acted].cpu().numpy())).to(
                self.device
            )
        return columns

    def _team_rows(self, module_id: str, module: TeamPPOModule, fragment: TeamFragment) -> dict[str, Any]:
        config = self.config.get_config_for_module(module_id)
        places = fragment.places(module_id)
        acted = fragment.acted[..., places]
        rows = np.flatnonzero(acted.any(axis=-1).reshape(-1))
        rewards = fragment.rewards[..., places]
        check_finite(module_id, "reward", rewards[acted])
        inputs = self._critic_input(module, fragment)
        values = self._team_values(module, inputs).reshape(*fragment.present.shape[:2], len(places))
        check_finite(module_id, "value", values[:-1][acted])
        advantages = gae_of_team(
            rewards, values, fragment.terminated[..., places], fragment.truncated[..., places], acted,
            fragment.present[..., places], fragment.last, gamma=config.gamma, lambda_=config.lambda_,
        )  # fmt: skip
        check_finite(module_id, "advantage", advantages)
        for agent in fragment.players(module_id):
            if agent not in fragment.action_logp:
                raise RunFailed(
                    f"module {module_id!r}: it gave no action_logp for agent {agent!r}, expected a module that samples "
                    "from a distribution; mark its policy `train: false`, or use PPO's own module"
                )
        columns = {
            Columns.OBS: fragment.stacked("obs", module_id),
            Columns.ACTIONS: fragment.stacked("actions", module_id),
            Columns.ACTION_LOGP: fragment.stacked("action_logp", module_id),
            Columns.ACTION_DIST_INPUTS: fragment.stacked("action_dist_inputs", module_id),
            Postprocessing.ADVANTAGES: advantages,
            Postprocessing.VALUE_TARGETS: np.where(acted, advantages + values[:-1], 0.0).astype(np.float32),
            VALUES: values[:-1],
            Columns.LOSS_MASK: acted,
        }
        chosen = {
            name: map_arrays(column, lambda a: a[: len(acted)].reshape(-1, *a.shape[2:])[rows])
            for name, column in columns.items()
        }
        found: dict[str, Any] = tensors(chosen, self.device)
        found[CRITIC_INPUT] = inputs.index_select(0, torch.from_numpy(rows).to(self.device))
        return found

    def _critic_input(self, module: TeamPPOModule, fragment: TeamFragment) -> torch.Tensor:
        """Return what critics read in every row, ((T + 1) E, D); it is the same for all modules."""
        known = self._inputs.get(id(fragment))
        if known is not None:
            return known
        if module.team.state is not None and fragment.state is None:
            raise RunFailed(
                "critic_input: state needs a fixed team that is sampled on arrays, and this one is sampled as episodes "
                "(the log says why); write critic_input: observations"
            )
        state = None if fragment.state is None else torch.from_numpy(np.ascontiguousarray(fragment.state))
        seen = {agent: tensors(map_arrays(o, _as_rows), self.device) for agent, o in fragment.obs.items()}
        state = None if state is None else state.flatten(0, 1).to(self.device)
        found = self._inputs[id(fragment)] = module.team.critic_input(seen, state)
        return found

    def _team_values(self, module: TeamPPOModule, inputs: torch.Tensor) -> np.ndarray:
        at_once = max(1, int(MAX_BYTES / max(1, inputs[0].nbytes)))
        with torch.no_grad():
            parts = [module.team_values(part) for part in inputs.split(at_once)]
        return torch.cat(parts).float().cpu().numpy()


def _as_rows(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1, *array.shape[2:])
    return flat.astype(np.float32) if flat.dtype == np.float64 else flat
