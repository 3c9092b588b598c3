"""The acting half of `ParameterNoise`: a twin of the module whose weights carry the noise.

Options are those of `rlkit.exploration.parameter_noise.ParameterNoise`.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns

from rlkit import rllib
from rlkit.exploration.explorers import q_values, with_random
from rlkit.exploration.runner import Batch, Explorer, Forward, Place


class NoisyWeights(Explorer):
    """Acts with the twin; the module itself, which RLlib syncs and saves, is never touched."""

    FACTOR = 1.01

    def __init__(
        self, place: Place, stddev: float, random_timesteps: int, epsilon: float, distance: float | None
    ):
        super().__init__(place)
        self.stddev, self.random_timesteps, self.epsilon = float(stddev), random_timesteps, epsilon
        self.discrete = isinstance(place.space, gym.spaces.Discrete)
        self.target = default_distance(place.space) if distance is None else float(distance)
        self.twin = copy.deepcopy(place.module)
        fixed = {
            id(parameter)
            for layer in place.module.modules()
            if isinstance(layer, torch.nn.LayerNorm | torch.nn.GroupNorm)
            for parameter in layer.parameters(recurse=False)
        }
        pairs = zip(place.module.parameters(), self.twin.parameters(), strict=True)
        self.pairs = [(clean, noisy, id(clean) not in fixed) for clean, noisy in pairs]
        self.noise: list[torch.Tensor] = []
        self.last_distance = 0.0
        self._batch: Batch | None = None
        self._episode: Any = None
        self._version: Any = None

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        if t < self.random_timesteps:
            return with_random(self.place, forward(batch), batch, share=1.0)
        self.follow(rllib.ongoing_episodes(self.place.env_runner)[0].id_)
        self._batch = batch
        out: dict[str, Any] = dict(self.twin.forward_inference(batch))
        if Columns.ACTIONS not in out:
            own = self.place.module.get_inference_action_dist_cls()
            inputs = out.pop(Columns.ACTION_DIST_INPUTS)
            out[Columns.ACTIONS] = own.from_logits(inputs).to_deterministic().sample()
        return with_random(self.place, out, batch, share=self.epsilon) if self.discrete else out

    def follow(self, episode: Any) -> None:
        """Draw new noise with a new episode of the first environment; put the same noise on new weights."""
        version = rllib.weights_seq_no(self.place.env_runner)
        if episode != self._episode or not self.noise:
            if self._batch is not None and self.noise:
                self.adapt(self.distance(self._batch))
            self._episode = episode
            self.noise = [self._draw(clean) for clean, _, free in self.pairs if free]
            self._apply()
        elif version != self._version:
            self._apply()
        self._version = version

    def _draw(self, like: torch.Tensor) -> torch.Tensor:
        values = self.place.rng.normal(size=tuple(like.shape))
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)

    def _apply(self) -> None:
        noise = iter(self.noise)
        for clean, noisy, free in self.pairs:
            noisy.data.copy_(clean.data + self.stddev * next(noise) if free else clean.data)
        for clean, twin in zip(self.place.module.buffers(), self.twin.buffers(), strict=True):
            twin.data.copy_(clean.data)  # means and variances that normalise, which move with the weights

    def adapt(self, distance: float) -> None:
        """Move stddev towards the target distance."""
        self.last_distance = distance
        self.stddev *= self.FACTOR if distance < self.target else 1.0 / self.FACTOR

    def distance(self, batch: Batch) -> float:
        """Return how far the noisy policy is from the clean one on a batch."""
        modules = (self.place.module, self.twin)
        if self.discrete and hasattr(self.place.module, "compute_q_values"):
            clean, noisy = (torch.log_softmax(q_values(module, batch)[1], dim=-1) for module in modules)
            apart = torch.where(clean.isneginf(), 0.0, clean.exp() * (clean - noisy))  # -inf: not allowed
            return float(apart.sum(-1).mean())
        make = self.place.module.get_inference_action_dist_cls().from_logits
        policies = [make(m.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]) for m in modules]
        if self.discrete:
            return float(policies[0].kl(policies[1]).mean())
        modes = [policy.to_deterministic().sample() for policy in policies]
        return float(((modes[0] - modes[1]) ** 2).mean().sqrt())

    def report(self) -> dict[str, float]:
        return {"stddev": self.stddev, "distance": self.last_distance}

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "stddev": self.stddev}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.stddev = state["stddev"]


def default_distance(space: gym.Space) -> float:
    """The KL divergence of ε-greedy with ε = 0.1 from greedy (appendix C.1 of the paper), 0.1 for a Box."""
    if isinstance(space, gym.spaces.Discrete):
        return -math.log(1.0 - 0.1 + 0.1 / int(space.n))
    return 0.1
