"""An env runner of one agent that keeps steps as arrays and makes episodes once per sample, or none at all.

RLlib's `SingleAgentEnvRunner` (2.60) appends every observation, action, reward and info of every environment to an
episode object, and passes each through two pipelines of connectors item by item. `ArrayEnvRunner` is the same runner
with the loop over whole arrays, for any algorithm: the episodes it returns are equal to RLlib's to the last bit
wherever those are right (tests/test_array_runner.py), and actions reach the environment as `actions.ActionMap` makes
them. With `config.array_fragments` true it returns one `ArrayFragment` instead, for learners that read columns.

The short way is possible behind RLlib's default connectors and, before those, connectors with a columnar twin
(`connectors`), for environments that reset themselves in the step after the last one. Hooks on the creation,
start and end of episodes are called as RLlib calls them, and see an episode that is filled when they look. Where
somebody needs more (`short_way` says what), it is RLlib's runner: nothing has to be configured.

Legend: N environments, T iterations of a sample.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER, RLMODULE_INFERENCE_TIMER

from rlkit import rllib
from rlkit.algos.sampling import acting, actions
from rlkit.algos.sampling.array_episodes import Chunk, EpisodeMaker, Iterations, chunks, fragment_of
from rlkit.algos.sampling.connectors import OBSERVING, ArrayConnector, array_connector, extras
from rlkit.algos.sampling.episode_runner import SingleEpisodeRunner
from rlkit.algos.sampling.short_way import UNKNOWN, ShortWay, named, one_agent_needs_episodes, reads


@dataclass
class _Now:
    """Where the environments are between two samples."""

    iterations: Iterations
    connectors: list[ArrayConnector]
    clocks: np.ndarray  # (N,) steps in the episode
    ended: np.ndarray  # (N,) bool: the next step is a reset
    returns: np.ndarray  # (N,)
    began: np.ndarray  # (N,) seconds
    state: Any = None  # nested tensors (N, ...) of a recurrent module
    first_state: Any = None
    starts: np.ndarray | None = None  # (N,) iteration in which the episode began, in this sample


class ArrayEnvRunner(ShortWay, SingleEpisodeRunner):
    """RLlib's single-agent runner, on arrays where that is possible."""

    _now: _Now | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        self._finished: list[tuple[int, float, float]] = []
        super().__init__(*args, **kwargs)

    def make_env(self) -> None:
        super().make_env()
        self._now, self.why_episodes = None, UNKNOWN

    def forget(self) -> None:
        if self._now is not None:  # RLlib's loop has no episodes to go on with
            self._now, self.needs_reset = None, True

    def short_way(self) -> str | None:
        return one_agent_needs_episodes(self)

    # The sample --------------------------------------------------------------------------------------------

    def sample_short(self, num_timesteps: int, explore: bool, force_reset: bool) -> list[Any]:
        with torch.no_grad():
            while True:
                if force_reset or self.needs_reset or self._now is None:
                    self._start()
                samples = self._play(num_timesteps, explore)
                if samples is not None:
                    return samples
                force_reset = True  # an environment failed and all were built anew

    def _start(self) -> None:
        """Start all environments anew, as `_reset_envs_and_episodes` does."""
        count = self.num_envs
        self.current = [None] * count
        self.earlier_chunks.clear()
        self.begin_shared_data()
        for row in range(count):
            self.begin_episode(row)
        reset = None
        while reset is None:
            begin = time.perf_counter()
            reset = self.try_env(self._reset)
        self.metrics.log_value(ENV_RESET_TIMER, time.perf_counter() - begin, reduce="ema")
        self.needs_reset = False
        beside = extras(self.pipelines[0], OBSERVING, multi_agent=False)
        twins = [array_connector(piece, count) for piece in beside or []]
        now = _Now(
            Iterations([], [], []), [twin for twin in twins if twin is not None],
            np.zeros(count, np.int64), np.zeros(count, bool), np.zeros(count), np.full(count, begin),
        )  # fmt: skip
        if self.module.is_stateful():
            now.first_state = acting.initial_state(self.module)
            now.state = acting.map_tensors(
                lambda s: s.to(self.torch_device).expand(count, *s.shape).clone(), now.first_state
            )
        self._now = now
        self._sees_start, self._sees_end = (
            named(self, name) for name in ("on_episode_start", "on_episode_end")
        )
        self._look(now, reset[0], list(reset[1]), np.ones(count, bool))
        for row in range(count):
            self._introduce(now, row)

    def _reset(self) -> Any:
        return self.env.reset(seed=self.start_seeds(anew=self.needs_reset), options=None)

    def _look(self, now: _Now, observations: Any, infos: list[Any], fresh: np.ndarray) -> None:
        """Note what the environments returned, as the module will see it."""
        for connector in now.connectors:
            observations, infos = connector(observations, infos, fresh, now.clocks)
        iterations = now.iterations
        iterations.obs.append(observations)
        iterations.infos.append(infos)
        if now.state is not None:
            if fresh.any():
                rows = torch.from_numpy(fresh).to(self.torch_device)
                now.state = acting.map_tensors(
                    lambda s, f: torch.where(rows.reshape(-1, *(1,) * (s.dim() - 1)), f.to(s.device), s),
                    now.state, now.first_state,
                )  # fmt: skip
            iterations.states.append(acting.arrays(now.state))

    def _play(self, num_timesteps: int, explore: bool) -> list[Any] | None:
        """Sample; return None if an environment failed and all were built anew."""
        now = self._now
        assert now is not None
        iterations = now.iterations = now.iterations.last(int(self.config.episode_lookback_horizon))
        began = now.clocks.copy()
        maker = EpisodeMaker(
            iterations, self.pipelines[0].observation_space,
            self.get_spaces()[DEFAULT_MODULE_ID][1], self.weights_number,
        )  # fmt: skip
        self._prepare(explore)
        finished: list[SingleAgentEpisode] = []
        ids = [[episode.id_] for episode in self.current]
        now.starts = np.full(self.num_envs, iterations.before)
        steps = over = 0
        acts = moves = 0.0
        while steps < num_timesteps:
            t0 = time.perf_counter()
            for_env = self._act(now, explore, steps)
            t1 = time.perf_counter()
            result = self.try_env(self.env.step, for_env)
            if result is None:
                return None
            acts, moves = acts + t1 - t0, moves + time.perf_counter() - t1
            observations, rewards, terminated, truncated, infos = result
            fresh = now.ended
            if fresh.any():
                terminated, truncated = terminated & ~fresh, truncated & ~fresh
                now.clocks = np.where(fresh, 0, now.clocks + 1)
            else:
                now.clocks = now.clocks + 1
            rewards = np.asarray(rewards, np.float64)
            iterations.rewards.append(rewards)
            iterations.terminated.append(terminated)
            iterations.truncated.append(truncated)
            iterations.fresh.append(fresh)
            now.returns += rewards
            now.ended = terminated | truncated
            self._look(now, observations, list(infos), fresh)
            steps += self.num_envs - int(fresh.sum())
            if fresh.any() or now.ended.any():
                for row in np.flatnonzero(fresh | now.ended).tolist():
                    if fresh[row]:
                        self._introduce(now, row)
                    else:
                        finished += self._finish(now, row, maker, began)
                        ids[row].append(self.current[row].id_)
                        over += 1
        count = len(iterations) - iterations.before
        self.metrics.log_value(RLMODULE_INFERENCE_TIMER, acts / count, reduce="ema")
        self.metrics.log_value(ENV_STEP_TIMER, moves / count, reduce="ema")
        self.count_sampled(steps, over)
        if self._wants_fragment():
            if self._sees_end:
                self._pause(now, maker, began)
            infos_too = bool(getattr(self.config, "array_fragment_infos", False))
            return [
                fragment_of(
                    iterations, clocks=began, infos=infos_too, weights=self.weights_number,
                    runner=self.worker_index or 0,
                )
            ]  # fmt: skip
        return self._episodes(now, maker, began, ids, finished)

    def _wants_fragment(self) -> bool:
        return bool(getattr(self.config, "array_fragments", False)) and not reads(
            self, "on_sample_end", "samples"
        )

    def _prepare(self, explore: bool) -> None:
        """Look up how the module is called; it may have been given an exploration."""
        if isinstance(self.module, torch.nn.Module) and self.module.training:
            self.module.eval()
        self._call = rllib.forward(self.module, acting.EXPLORE if explore else acting.INFER)
        self._choose = acting.Chooser(self.module, explore)
        config = self.config
        self._map = actions.ActionMap(
            self.env.single_action_space, config.normalize_actions, config.clip_actions
        )

    def _act(self, now: _Now, explore: bool, steps: int) -> Any:
        """Choose the actions of all environments, note them, and return them as the environments want them.

        Epsilon and other schedules see RLlib's count of env steps.
        """
        iterations = now.iterations
        batch = {Columns.OBS: acting.tensors(iterations.obs[-1], self.torch_device)}
        if now.state is not None:
            batch = {Columns.OBS: acting.with_time(batch[Columns.OBS]), Columns.STATE_IN: now.state}
        if explore:
            runners = self.config.num_env_runners or 1
            out = self._call(batch, t=(self.num_env_steps_sampled_lifetime // runners + steps) * runners)
        else:
            out = self._call(batch)
        choice = self._choose(out, logp=True)
        outputs = {name: value for name, value in out.items() if name != Columns.ACTIONS}
        if choice.logp is not None:
            outputs[Columns.ACTION_LOGP] = choice.logp
        chosen = choice.actions
        if now.state is not None:
            now.state = outputs.pop(Columns.STATE_OUT)
            chosen, outputs = acting.map_tensors(lambda x: x.squeeze(1), (chosen, outputs))
            outputs[Columns.STATE_OUT] = now.state
        chosen = acting.arrays(chosen)
        iterations.actions.append(chosen)
        for name, value in outputs.items():
            iterations.outputs.setdefault(name, []).append(acting.arrays(value))
        return self._map(chosen)

    # Episodes ----------------------------------------------------------------------------------------------

    def _introduce(self, now: _Now, row: int) -> None:
        """A new episode has its first observation."""
        now.returns[row], now.began[row] = 0.0, time.perf_counter()
        if now.starts is not None:
            now.starts[row] = len(now.iterations)
        if self._sees_start:
            iterations = now.iterations
            self.current[row].add_env_reset(
                observation=acting.row(iterations.obs[-1], row), infos=iterations.infos[-1][row]
            )
            self.call_hook("on_episode_start", row)

    def _finish(
        self, now: _Now, row: int, maker: EpisodeMaker, began: np.ndarray
    ) -> list[SingleAgentEpisode]:
        """End an episode: its metrics, the hooks; then the next one is created."""
        seconds = time.perf_counter() - now.began[row]
        self._finished.append((int(now.clocks[row]), float(now.returns[row]), seconds))
        made = []
        if self._sees_end:
            episode = self.current[row]
            chunk = self._chunk(now, row, began)
            started = int(now.clocks[row]) - (chunk.stop - chunk.start)
            rllib.refill(episode, maker.lists(chunk, episode.id_, started), seconds)
            self.call_hook("on_episode_end", row)
            self.earlier_chunks.pop(episode.id_, None)
            made = [episode.to_numpy()]
        self.begin_episode(row)
        return made

    def _chunk(self, now: _Now, row: int, began: np.ndarray) -> Chunk:
        """Return where the episode that an environment is in lies in this sample."""
        assert now.starts is not None
        start, stop = int(now.starts[row]), len(now.iterations)
        old = start == now.iterations.before and now.clocks[row] > stop - start
        return Chunk(row, start, stop, min(now.iterations.before, int(began[row])) if old else 0)

    def _pause(self, now: _Now, maker: EpisodeMaker, began: np.ndarray) -> list[SingleAgentEpisode]:
        """The sample is over, the episodes go on: return their chunks, which `on_episode_end` will see."""
        going = []
        for chunk in chunks(now.iterations, began):
            row = chunk.row
            if now.ended[row] or chunk.stop < len(now.iterations):
                continue
            episode = self.current[row]
            started = int(now.clocks[row]) - (chunk.stop - chunk.start)
            rllib.refill(episode, maker.arrays(chunk, episode.id_, started), 0.0)
            following = SingleAgentEpisode(
                episode.id_, observation_space=episode.observation_space, action_space=episode.action_space
            )
            rllib.share_custom_data(episode, following)
            self.earlier_chunks[episode.id_].append(episode)
            self.current[row] = following
            going.append(episode)
        return going

    def _episodes(
        self,
        now: _Now,
        maker: EpisodeMaker,
        began: np.ndarray,
        ids: list[list[str]],
        finished: list[SingleAgentEpisode],
    ) -> list[SingleAgentEpisode]:
        """Return the finished episodes and then those that go on."""
        if self._sees_end:
            return finished + self._pause(now, maker, began)
        going: list[SingleAgentEpisode] = []
        numbers = [0] * self.num_envs
        for chunk in chunks(now.iterations, began):
            row, last = chunk.row, chunk.stop - 1
            over = bool(now.iterations.terminated[last][row] or now.iterations.truncated[last][row])
            id_ = ids[row][numbers[row]]
            numbers[row] += over
            first = chunk.start == now.iterations.before
            episode = maker.arrays(chunk, id_, int(began[row]) if first else 0)
            (finished if over else going).append(episode)
        return finished + going

    def get_metrics(self) -> Any:
        self.log_episodes(self._finished)
        self._finished.clear()
        return super().get_metrics()
