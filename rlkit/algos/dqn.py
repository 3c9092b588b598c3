"""DQN: RLlib's algorithm, module and loss, on columnar replay and many updates per call.

Every option of RLlib's DQN keeps its name and meaning (double, dueling, distributional, n-step, prioritized
replay): see `rlkit.algos.offpolicy.step` for what the training step adds, and docs/off-policy.md for figures.
"""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner

from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.offpolicy.step import OffPolicy, OffPolicyConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner


class DQNLearner(ColumnLearner, DQNTorchLearner):
    """RLlib's DQN learner, updated from columns."""


class DQNConfig(OffPolicyConfig, RLlibDQNConfig):
    """RLlib's DQNConfig for the columnar DQN."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or DQN)

    def validate(self) -> None:
        if getattr(self, "env_runner_cls", None) is None and not self.is_multi_agent:
            self.env_runner_cls = ArrayEnvRunner
        super().validate()

    def get_default_learner_class(self) -> Any:
        return DQNLearner


class DQN(OffPolicy, RLlibDQN):
    """RLlib's DQN on columnar replay."""

    def setup(self, config: Any) -> None:
        super().setup(config)
        envs = self.config.num_envs_per_env_runner
        if self.recurrent and envs > 1 and self._explores_one_env_only():
            raise ValueError(
                f"RLlib's recurrent DQN module explores wrongly with several environments (2.60: it mixes actions "
                f"of shape (B,) and (B, 1)): got num_envs_per_env_runner {envs}, expected 1, or a module of your own"
            )

    def _explores_one_env_only(self) -> bool:
        explore = DefaultDQNTorchRLModule._forward_exploration

        def check(learner: Any) -> bool:
            return any(type(m.unwrapped())._forward_exploration is explore for _, m in learner.module.items())

        return bool(next(iter(self.learner_group.foreach_learner(check))).get())

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        return DQNConfig()
