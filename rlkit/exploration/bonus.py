"""Intrinsic rewards inside env runners: one batch per sample for each module, added to the learner's rewards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit import seeds
from rlkit.callbacks.episode_data import as_arrays, singles
from rlkit.callbacks.postprocess import TrajectoryPostprocessor
from rlkit.callbacks.trajectory import Aligned, Trajectory
from rlkit.exploration.counts import StateCounter
from rlkit.exploration.runner import ModuleStates, trained_modules
from rlkit.exploration.schedule import Schedule
from rlkit.roster import module_space

BonusState = dict[Any, Any]


class Bonus(ABC):
    """The bonus of transitions, and the model behind it, which learns from every batch it is shown."""

    @abstractmethod
    def __call__(self, observations: Any, actions: Any, next_observations: Any) -> np.ndarray:
        """Return the bonus of each of N transitions, (N,) float64, and learn from them."""

    @abstractmethod
    def get_state(self) -> BonusState: ...

    @abstractmethod
    def set_state(self, state: BonusState) -> None: ...

    @abstractmethod
    def send(self) -> BonusState:
        """Return what the other runners should learn from this one since it was last asked."""

    @abstractmethod
    def receive(self, own: BonusState, others: Sequence[BonusState]) -> None:
        """Take in what the others sent; `own` is what this one sent in the same round."""


class MakesBonuses(Protocol):
    """What `IntrinsicRewards` needs of an exploration's options; see `rlkit.exploration.intrinsic.IntrinsicReward`."""

    coefficient: float | Sequence[Sequence[float]]

    def bonus(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> Bonus: ...


class CountBonus(Bonus):
    """1 / sqrt(n) of the cell of the next observation; n counts this visit too."""

    def __init__(self, counter: StateCounter):
        self.counter = counter
        self._fresh: dict[bytes, float] = {}

    def __call__(self, observations: Any, actions: Any, next_observations: Any) -> np.ndarray:
        cells = self.counter.cells(next_observations)
        for cell in cells:
            self._fresh[cell] = self._fresh.get(cell, 0.0) + 1.0
        return 1.0 / np.sqrt(self.counter.visit(cells))

    def get_state(self) -> BonusState:
        return self.counter.get_state()

    def set_state(self, state: BonusState) -> None:
        self.counter.set_state(state)
        self._fresh.clear()

    def send(self) -> BonusState:
        fresh, self._fresh = self._fresh, {}
        return dict(fresh)

    def receive(self, own: BonusState, others: Sequence[BonusState]) -> None:
        for other in others:
            for cell, visits in other.items():
                counts = self.counter.table.setdefault(cell, np.zeros(1))
                counts[0] += visits


class IntrinsicRewards(ModuleStates, TrajectoryPostprocessor):
    """Adds coefficient · bonus to the rewards of every trained agent; keeps and shares the models."""

    def __init__(self, exploration: MakesBonuses):
        super().__init__()
        self.exploration = exploration
        self.coefficient = Schedule(exploration.coefficient)
        self._ready: dict[tuple[str, Any], np.ndarray] = {}

    def on_sample_end(
        self, *, env_runner: Any, metrics_logger: Any, samples: list[Any], **kwargs: Any
    ) -> None:
        if env_runner.config.in_evaluation or not (self._on and env_runner.config.explore):
            return
        coefficient = self.coefficient(env_runner.num_env_steps_sampled_lifetime)
        self._ready.clear()
        for module_id, pieces in _pieces_by_module(samples, env_runner).items():
            columns = [
                tree.map_structure(lambda *leaves: np.concatenate(leaves), *column)
                for column in zip(*(_transitions(single) for _, single in pieces), strict=True)
            ]
            agent = pieces[0][1].agent_id
            values = self._model(module_id, agent, env_runner, columns[0])(*columns)
            ends = np.cumsum([len(single) for _, single in pieces])
            for (key, _), bonus in zip(pieces, np.split(values, ends[:-1]), strict=True):
                self._ready[key] = coefficient * bonus
            metrics_logger.log_value(("exploration", module_id, "bonus"), float(values.mean()), window=1)
        super().on_sample_end(env_runner=env_runner, metrics_logger=metrics_logger, samples=samples, **kwargs)
        self._ready.clear()

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        bonus = self._ready.get((trajectory.id, trajectory.agent))
        if bonus is not None:
            trajectory.rewards = trajectory.rewards + bonus

    def _model(self, module_id: str, agent: Any, env_runner: Any, observations: Any) -> Bonus:
        if module_id not in self.kept:
            seed = seeds.number(env_runner.config.seed or 0, "bonus", module_id)
            space, action_space = _env_spaces(env_runner, agent)
            if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple) and isinstance(observations, np.ndarray):
                # RLlib's FlattenObservations put vectors into the episodes
                space = gym.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)
            self.keep(module_id, self.exploration.bonus(space, module_space(action_space), seed))
        model: Bonus = self.kept[module_id]
        return model

    # between runners

    def on_train_result(self, *, algorithm: Any, result: dict, **kwargs: Any) -> None:
        """Driver: runners learn from each other's steps."""
        if (algorithm.config.num_env_runners or 0) < 2:
            return
        numbers = algorithm.env_runner_group.healthy_env_runner_ids()
        sent = {n: self.call_runners("send", indices=[n]) for n in numbers}
        self.call_runners("receive", {n: models[0] for n, models in sent.items() if models}, indices=numbers)

    def send(self) -> dict[str, BonusState]:
        """Runner: see `Bonus.send`, by module."""
        return {module_id: model.send() for module_id, model in self.kept.items()}

    def receive(self, sent: Mapping[int, Mapping[str, BonusState]]) -> None:
        """Runner: take in what all runners sent, by their number."""
        own = self.env_runner.worker_index if self.env_runner is not None else 0
        for module_id, model in self.kept.items():
            others = [models[module_id] for n, models in sent.items() if n != own and module_id in models]
            model.receive(sent.get(own, {}).get(module_id, {}), others)


def _pieces_by_module(
    samples: Sequence[Any], env_runner: Any
) -> dict[str, list[tuple[tuple[str, Any], Any]]]:
    """Return {module: [((episode id, agent), the agent's piece), …]} of trained modules."""
    trained = set(trained_modules(env_runner))
    out: dict[str, list[tuple[tuple[str, Any], Any]]] = {}
    for episode in samples:
        for single in singles(episode):
            module_id = single.module_id or DEFAULT_MODULE_ID
            if len(single) and module_id in trained:
                out.setdefault(module_id, []).append(((episode.id_, single.agent_id), single))
    return out


def _transitions(single: Any) -> tuple[Any, Any, Any]:
    observations = as_arrays(single.observations)
    return (
        tree.map_structure(lambda o: o[:-1], observations),
        as_arrays(single.actions),
        tree.map_structure(lambda o: o[1:], observations),
    )


def _env_spaces(env_runner: Any, agent: Any) -> tuple[Any, Any]:
    """Return the environment's spaces (as they stand in episodes) of an agent, None for the only one."""
    observation, action = env_runner.env.single_observation_space, env_runner.env.single_action_space
    return (observation, action) if agent is None else (observation[agent], action[agent])
