"""An env runner that keeps steps as arrays and makes episodes once per fragment.

RLlib's `SingleAgentEnvRunner` (2.60) appends every observation, action, reward and info of every environment
to an episode object, and passes each through two pipelines of connectors item by item: 85 us per step with 64
games of soccer and opponent features, of which the games, the features and the network need 8.
`ArrayEnvRunner` is the same runner with the loop over whole arrays; the episodes it returns are equal to
RLlib's, to the last bit (tests/test_array_runner.py).

It takes the short way for DQN modules without a recurrent state, behind RLlib's default connectors and,
before those, at most `OpponentFeatures`; without callbacks on episodes or steps; and for fragments of a given
number of steps. In every other case it is RLlib's runner: nothing has to be configured.

Legend: N environments, T iterations of a fragment.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import DefaultDQNRLModule
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors import common, module_to_env
from ray.rllib.core.columns import Columns
from ray.rllib.env import single_agent_env_runner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import RLMODULE_INFERENCE_TIMER, WEIGHTS_SEQ_NO

from rlkit.algos.opponents.features import OpponentFeatures
from rlkit.algos.opponents.inputs import LearnerInputs

OBSERVING = [
    common.AddObservationsFromEpisodesToBatch,
    common.AddTimeDimToBatchAndZeroPad,
    common.AddStatesFromEpisodesToBatch,
    common.BatchIndividualItems,
    common.NumpyToTensor,
]
ACTING = [
    module_to_env.GetActions,
    module_to_env.TensorToNumpy,
    module_to_env.UnBatchToIndividualItems,
    module_to_env.RemoveSingleTsTimeRankFromBatch,
    module_to_env.NormalizeAndClipActions,  # leaves Discrete actions as they are
    module_to_env.ListifyDataForVectorEnv,
]
EPISODE_HOOKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


@dataclass
class _Running:
    """Where the environments are between two fragments."""

    observations: np.ndarray
    columns: Any  # what the module sees: one array, or a dict of them
    infos: list[Any]
    features: LearnerInputs | None
    ids: list[str]
    clocks: np.ndarray  # (N,) steps in the episode
    ended: np.ndarray  # (N,) bool: the next step is a reset
    types: list[Any] = field(default_factory=list)


@dataclass
class _Fragment:
    """T iterations; lists of arrays (N, ...). `columns` and `infos` have one entry more than the others."""

    columns: list[Any]
    infos: list[list[Any]]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    terminated: list[np.ndarray] = field(default_factory=list)
    truncated: list[np.ndarray] = field(default_factory=list)
    fresh: list[np.ndarray] = field(default_factory=list)


class ArrayEnvRunner(SingleAgentEnvRunner):
    """RLlib's single-agent runner, on arrays where that is possible."""

    _running: _Running | None = None
    _short_way: bool | None = None

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        if self._short_way is None:
            self._short_way = self._can_use_arrays()
        if num_timesteps is None or random_actions or not self._short_way:
            if self._running is not None:  # RLlib's loop has no episodes to go on with
                self._running, self._needs_initial_reset = None, True
            return super()._sample(
                num_timesteps=num_timesteps, num_episodes=num_episodes, explore=explore,
                random_actions=random_actions, force_reset=force_reset,
            )  # fmt: skip
        return self._sample_arrays(num_timesteps, explore, force_reset)

    def make_env(self) -> None:
        super().make_env()
        self._running = self._short_way = None

    def _can_use_arrays(self) -> bool:
        config, observed = self.config, [type(c) for c in self._env_to_module.connectors]
        acting = self._module_to_env.connectors
        return (
            isinstance(self.module, DefaultDQNRLModule)
            and not self.module.is_stateful()
            and isinstance(self.env.single_action_space, gym.spaces.Discrete)
            and self.env.single_action_space.start == 0
            and isinstance(self.env.single_observation_space, gym.spaces.Box)
            and observed in (OBSERVING, [OpponentFeatures, *OBSERVING])
            and [type(c) for c in acting] == ACTING
            and self.env.metadata.get("autoreset_mode") == gym.vector.AutoresetMode.NEXT_STEP
            and config.batch_mode == "truncate_episodes"
            and config.episodes_to_numpy
            and not any(getattr(config, f"callbacks_{hook}") for hook in EPISODE_HOOKS)
            and not any(
                getattr(type(c), hook) is not getattr(RLlibCallback, hook)
                for c, hook in itertools.product(self._callbacks, EPISODE_HOOKS)
            )
        )

    def _start(self) -> _Running:
        observations, infos = self._try_env_reset(
            seed=self._seed if self._needs_initial_reset else None, options=None
        )
        self._needs_initial_reset = False
        self._ongoing_episodes_for_metrics.clear()
        count = self.num_envs
        connector = self._env_to_module.connectors[0]
        features = connector.alone.anew() if isinstance(connector, OpponentFeatures) else None
        running = _Running(
            observations, None, list(infos), features, [_new_id() for _ in range(count)], np.zeros(count, np.int64),
            np.zeros(count, bool), [None] * count,
        )  # fmt: skip
        if features is not None:
            features.history.reset(np.arange(count))
        self._look(running, np.arange(count))
        return running

    def _look(self, running: _Running, rows: np.ndarray) -> None:
        """Turn the environments' observations into what the module sees; note the opponents' types."""
        features = running.features
        if features is None:
            running.columns = running.observations
            return
        running.columns = features.columns(rows, running.observations)
        if features.label_types:
            running.types = [
                features.type_in(info, int(t)) for info, t in zip(running.infos, running.clocks, strict=True)
            ]

    def _sample_arrays(
        self, num_timesteps: int, explore: bool, force_reset: bool
    ) -> list[SingleAgentEpisode]:
        if force_reset or self._needs_initial_reset or self._running is None:
            self._running = self._start()
        running = self._running
        rows = np.arange(self.num_envs)
        began = running.clocks.copy()
        ids = list(running.ids)
        fragment = _Fragment([running.columns], [running.infos])
        steps = 0
        while steps < num_timesteps:
            actions = self._act(running.columns, explore, steps)
            results = self._try_env_step(actions)
            if results == single_agent_env_runner.ENV_STEP_FAILURE:
                self._running, self._needs_initial_reset = None, True
                return self._sample_arrays(num_timesteps, explore, force_reset=True)
            observations, rewards, terminated, truncated, infos = results
            fresh = running.ended
            running.observations, running.infos = observations, list(infos)
            running.clocks = np.where(fresh, 0, running.clocks + 1)
            self._follow(running, np.flatnonzero(fresh), np.flatnonzero(~fresh))
            self._look(running, rows)
            running.ended = (terminated | truncated) & ~fresh
            fragment.actions.append(actions)
            fragment.rewards.append(np.asarray(rewards, np.float64))
            fragment.terminated.append(terminated & ~fresh)
            fragment.truncated.append(truncated & ~fresh)
            fragment.fresh.append(fresh)
            fragment.columns.append(running.columns)
            fragment.infos.append(running.infos)
            steps += int((~fresh).sum())
        finished, going = self._episodes(fragment, running, ids, began)
        self._done_episodes_for_metrics.extend(finished)
        for episode in going:
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        self._increase_sampled_metrics(steps, len(finished))
        return finished + going

    def _act(self, columns: Any, explore: bool, steps: int) -> np.ndarray:
        """Return the module's actions, (N,); epsilon and other schedules see RLlib's count of env steps."""
        batch = {Columns.OBS: _tensors(columns, self._device)}
        with self.metrics.log_time(RLMODULE_INFERENCE_TIMER):
            if not explore:
                return self.module.forward_inference(batch)[Columns.ACTIONS].cpu().numpy()
            runners = self.config.num_env_runners or 1
            t = (self.num_env_steps_sampled_lifetime // runners + steps) * runners
            return self.module.forward_exploration(batch, t=t)[Columns.ACTIONS].cpu().numpy()

    def _follow(self, running: _Running, fresh: np.ndarray, stepped: np.ndarray) -> None:
        """Bring histories, labels and ids up to what the step just returned."""
        for row in fresh:
            running.ids[row] = _new_id()
        features = running.features
        if features is None:
            return
        features.history.reset(fresh)
        if not len(stepped):
            return
        infos = [running.infos[row] for row in stepped]
        times = running.clocks[stepped].tolist()
        taken = [features.told(info, t) for info, t in zip(infos, times, strict=True)]
        features.step(stepped, infos, taken, times)
        if features.labels:
            for row, info, actions in zip(stepped.tolist(), infos, taken, strict=True):
                running.infos[row] = features.labelled(info, actions, running.types[row])

    def _episodes(
        self, fragment: _Fragment, running: _Running, ids: list[str], began: np.ndarray
    ) -> tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]]:
        """Cut the fragment into one numpy episode per environment and game: the finished, and those going on."""
        columns = _by_environment(fragment.columns)
        actions, rewards, fresh = (
            np.stack(part, axis=1) for part in (fragment.actions, fragment.rewards, fragment.fresh)
        )
        terminated, truncated = (np.stack(part, axis=1) for part in (fragment.terminated, fragment.truncated))
        done = terminated | truncated
        length = fresh.shape[1]
        space = self._env_to_module.observation_space
        finished: list[SingleAgentEpisode] = []
        going: list[SingleAgentEpisode] = []
        for row in range(self.num_envs):
            # games: from the start or after each reset, to where it is done or the fragment ends
            starts = [0] if not fresh[row, 0] else []
            starts += (np.flatnonzero(fresh[row]) + 1).tolist()
            for number, start in enumerate(starts):
                ends = np.flatnonzero(done[row, start:])
                stop = start + int(ends[0]) + 1 if len(ends) else length
                if stop <= start:
                    continue  # reset in the last iteration: nothing played yet
                first = number == 0 and start == 0
                over = bool(done[row, stop - 1])
                goes_on = stop == length and not over
                episode = SingleAgentEpisode(
                    ids[row]
                    if first
                    else (running.ids[row] if goes_on or number == len(starts) - 1 else _new_id()),
                    observations=_cut(columns, row, start, stop + 1),
                    observation_space=space,
                    infos=[infos[row] for infos in fragment.infos[start : stop + 1]],
                    actions=actions[row, start:stop],
                    action_space=self.env.single_action_space,
                    rewards=rewards[row, start:stop],
                    terminated=bool(terminated[row, stop - 1]),
                    truncated=bool(truncated[row, stop - 1]),
                    extra_model_outputs={WEIGHTS_SEQ_NO: np.full(stop - start, self._weights_seq_no)},
                    t_started=int(began[row]) if first else 0,
                    len_lookback_buffer=0,
                )
                (finished if over else going).append(episode)
        return finished, going


def _new_id() -> str:
    return uuid.uuid4().hex


def _tensors(columns: Any, device: Any) -> Any:
    if isinstance(columns, dict):
        return {name: torch.from_numpy(part).to(device) for name, part in columns.items()}
    return torch.from_numpy(np.asarray(columns, np.float32)).to(device)


def _by_environment(columns: list[Any]) -> Any:
    """Stack T + 1 columns (N, ...) to (N, T + 1, ...)."""
    if isinstance(columns[0], dict):
        return {name: np.stack([part[name] for part in columns], axis=1) for name in columns[0]}
    return np.stack(columns, axis=1)


def _cut(columns: Any, row: int, start: int, stop: int) -> Any:
    if isinstance(columns, dict):
        return {name: part[row, start:stop] for name, part in columns.items()}
    return columns[row, start:stop]
