"""Noise on a deterministic action: Gaussian and Ornstein-Uhlenbeck, by RLlib's old names and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlkit.exploration.base import ActionExploration, Scaled, above, at_least

if TYPE_CHECKING:
    from rlkit.exploration.runner import Explorer, Place


class GaussianNoise(Scaled, ActionExploration):
    """clip(a + scale · N(0, `stddev`²)), a being the mode of the policy; uniform for `random_timesteps` before that.

    Actions are those of the module: in [-1, 1] with RLlib's `normalize_actions`, its default. The scale goes
    from `initial_scale` to `final_scale` within `scale_timesteps`. Off-policy algorithms with Box actions.
    """

    spaces = ("Box",)
    on_policy = False

    def __init__(
        self,
        random_timesteps: int = 1000,
        stddev: float = 0.1,
        initial_scale: float = 1.0,
        final_scale: float = 0.02,
        scale_timesteps: int = 10_000,
    ):
        super().__init__(random_timesteps, initial_scale, final_scale, scale_timesteps)
        self.stddev = at_least("stddev", stddev, 0)

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import AdditiveNoise
        from rlkit.exploration.noise import GaussianProcess

        return AdditiveNoise(
            place, GaussianProcess(self.stddev, place.rng), self.scale, self.random_timesteps
        )


class OrnsteinUhlenbeckNoise(Scaled, ActionExploration):
    """clip(a + scale · `ou_base_scale` · x · (high - low)), x being an Ornstein-Uhlenbeck process.

    The process has `ou_theta` and `ou_sigma`, is one per environment and agent, and 0 at the start of each episode. The
    rest is as in `GaussianNoise`.
    """

    spaces = ("Box",)
    on_policy = False

    def __init__(
        self,
        random_timesteps: int = 1000,
        ou_theta: float = 0.15,
        ou_sigma: float = 0.2,
        ou_base_scale: float = 0.1,
        initial_scale: float = 1.0,
        final_scale: float = 0.02,
        scale_timesteps: int = 10_000,
    ):
        super().__init__(random_timesteps, initial_scale, final_scale, scale_timesteps)
        self.ou_theta = above("ou_theta", ou_theta)
        if ou_theta >= 2:
            raise ValueError(f"ou_theta must be below 2, got {ou_theta}: the process would not be stable")
        self.ou_sigma = at_least("ou_sigma", ou_sigma, 0)
        self.ou_base_scale = at_least("ou_base_scale", ou_base_scale, 0)

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import AdditiveNoise
        from rlkit.exploration.noise import OrnsteinUhlenbeckProcess

        process = OrnsteinUhlenbeckProcess(self.ou_theta, self.ou_sigma, place.rng)
        return AdditiveNoise(place, process, self.scale, self.random_timesteps, factor=self._factor(place))

    def _factor(self, place: Place) -> Any:
        import numpy as np

        width = place.space.high - place.space.low
        return self.ou_base_scale * np.where(np.isfinite(width), width, 1.0)
