"""Exploration inside env runners: in front of `forward_exploration` of each module that is trained.

`explore=False` and evaluation call `forward_inference`, or have runners of their own; neither is touched. Schedules
follow the `t` that RLlib passes to `forward_exploration`: environment steps over all runners, saved with every
checkpoint. What an explorer keeps besides (random generators, counts, an adapted noise) is saved by the callback.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rlkit import rllib, seeds
from rlkit.callbacks.base import Callback
from rlkit.callbacks.switch import OffInEvaluation
from rlkit.models.masks import legal_of
from rlkit.roster import choices_of

rllib.squash_greedy_actions()
Batch = Mapping[str, Any]
Forward = Callable[..., dict[str, Any]]


@dataclass
class Place:
    """Where an explorer works."""

    env_runner: Any
    module_id: str
    module: Any
    rng: np.random.Generator

    @functools.cached_property
    def space(self) -> gym.Space:
        """The module's actions, before they are rescaled and clipped to the environment's bounds."""
        space = self.module.action_space
        normalized = self.env_runner.config.normalize_actions
        if isinstance(space, gym.spaces.Box) and normalized and space.is_bounded():
            return gym.spaces.Box(-1.0, 1.0, space.shape, space.dtype)
        return space

    @property
    def worker(self) -> tuple[int, int]:
        """(number of this runner, 0 for the local one; how many remote ones there are)."""
        return self.env_runner.worker_index or 0, self.env_runner.config.num_env_runners or 0

    @property
    def rows(self) -> list[Any]:
        """What each row of the module's batch belongs to: the episode's id, with several agents (id, agent)."""
        return rllib.batch_rows(self.env_runner, self.module_id)

    def allowed(self, batch: Batch) -> np.ndarray | None:
        """Which actions the batch's masks allow, (B, A) bool, choices side by side; None without masks."""
        found = legal_of(batch[Columns.OBS]) if choices_of(self.module.action_space) else None
        return None if found is None else found.reshape(-1, found.shape[-1]).cpu().numpy()

    def own_distribution(self, out: Mapping[str, Any]) -> Any:
        """The distribution the module would sample its action from."""
        return self.module.get_exploration_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])


class Explorer(ABC):
    """Chooses the actions of one module in one env runner."""

    def __init__(self, place: Place):
        self.place = place

    @abstractmethod
    def __call__(self, forward: Forward, batch: Batch, t: int) -> dict[str, Any]:
        """Return the outputs of `forward_exploration`, with `actions` chosen.

        Args:
            forward: the module's own `forward_exploration`.
            batch: its input, (B, …).
            t: environment steps over all runners.
        """

    def report(self) -> dict[str, float]:
        """Numbers to log once per sample, under `exploration/<module>/`."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """State beyond the step count."""
        return {"rng": self.place.rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Put it back. A runner that replaces a dead one gets another's state without `rng`."""
        if "rng" in state:
            self.place.rng.bit_generator.state = state["rng"]


class MakesExplorers(Protocol):
    """What `ExploringRunners` needs of an exploration's options; see `rlkit.exploration.base.ActionExploration`."""

    def explorer(self, place: Place) -> Explorer: ...

    def check_space(self, space: Any, agent: Any = None) -> None: ...


class ModuleStates(Callback):
    """Keeps, in every runner, an object with a state for each module; a restarted runner goes on with another's."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}
        self._pending: dict[str, Any] = {}  # states whose module has no object yet

    def keep(self, module_id: str, made: Any) -> None:
        """Take an object in, and give it the state that was saved for its module."""
        self.kept[module_id] = made
        if module_id in self._pending:
            made.set_state(self._pending.pop(module_id))

    def get_runner_state(self) -> dict[str, Any]:
        return {**self._pending, **{module_id: made.get_state() for module_id, made in self.kept.items()}}

    def set_runner_state(self, state: dict[str, Any]) -> None:
        self._pending = dict(state)
        for module_id, made in self.kept.items():
            self.keep(module_id, made)

    def borrowed(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what the other runner has learnt, without its random numbers."""
        return {module_id: {k: v for k, v in kept.items() if k != "rng"} for module_id, kept in state.items()}

    def on_env_runners_recreated(
        self, *, algorithm: Any, env_runner_indices: Sequence[int], is_evaluation: bool, **kwargs: Any
    ) -> None:
        """Driver: give restarted runners what another one has learnt, and random numbers of their own."""
        healthy = algorithm.env_runner_group.healthy_env_runner_ids()
        survivors = [number for number in healthy if number not in env_runner_indices]
        if is_evaluation or not survivors:
            return
        for state in self.call_runners("get_runner_state", indices=survivors[:1]):
            self.call_runners("set_runner_state", self.borrowed(state), indices=list(env_runner_indices))


class ExploringRunners(ModuleStates, OffInEvaluation):
    """Puts an explorer in front of every trained module of every training runner, and keeps their state."""

    def __init__(self, exploration: MakesExplorers):
        super().__init__()
        self.exploration = exploration
        self._module: Any = None

    def on_episode_created(self, *, env_runner: Any, **kwargs: Any) -> None:
        if env_runner.module is not self._module and env_runner.module is not None:
            self._install(env_runner)

    def _install(self, env_runner: Any) -> None:
        self._module = env_runner.module
        if env_runner.config.in_evaluation:
            return
        for module_id, module in trained_modules(env_runner).items():
            place = Place(
                env_runner, module_id, module, seeds.of_runner(env_runner, "exploration", module_id)
            )
            self.exploration.check_space(module.action_space)
            explorer = self.exploration.explorer(place)
            self.keep(module_id, explorer)
            module.forward_exploration = functools.partial(
                self._act, explorer, module.forward_exploration, module.forward_inference
            )

    def _act(self, explorer: Explorer, forward: Forward, greedy: Forward, batch: Batch, **kwargs: Any) -> Any:
        if not self._on:  # RLlib leaves exploration on
            return greedy(batch)
        with torch.no_grad():
            return explorer(functools.partial(forward, **kwargs), batch, int(kwargs.get("t") or 0))

    def on_sample_end(self, *, metrics_logger: Any, **kwargs: Any) -> None:
        for module_id, explorer in self.kept.items():
            for name, value in explorer.report().items():
                metrics_logger.log_value(("exploration", module_id, name), value, window=1)


def trained_modules(env_runner: Any) -> dict[str, Any]:
    """Return the modules of a runner that are trained, by id."""
    module = env_runner.module
    if not isinstance(module, MultiRLModule):
        return {DEFAULT_MODULE_ID: module}
    trained = env_runner.config.policies_to_train
    chosen = (
        (lambda mid: True)
        if trained is None
        else ((lambda mid: trained(mid, None)) if callable(trained) else (lambda mid: mid in trained))
    )
    return {mid: module[mid] for mid in module.keys() if chosen(mid)}  # noqa: SIM118 - no dict


def action_spaces(config: Any) -> dict[Any, gym.Space]:
    """Return the action space of each agent (None for a single one) of a config's environment.

    Makes the environment once if the config has no space yet; empty if the config has no environment either.
    """
    space = config.action_space
    if space is None:
        if config.env is None:
            return {}
        space = rllib.spaces_of_env(config)[1]
    if isinstance(space, gym.spaces.Dict) and config.is_multi_agent:
        return dict(space.spaces)
    return {None: space}


def uniform_actions(
    space: gym.Space, rows: int, rng: np.random.Generator, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Draw `rows` actions uniformly from a Discrete, MultiDiscrete or bounded Box space.

    Args:
        allowed: (rows, A) bool, of a Discrete or MultiDiscrete space: draw among these.
    """
    if allowed is not None:
        drawn = [(part * rng.random(part.shape)).argmax(1) for part in _choices(space, allowed)]
        return drawn[0] if isinstance(space, gym.spaces.Discrete) else np.stack(drawn, axis=1)
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=rows)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(np.zeros(space.shape, np.int64), space.nvec, size=(rows, *space.shape))
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        return rng.uniform(space.low, space.high, (rows, *space.shape)).astype(np.float32)
    raise ValueError(f"cannot draw uniformly from {space}; bound its Box")


def uniform_logp(space: gym.Space, rows: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Log density of `uniform_actions`, (rows,)."""
    if allowed is not None:
        counts = [part.sum(axis=1).clip(min=1) for part in _choices(space, allowed)]
        return -np.log(counts).sum(axis=0)
    if isinstance(space, gym.spaces.Discrete):
        value = -float(np.log(space.n))
    elif isinstance(space, gym.spaces.MultiDiscrete):
        value = -float(np.log(space.nvec).sum())
    else:
        value = -float(np.log(space.high - space.low).sum())
    return np.full(rows, value)


def _choices(space: gym.Space, allowed: np.ndarray) -> list[np.ndarray]:
    return np.split(allowed, np.cumsum(choices_of(space))[:-1], axis=1)


def tensor_like(values: np.ndarray | Sequence[Any], like: torch.Tensor) -> torch.Tensor:
    """Return `values` as a tensor with the dtype, device and shape of `like` (a time dimension of 1 is added)."""
    return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device).reshape(like.shape)
