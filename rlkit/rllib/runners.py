"""Env runners: what the outside asks of one, mixins for those of one's own, and the calls to remote ones."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.rllib.chunks import copy_of
from rlkit.rllib.seeding import RunnerSeeds


def runner_callbacks(env_runner: Any) -> list[Any]:
    """Return the callback instances of an EnvRunner, in the order of `config.callbacks` (2.60, no accessor)."""
    return env_runner._callbacks


def ongoing_episodes(env_runner: Any) -> list[Any]:
    """Return the episode each sub-environment of an EnvRunner is in, by its index (2.60, no accessor)."""
    return env_runner._ongoing_episodes


def batch_rows(env_runner: Any, module_id: str) -> list[Any]:
    """Return what each row of a module's batch belongs to: the episode id, with several agents (id, agent).

    Valid while the runner computes actions. The mapping of several agents is what `AgentToModuleMapping` left in
    the runner's shared data (2.60, connectors/common/agent_to_module_mapping.py).
    """
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    episodes = env_runner._ongoing_episodes
    if episodes and isinstance(episodes[0], MultiAgentEpisode):
        return list(env_runner._shared_data["memorized_map_structure"][module_id])
    return [episode.id_ for episode in episodes]


def sampled_env_steps(algorithm: Any) -> int:
    """Return the env steps of all runners so far, as the algorithm has counted them (2.60: its metrics logger)."""
    from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

    return int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


@dataclass(frozen=True)
class Raised:
    """An exception in a remote env runner, on its way to the driver."""

    message: str  # type and text
    traceback: str


def guard_runners(
    group: Any,
    *,
    on_raise: Callable[[int, Raised], Exception],
    on_death: Callable[[int, Exception, bool], None],
) -> None:
    """Hear of every call to a remote EnvRunner of an EnvRunnerGroup that ends with an exception or a death.

    `FaultAwareApply.apply` (2.60, utils/actor_manager.py) answers an exception by sleeping for
    `delay_between_env_runner_restarts_s` (60) and ending the process, so that a bug of an environment is a dead actor
    without a message, restarted up to 1,000 times. Here the call brings the exception back as a value.

    Args:
        on_raise: gets the runner's index and the exception; raises what ends the run, or returns the error to go on
            with. Then the runner is started anew: what it was doing is half done.
        on_death: gets the runner's index, Ray's error, and whether Ray will not start it again; may raise. It is called
            once for each death, not for the calls that find the runner still starting.
    """
    import ray
    from ray.exceptions import ActorDiedError, RayActorError
    from ray.rllib.utils.actor_manager import ResultOrError, _method_caller

    manager = group._worker_manager
    call, fetch = manager._call_actors, manager._fetch_result

    def guarded(func: Any) -> Any:
        return functools.partial(_guarded, _method_caller(func) if isinstance(func, str) else func)

    def call_actors(func: Any, **kwargs: Any) -> Any:
        return call(func=[guarded(f) for f in func] if isinstance(func, list) else guarded(func), **kwargs)

    def fetch_result(**kwargs: Any) -> Any:
        alive = {index for index in kwargs["remote_actor_ids"] if manager.is_actor_healthy(index)}
        ready, results = fetch(**kwargs)
        for answer in results.result_or_errors:
            value = answer.get()
            if isinstance(value, Raised):
                error = on_raise(answer.actor_id, value)
                answer.result_or_error = ResultOrError(error=error)
                manager.set_actor_state(answer.actor_id, healthy=False)
                ray.kill(manager.actors()[answer.actor_id], no_restart=False)
            elif not answer.ok and isinstance(value, RayActorError):
                gone = isinstance(value, ActorDiedError)
                if gone or answer.actor_id in alive:
                    alive.discard(answer.actor_id)
                    on_death(answer.actor_id, value, gone)
        return ready, results

    manager._call_actors, manager._fetch_result = call_actors, fetch_result


def _guarded(func: Callable[..., Any], env_runner: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return func(env_runner, *args, **kwargs)
    except Exception as error:
        shown = error.__cause__ if not str(error) and error.__cause__ is not None else error
        return Raised(f"{type(shown).__name__}: {shown}", traceback.format_exc())


class RunnerInside(RunnerSeeds):
    """Mixin for env runners, before RLlib's class: the private side that a loop of one's own needs.

    It serves `SingleAgentEnvRunner` and `MultiAgentEnvRunner`.
    2.60 has no public hook between `sample()`, which logs and calls `on_sample_end`, and the loop inside it.
    """

    metrics: Any
    module: Any
    make_env: Any

    def collect(self, **asked: Any) -> Any:
        """The loop of `sample()`: `num_timesteps` or `num_episodes`, `explore`, `random_actions`, `force_reset`."""
        return self.collect_episodes(**asked)

    def collect_episodes(self, **asked: Any) -> Any:
        """RLlib's own loop."""
        return super()._sample(**asked)  # type: ignore[misc]

    def _sample(self, **asked: Any) -> Any:
        return self.collect(**asked)

    @property
    def needs_reset(self) -> bool:
        """Whether the environments start anew, with the seed, in the next sample."""
        return bool(self._needs_initial_reset)

    @needs_reset.setter
    def needs_reset(self, value: bool) -> None:
        self._needs_initial_reset = value

    @property
    def torch_device(self) -> Any:
        """Where the module is."""
        return self._device  # type: ignore[attr-defined]

    @property
    def pipelines(self) -> tuple[Any, Any]:
        """The env-to-module and the module-to-env pipeline."""
        return self._env_to_module, self._module_to_env  # type: ignore[attr-defined]

    @property
    def weights_number(self) -> int:
        """The number of the weights the module has."""
        return int(self._weights_seq_no)  # type: ignore[attr-defined]

    @property
    def current(self) -> list[Any]:
        """The episode each environment is in."""
        return self._ongoing_episodes

    @current.setter
    def current(self, episodes: list[Any]) -> None:
        self._ongoing_episodes = episodes

    @property
    def earlier_chunks(self) -> Any:
        """Chunks of episodes that go on, by id: `prev_episode_chunks` of `on_episode_end`."""
        return self._ongoing_episodes_for_metrics  # type: ignore[attr-defined]

    def begin_episode(self, row: int) -> None:
        """Make the next episode of an environment and call `on_episode_created`."""
        self._new_episode(row, self._ongoing_episodes)  # type: ignore[attr-defined]

    def call_hook(self, name: str, row: int) -> None:
        """Call an episode hook for the episode of an environment."""
        self._make_on_episode_callback(name, row, self._ongoing_episodes)  # type: ignore[attr-defined]

    def begin_shared_data(self) -> None:
        """Empty what connectors share within a sample."""
        self._shared_data: dict[str, Any] = {}

    def map_rows(self, rows: dict[str, list[tuple[str, str]]]) -> None:
        """Tell which (episode id, agent) each row of each module's batch is: see `batch_rows`."""
        self._shared_data = {"memorized_map_structure": rows}

    def keep_chunks(self, samples: Sequence[Any]) -> None:
        """Give the metrics and `prev_episode_chunks` copies of the episodes just sampled.

        The runner keeps the objects that it returns, in `_done_episodes_for_metrics` and
        `_ongoing_episodes_for_metrics` (2.60). In one process with the learner or a replay buffer these go on changing:
        `AddOneTsToEpisodesAndTruncate` appends a step, `concat_episode` the next fragment, so that episodes of 7 steps
        were reported as 9.
        """
        copies = {id(episode): copy_of(episode) for episode in samples}
        done = self._done_episodes_for_metrics  # type: ignore[attr-defined]
        done[:] = [copies.get(id(episode), episode) for episode in done]
        chunks = self.earlier_chunks
        for episode in samples:
            if not episode.is_done and episode.id_ in chunks:
                chunks[episode.id_] = [copies.get(id(one), one) for one in chunks[episode.id_]]

    def take_done_episodes(self) -> list[Any]:
        """Take the episodes that ended from the metrics, with what was kept of their chunks."""
        done = list(self._done_episodes_for_metrics)  # type: ignore[attr-defined]
        self._done_episodes_for_metrics.clear()  # type: ignore[attr-defined]
        for episode in done:
            self.earlier_chunks.pop(episode.id_, None)
        return done

    def log_episodes(self, episodes: Sequence[Sequence[Any]]) -> None:
        """Log finished episodes, in their order, as `_log_episode_metrics` (2.60) logs one.

        That walks through three nested dicts and looks up every number's statistics anew in each episode: an eighth of
        the CPU of PPO on episodes of 25 steps. Here each name is looked up once. A mean is that of all episodes of an
        iteration (`EpisodeMean`), without a window: RLlib's is emptied after every sample.

        Args:
            episodes: of each its length, return and seconds; of several agents also {agent: return},
                {module: return} and {agent: steps}. With one agent the return is logged as its and its module's too.
        """
        from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
        from ray.rllib.utils import metrics as names

        means = (
            names.EPISODE_LEN_MEAN, names.EPISODE_RETURN_MEAN, names.EPISODE_DURATION_SEC_MEAN,
            names.EPISODE_AGENT_RETURN_MEAN, names.EPISODE_MODULE_RETURN_MEAN, names.EPISODE_AGENT_STEPS,
        )  # fmt: skip
        extremes = {
            "min": (names.EPISODE_LEN_MIN, names.EPISODE_RETURN_MIN),
            "max": (names.EPISODE_LEN_MAX, names.EPISODE_RETURN_MAX),
        }
        columns: dict[tuple[Any, ...], list[Any]] = {}
        for numbers in episodes:
            for name, value in zip(means, numbers, strict=False):
                parts = (
                    {(name, key): v for key, v in value.items()}
                    if isinstance(value, dict)
                    else {(name,): value}
                )
                for path, number in parts.items():
                    columns.setdefault(path, []).append(number)
            if len(numbers) == 3:  # the names of a single agent's runner have no plural
                for path in (
                    ("agent_episode_return_mean", DEFAULT_AGENT_ID),
                    ("module_episode_return_mean", DEFAULT_MODULE_ID),
                ):
                    columns.setdefault(path, []).append(numbers[1])
        for path in sorted(columns):
            log_episode_mean(self.metrics, path, columns[path])
        if episodes:
            window = self.config.metrics_num_episodes_for_smoothing
            for reduce, pair in extremes.items():
                for name, mean in zip(pair, means, strict=False):
                    extreme = {"min": min, "max": max}[reduce](columns[mean,])
                    self.metrics.log_value((name,), extreme, reduce=reduce, window=window)

    def count_sampled(self, steps: int, episodes: int) -> None:
        """Log the counts of one sample of a single agent."""
        self.count_env_steps(steps)
        self._increase_sampled_metrics(steps, episodes)  # type: ignore[attr-defined]

    def count_env_steps(self, steps: int) -> None:
        """Tell Ray's metrics how many env steps were sampled."""
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)  # type: ignore[attr-defined]


def log_episode_mean(metrics: Any, path: tuple[Any, ...], values: Sequence[Any]) -> None:
    """Log a number of each finished episode, for the mean of all of an iteration (2.60, `_get_key`)."""
    from rlkit.rllib.statistics import EpisodeMean, MeanStats

    metrics.log_value(path, values[0], reduce="mean")
    statistics = metrics._get_key(path)
    if type(statistics) is MeanStats:
        statistics.__class__ = EpisodeMean
    for value in values[1:]:
        statistics.push(value)


class EpisodesInside(RunnerInside):
    """Mixin before MultiAgentEnvRunner: which episodes it makes and which agent steps it counts (2.60, no hooks)."""

    def new_episode(self, env: Any) -> Any:
        """Return an empty episode for an environment."""
        raise NotImplementedError

    def stepped(self, episode: Any) -> Any:
        """Return the agents whose steps count in the last step of an episode."""
        raise NotImplementedError

    def _new_episode(self, env_index: int, episodes: list[Any] | None = None) -> None:
        episodes = self._ongoing_episodes if episodes is None else episodes
        episodes[env_index] = self.new_episode(self.env.envs[env_index].unwrapped)
        self._make_on_episode_callback("on_episode_created", env_index, episodes)  # type: ignore[attr-defined]

    def _increase_sampled_metrics(self, num_steps: int, next_obs: Any, episode: Any) -> int:
        """RLlib counts `next_obs`: also agents that join, and those that only see the end."""
        steps: int = super()._increase_sampled_metrics(num_steps, self.stepped(episode), episode)  # type: ignore[misc]
        return steps
