"""What runs in the env runners for noise, random actions, ε-greedy on any policy, softmax and UCB over Q-values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core.columns import Columns

from rlkit.exploration.counts import StateCounter
from rlkit.exploration.noise import GaussianProcess, OrnsteinUhlenbeckProcess
from rlkit.exploration.runner import (
    Batch,
    Explorer,
    Forward,
    Place,
    tensor_like,
    uniform_actions,
    uniform_logp,
)
from rlkit.exploration.schedule import Schedule


class AdditiveNoise(Explorer):
    """The policy's mode plus scaled noise, clipped to the space; uniform actions before `random_timesteps`."""

    def __init__(
        self,
        place: Place,
        process: GaussianProcess | OrnsteinUhlenbeckProcess,
        scale: Schedule,
        random_timesteps: int,
        factor: Any = 1.0,
    ):
        super().__init__(place)
        self.process, self.scale, self.random_timesteps, self.factor = (
            process,
            scale,
            random_timesteps,
            factor,
        )
        self._now = 0.0

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        out = forward(batch)
        actions = out.pop(Columns.ACTIONS, None)
        if Columns.ACTION_DIST_INPUTS in out:
            actions = self.place.own_distribution(out).to_deterministic().sample()
        if actions is None:
            raise KeyError(f"module {self.place.module_id!r} returned neither actions nor action_dist_inputs")
        rows, space = self.place.rows, self.place.space
        shape = tuple(space.shape or ())
        noise = self.process.sample(rows, shape)  # the process goes on while actions are random
        self._now = 0.0
        if t < self.random_timesteps:
            chosen = uniform_actions(space, len(rows), self.place.rng)
        else:
            self._now = self.scale(t)
            clean = actions.detach().cpu().numpy().reshape(len(rows), *shape)
            chosen = np.clip(clean + self._now * self.factor * noise, space.low, space.high)
        out[Columns.ACTIONS] = tensor_like(chosen, actions)
        return out

    def report(self) -> dict[str, float]:
        return {"noise_scale": self._now}


class RandomThenPolicy(Explorer):
    """Uniform actions until `timesteps` (for ever if None), then what the policy samples."""

    def __init__(self, place: Place, timesteps: int | None):
        super().__init__(place)
        self.timesteps = timesteps

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        out = forward(batch)
        if self.timesteps is not None and t >= self.timesteps:
            return out
        return with_random(self.place, out, batch, share=1.0)


class EpsilonGreedyPolicy(Explorer):
    """With probability ε a uniform action, else what the policy samples; its log-probability is that of the mix."""

    def __init__(self, place: Place, schedule: Schedule):
        super().__init__(place)
        self.schedule = schedule
        self._now = 0.0

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        self._now = self.schedule(t)
        return with_random(self.place, forward(batch), batch, share=self._now)

    def report(self) -> dict[str, float]:
        return {"epsilon": self._now}


class ConstantEpsilon(Explorer):
    """RLlib's own ε-greedy of a DQN module, held at one value in this runner."""

    def __init__(self, place: Place, epsilon: float):
        from ray.rllib.utils.schedules.scheduler import Scheduler

        super().__init__(place)
        self.epsilon = epsilon
        place.module.epsilon_schedule = Scheduler(fixed_value_or_schedule=epsilon, framework="torch")

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        return forward(batch)

    def report(self) -> dict[str, float]:
        return {"epsilon": self.epsilon}


class SoftmaxOverQ(Explorer):
    """Action a with probability ∝ exp(Q(s, a) / temperature)."""

    def __init__(self, place: Place, temperature: float):
        super().__init__(place)
        self.temperature = temperature

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        out, q = q_values(self.place.module, batch)
        gumbel = self.place.rng.gumbel(size=tuple(q.shape))
        scores = q.cpu().numpy().astype(np.float64) / self.temperature
        out[Columns.ACTIONS] = torch.as_tensor((scores + gumbel).argmax(-1), device=q.device)
        return out


class UpperConfidence(Explorer):
    """argmax Q(s, a) + c · sqrt(ln N(s) / n(s, a)); an action never tried in s comes first (UCB1)."""

    def __init__(self, place: Place, c: float, counter: StateCounter):
        super().__init__(place)
        self.c, self.counter = c, counter

    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        out, q = q_values(self.place.module, batch)
        values = q.cpu().numpy().astype(np.float64)
        flat = values.reshape(-1, values.shape[-1])
        states = self.counter.cells(batch[Columns.OBS], len(flat))
        tried = self.counter.counts_of(states, flat.shape[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            bonus = self.c * np.sqrt(np.log(np.maximum(tried.sum(1, keepdims=True), 1.0)) / tried)
        bonus[tried == 0] = np.inf
        bonus[np.isneginf(flat)] = 0.0  # not allowed
        scores = flat + bonus
        # ties, above all between actions never tried, are broken at random
        best = scores == scores.max(1, keepdims=True)
        actions = (best * self.place.rng.random(best.shape)).argmax(1)
        self.counter.add(states, actions, flat.shape[1])
        out[Columns.ACTIONS] = torch.as_tensor(actions.reshape(values.shape[:-1]), device=q.device)
        return out

    def report(self) -> dict[str, float]:
        return {"states_seen": float(len(self.counter))}

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "counts": self.counter.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.counter.set_state(state["counts"])


def q_values(module: Any, batch: Batch) -> tuple[dict[str, Any], torch.Tensor]:
    """Return the outputs to go on with (recurrent state) and Q (B, …, actions)."""
    values = module.compute_q_values(batch)
    out = {k: values[k] for k in (Columns.STATE_OUT,) if k in values}
    return out, values[QF_PREDS].detach()


def with_random(place: Place, out: dict[str, Any], batch: Batch, share: float) -> dict[str, Any]:
    """Replace a `share` of the rows' actions by uniform ones (among those allowed), with the mix's logp."""
    space, rng, allowed = place.space, place.rng, place.allowed(batch)
    if Columns.ACTION_DIST_INPUTS not in out:  # a Q-module that has chosen already
        actions = out[Columns.ACTIONS]
        drawn = uniform_actions(space, actions.shape[0], rng, allowed)
        return {**out, Columns.ACTIONS: _mixed(actions, drawn, share, rng)}
    distribution = place.own_distribution(out)
    actions = distribution.sample()
    rows = len(actions.reshape(-1, *(space.shape or ())))
    mixed = _mixed(actions, uniform_actions(space, rows, rng, allowed), share, rng)
    own = distribution.logp(mixed)
    log_uniform = torch.as_tensor(uniform_logp(space, rows, allowed), dtype=own.dtype, device=own.device)
    log_uniform = log_uniform.reshape(own.shape)
    if share >= 1.0:
        logp = log_uniform
    elif share <= 0.0:
        logp = own
    else:
        logp = torch.logaddexp(own + float(np.log1p(-share)), log_uniform + float(np.log(share)))
    return {**out, Columns.ACTIONS: mixed, Columns.ACTION_LOGP: logp}


def _mixed(actions: torch.Tensor, drawn: np.ndarray, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Take `drawn` (B, …) in a random `share` of the rows of `actions` (B, …), possibly with a time axis of 1."""
    take = torch.as_tensor(rng.random(len(drawn)) < share, device=actions.device)
    take = take.reshape(len(drawn), *([1] * (actions.dim() - 1)))
    return torch.where(take, tensor_like(drawn, actions), actions)
