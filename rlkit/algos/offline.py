"""BC, MARWIL, CQL and IQL: RLlib's modules and losses, learned from recorded episodes.

How episodes become columns, and what one training step is, stands in `rlkit.algos.learning.recorded`.

- BC clones the actions: log-likelihood alone.
- MARWIL (Wang et al. 2018) weighs them by exp(β A), A the return that followed minus the value.
- CQL (arXiv 2006.04779) is SAC with Q-values of actions that are not in the data pushed down; Box actions.
- IQL (arXiv 2110.06169) learns Q by expectile regression and clones by advantage; Box actions.

Deviations from RLlib 2.60, where its own way from data to update goes wrong without a word:
1. Its reader makes an episode of every row, so the returns of MARWIL end after one step, and it computes value targets
   once, with the untrained value function. Here they come from whole episodes, with the current one.
2. It trains on the actions as they were recorded, though the module acts in [-1, 1] and `normalize_actions` scales
   what it says. Here actions go the way back (`ActionMap.back`).
3. CQL counts `bc_iters` by a metric that each call empties, so the actor never leaves behaviour cloning. Here updates
   are counted, and saved.
4. CQL draws its random actions between the environment's bounds. Here it draws in [-1, 1], where the module acts.
5. Targets move after each update, not after each call of K (`rlkit.algos.learning.learner`).
6. The average by which MARWIL scales advantages is saved with the checkpoint.
7. MARWIL's policy and value function have layers of their own, unless a recipe shares them. RLlib means so, in a
   property that nothing reads; in shared layers the value loss of returns in the hundreds crowds out the policy.
8. A run goes on from a checkpoint: RLlib's `restore_from_path` fails where there are no training env runners.

Legend: E episodes, N steps, K updates of a call, B rows of a minibatch.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.bc import BC as RLlibBC
from ray.rllib.algorithms.bc import BCConfig as RLlibBCConfig
from ray.rllib.algorithms.cql.cql import CQL as RLlibCQL
from ray.rllib.algorithms.cql.cql import CQLConfig as RLlibCQLConfig
from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner
from ray.rllib.algorithms.cql.torch.default_cql_torch_rl_module import DefaultCQLTorchRLModule
from ray.rllib.algorithms.iql.iql import IQL as RLlibIQL
from ray.rllib.algorithms.iql.iql import IQLConfig as RLlibIQLConfig
from ray.rllib.algorithms.iql.torch.iql_torch_learner import IQLTorchLearner
from ray.rllib.algorithms.marwil import MARWIL as RLlibMARWIL
from ray.rllib.algorithms.marwil import MARWILConfig as RLlibMARWILConfig
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import ALL_MODULES
from ray.tune.result import TRAINING_ITERATION

from rlkit import rllib
from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.learning.minibatches import first_leaf, map_arrays, tensors
from rlkit.algos.learning.recorded import Offline, OfflineConfig
from rlkit.algos.onpolicy.gae import gae

BLOCK = 16_384  # rows of one forward pass of the value function
TRANSITIONS = (Columns.OBS, Columns.ACTIONS, Columns.NEXT_OBS, Columns.REWARDS, Columns.TERMINATEDS)


def value_targets(
    rewards: np.ndarray,
    lengths: np.ndarray,
    terminated: np.ndarray,
    values: np.ndarray,
    *,
    gamma: float,
    lambda_: float,
) -> np.ndarray:
    """Return GAE's value targets A_t + V(s_t) of whole episodes, (N,) float32; with λ = 1 discounted returns.

    Args:
        rewards: (N,), the episodes one behind the other.
        lengths: (E,).
        terminated: (E,) bool; a truncated episode goes on with the value of its last observation.
        values: (N + E,), V of each observation, the last one of each episode included.
        gamma: discount.
        lambda_: λ of GAE (arXiv 1506.02438).
    """
    longest, count = int(lengths.max()), len(lengths)
    assert len(values) == len(rewards) + count, (values.shape, rewards.shape)
    inside = np.arange(longest)[:, None] < lengths  # (T, E)
    starts = np.cumsum(lengths) - lengths
    where = np.where(inside, np.arange(longest)[:, None] + starts, 0)
    seen = np.minimum(np.arange(longest + 1)[:, None], lengths) + starts + np.arange(count)
    last = np.arange(longest)[:, None] == lengths - 1
    padded = values[seen]
    advantages = gae(
        np.where(inside, rewards[where], 0.0),
        padded,
        last & terminated,
        inside & ~last,
        gamma=gamma,
        lambda_=lambda_,
    )
    targets: np.ndarray = (advantages + padded[:-1]).astype(np.float32).T[inside.T]
    return targets


# BC ------------------------------------------------------------------------------------------------------


class BCLearner(ColumnLearner, MARWILTorchLearner):
    """RLlib's loss of BC and MARWIL, updated from columns."""

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        found = super().get_state(components, not_components=not_components, **kwargs)
        if rllib.wants_component(self, "advantage_norms", components, not_components):
            norms = self.moving_avg_sqd_adv_norms_per_module
            found["advantage_norms"] = {m: float(v) for m, v in norms.items()}
        return found

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for module_id, value in state.get("advantage_norms", {}).items():
            self.moving_avg_sqd_adv_norms_per_module[module_id] = torch.tensor(value, device=self.device)


class BCConfig(OfflineConfig, RLlibBCConfig):
    """RLlib's BCConfig for recorded episodes in memory."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or BC)

    def get_default_learner_class(self) -> Any:
        return BCLearner


class BC(Offline, RLlibBC):
    """RLlib's behaviour cloning."""

    @classmethod
    def get_default_config(cls) -> BCConfig:
        return BCConfig()


# MARWIL --------------------------------------------------------------------------------------------------


class MARWILConfig(rllib.ModelSettings, OfflineConfig, RLlibMARWILConfig):
    """RLlib's MARWILConfig for recorded episodes in memory."""

    def model_settings(self) -> dict[str, Any]:
        return {"vf_share_layers": False}

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or MARWIL)

    def get_default_learner_class(self) -> Any:
        return BCLearner


class MARWIL(Offline, RLlibMARWIL):
    """RLlib's MARWIL, with the returns of whole episodes."""

    @classmethod
    def get_default_config(cls) -> MARWILConfig:
        return MARWILConfig()

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Add the value targets of the current value function."""
        episodes, config = self.episodes, self.config
        values = np.zeros(len(episodes) + len(episodes.lengths), np.float32)
        needed = np.arange(len(values))
        if config.lambda_ == 1.0:  # then only the values behind truncated episodes count
            needed = (np.cumsum(episodes.lengths + 1) - 1)[~episodes.terminated]
        for k in range(0, len(needed), BLOCK):
            values[needed[k : k + BLOCK]] = self._values(needed[k : k + BLOCK])
        targets = value_targets(
            self.rewards,
            episodes.lengths,
            episodes.terminated,
            values,
            gamma=config.gamma,
            lambda_=config.lambda_,
        )
        return {**super().batch(rows), Columns.VALUE_TARGETS: targets[rows]}

    def _values(self, where: np.ndarray) -> np.ndarray:
        learner = self._learner()
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        with torch.no_grad():
            observations = tensors(map_arrays(self.observations, lambda a: a[where]), learner.device)
            found: np.ndarray = module.compute_values({Columns.OBS: observations}).cpu().numpy()
        return found


# CQL -----------------------------------------------------------------------------------------------------


class _CountedCQL(CQLTorchLearner):
    """Tells RLlib's loss how many updates there have been; it asks a metric that starts anew at each call (2.60)."""

    metrics: Any
    updates = 0

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        self.updates += 1
        real, self.metrics = self.metrics, _Counted(self.metrics, self.updates)
        try:
            return super().compute_loss_for_module(**kwargs)
        finally:
            self.metrics = real


class _Counted:
    """A learner's metrics, with the count of updates in the place where CQL's loss looks for it."""

    def __init__(self, metrics: Any, updates: int):
        self.metrics, self.updates = metrics, updates

    def peek(self, key: Any, default: Any = None) -> Any:
        if key == (ALL_MODULES, TRAINING_ITERATION):
            return self.updates
        return self.metrics.peek(key, default=default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.metrics, name)


class CQLLearner(ColumnLearner, _CountedCQL):
    """RLlib's CQL learner, updated from columns."""

    metrics: Any

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        found = super().get_state(components, not_components=not_components, **kwargs)
        if rllib.wants_component(self, "cql_updates", components, not_components):
            found["cql_updates"] = self.updates
        return found

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.updates = state.get("cql_updates", 0)


class _Parts(dict[Any, Any]):
    """An observation of several arrays that has a shape, where RLlib's module asks for the number of rows (2.60)."""

    shape = property(lambda self: first_leaf(self).shape)


class _PartsInOrder(tuple[Any, ...]):
    """The same of a Tuple."""

    shape = property(lambda self: first_leaf(self).shape)


class CQLModule(DefaultCQLTorchRLModule):
    """RLlib's module, whose random actions lie where the policy's do; it reads Dict and Tuple observations too."""

    action_space: gym.Space

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        kinds: dict[type, Any] = {dict: _Parts, tuple: _PartsInOrder}
        seen = {key: batch[key] for key in (Columns.OBS, Columns.NEXT_OBS) if type(batch[key]) in kinds}
        shaped = {key: kinds[type(value)](value) for key, value in seen.items()}
        found: dict[str, Any] = super()._forward_train({**batch, **shaped})
        return found

    def setup(self) -> None:
        super().setup()
        if isinstance(self.action_space, gym.spaces.Box):
            shape = self.action_space.shape
            self.action_space = gym.spaces.Box(-1.0, 1.0, shape, np.float32)


class CQLConfig(OfflineConfig, RLlibCQLConfig):
    """RLlib's CQLConfig for recorded episodes in memory."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or CQL)
        self.lr = None  # RLlib's default of 3e-4 is refused by its own `validate`

    def get_default_rl_module_spec(self) -> Any:
        return RLModuleSpec(module_class=CQLModule)

    def get_default_learner_class(self) -> Any:
        return CQLLearner


class CQL(Offline, RLlibCQL):
    """RLlib's CQL."""

    columns = TRANSITIONS

    @classmethod
    def get_default_config(cls) -> CQLConfig:
        return CQLConfig()


# IQL -----------------------------------------------------------------------------------------------------


class IQLLearner(ColumnLearner, IQLTorchLearner):
    """RLlib's IQL learner, updated from columns."""


class IQLConfig(OfflineConfig, RLlibIQLConfig):
    """RLlib's IQLConfig for recorded episodes in memory."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or IQL)

    def get_default_learner_class(self) -> Any:
        return IQLLearner


class IQL(Offline, RLlibIQL):
    """RLlib's IQL."""

    columns = TRANSITIONS

    @classmethod
    def get_default_config(cls) -> IQLConfig:
        return IQLConfig()


__all__ = ["BC", "CQL", "IQL", "MARWIL", "BCConfig", "CQLConfig", "IQLConfig", "MARWILConfig"]
