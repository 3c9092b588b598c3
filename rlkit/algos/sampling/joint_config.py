"""`env_runners(sampling=…)`: how a multi-agent algorithm with joint replay samples.

`joint`: `JointEnvRunner`, for environments with a fixed roster. `episodes`: RLlib's own runner, for agents that come,
go or take turns. `add_to_replay` of the algorithm gets Fragments from the first, and MultiAgentEpisodes from the
second and wherever the first needs RLlib's way.
"""

from __future__ import annotations

from typing import Any, Literal

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from rlkit.errors import did_you_mean

JOINT, EPISODES = "joint", "episodes"
SAMPLING = (JOINT, EPISODES)


class JointSampling(AlgorithmConfig):
    """Mixin for configs of algorithms whose replay takes joint fragments; stands before the RLlib config class."""

    env_runner_cls: Any

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.sampling = JOINT

    def env_runners(
        self, *, sampling: Literal["joint", "episodes"] = NotProvided, **kwargs: Any
    ) -> JointSampling:
        """Set the env runner options.

        Args:
            sampling: `joint` runs each module once per step for all agents and environments and returns columns;
                `episodes` is RLlib's runner, for rosters that change.
            **kwargs: Those of RLlib.
        """
        super().env_runners(**kwargs)
        if sampling is not NotProvided:
            if sampling not in SAMPLING:
                raise ValueError(
                    f"sampling: got {sampling!r}{did_you_mean(sampling, SAMPLING)}; expected {' or '.join(SAMPLING)}"
                )
            self.sampling = sampling
        return self

    def validate(self) -> None:
        from rlkit.algos.sampling.joint_runner import JointEnvRunner

        if self.env_runner_cls in (None, JointEnvRunner):
            joint = self.sampling == JOINT and self.is_multi_agent
            self.env_runner_cls = JointEnvRunner if joint else None
        super().validate()
