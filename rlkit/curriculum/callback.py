"""The curriculum as an RLlib callback: on the driver it decides, on every env runner it hands out the tasks.

    config.callbacks([CurriculumCallback.bind(
        task={"via": "attribute"},
        lessons=[
            {"name": "short", "task": {"length": 0.2}, "until": {"measure": "return", "threshold": 300}},
            {"name": "long", "task": {"length": 1.5}},
        ],
    )])

Works with every algorithm of the new API stack (checked against ray 2.60.0). `on_episode_created` runs before the
reset of that very sub-environment; a finished episode travels to the driver in the runner's metrics; decisions are
made in `on_train_result` and pushed ahead of the next `sample` (an actor takes its calls in order).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tree

from rlkit import rllib, seeds
from rlkit.callbacks.base import Bound, Callback, State
from rlkit.curriculum.base import TASK, Curriculum, EpisodeReport, Outcome
from rlkit.curriculum.driver import Decider, Evaluations, Push
from rlkit.curriculum.route import Owners, Route
from rlkit.curriculum.samplers import Task
from rlkit.curriculum.success import SuccessRule, team_return
from rlkit.curriculum.transfer import forget
from rlkit.errors import EnvError

logger = logging.getLogger(__name__)

REPORTS = "curriculum_reports"
PATIENCE_S = 60.0
TAG = "curriculum"
# Key in `episode.custom_data` of the mark that joins learner and runner.
KEY = "curriculum_key"


@dataclass(slots=True)
class _Playing:
    """The task one sub-environment is in."""

    life: int
    stage: int
    order: tuple[int, int, int, int]
    task: Task
    name: str | None = None  # of an evaluation task


class CurriculumCallback(Callback):
    """Gives every episode its task, and moves on when the agents have learnt it.

    Keyword options are those of the recipe's section `curriculum` (docs/curriculum.md); a `Curriculum` of one's own
    goes in as `curriculum=`.

    Raises:
        ValueError: options that `rlkit.curriculum.validate` reports.
    """

    def __init__(self, *, curriculum: Curriculum | None = None, **options: Any):
        from rlkit.curriculum.make import make

        made = make(options, curriculum)
        if not made.carry["weights"]:
            raise ValueError(
                "carry.weights: false builds the algorithm anew; use rlkit.curriculum.train_phases"
            )
        if any(getattr(lesson, "config", None) for lesson in getattr(made.curriculum, "lessons", ())):
            raise ValueError(
                "a lesson's `config` builds the algorithm anew; use rlkit.curriculum.train_phases"
            )
        self.curriculum = made.curriculum
        self.route: Route = made.route
        self.success: SuccessRule = made.success
        self.evaluations: Evaluations = made.evaluations
        self.options = made
        # On the driver:
        self.decider: Decider | None = None
        self._scores: Any = None
        self._evaluated = False
        self.evaluation_returns: dict[str, list[float]] = {}  # by task, of the latest evaluation of each
        # On the runners:
        self._push: Push | None = None
        self._evaluating = False
        self._playing: dict[int, _Playing] = {}
        self._rngs: dict[int, np.random.Generator] = {}
        self._episodes: dict[int, int] = {}
        self._reports: list[EpisodeReport] = []
        self._owners: Owners = {}
        self._first: dict[int, dict[str, Any]] = {}  # sub-environment -> see `with_first_values`

    @classmethod
    def bind(cls, **options: Any) -> Bound:
        """Return what `config.callbacks([...])` takes. A wrong option is a ValueError here, before the run."""
        cls(**options)
        return Bound(cls, options)

    # on the driver

    def on_algorithm_init(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Check the tasks on a scratch environment, and send the first push."""
        from rlkit.curriculum.try_tasks import try_tasks

        if self.options.check:
            try_tasks(algorithm.config, self.curriculum, self.route)
        seed = self.options.seed if self.options.seed is not None else algorithm.config.seed
        self.decider = Decider(self.curriculum, seed, self.options.total_steps)
        if "score" in self.curriculum.needs:
            from rlkit.curriculum.scores import Scores

            self._scores = Scores(algorithm, KEY, getattr(self.curriculum, "score", "value_loss"))
        self.curriculum.on_algorithm(algorithm)
        self._send(algorithm.env_runner_group, self.decider.push(), wait=True)

    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        """Decide, and put the outcome into `result["curriculum"]`."""
        assert self.decider is not None
        _take(result.get("evaluation"), REPORTS)
        reports = _take(result, REPORTS)
        if self._scores is not None:
            self._scores.fill(algorithm, reports)
        stage = self.curriculum.stage
        summary = self.decider.end_iteration(reports, result, self._evaluated)
        if self.curriculum.stage != stage:
            carry = self.options.carry
            forget(algorithm, optimizer=not carry["optimizer"], replay=not carry["replay"])
        self.curriculum.on_algorithm(algorithm)
        if self._evaluated and self.evaluation_returns:
            summary["eval"] = {name: sum(v) / len(v) for name, v in self.evaluation_returns.items()}
        self._evaluated = False
        result["curriculum"] = summary
        self._send(algorithm.env_runner_group, self.decider.push(), wait=self.curriculum.stage != stage)

    def on_evaluate_start(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Give the evaluation runners the present state. Without any, the training runner evaluates."""
        assert self.decider is not None
        self.evaluation_returns.clear()
        push = self.decider.push()
        if algorithm.eval_env_runner_group is not None:
            self._send(algorithm.eval_env_runner_group, push, evaluating=True, wait=True)
        elif algorithm.env_runner is not None:
            _receive(algorithm.env_runner, push, evaluating=True)

    def on_evaluate_end(self, *, algorithm: Any, evaluation_metrics: dict[str, Any], **kwargs: Any) -> None:
        """Take the evaluation's returns, by task where `each` task was played."""
        assert self.decider is not None
        self._evaluated = True
        for report in _take({"env_runners": evaluation_metrics.get("env_runners")}, REPORTS):
            if report.name is not None:
                own = self.curriculum.evaluated_return(report.outcome, report.task)
                self.evaluation_returns.setdefault(report.name, []).append(own)
        if algorithm.eval_env_runner_group is None and algorithm.env_runner is not None:
            _receive(algorithm.env_runner, self.decider.push(), evaluating=False)

    def on_env_runners_recreated(
        self, *, env_runner_group: Any, env_runner_indices: list[int], is_evaluation: bool, **kwargs: Any
    ) -> None:
        """RLlib gives a recreated runner weights and connectors; its callbacks start from nothing."""
        assert self.decider is not None
        push = self.decider.reborn()
        self._send(env_runner_group, push, evaluating=is_evaluation, only=env_runner_indices, wait=True)

    def get_state(self) -> State:
        assert self.decider is not None
        return self.decider.get_state()

    def set_state(self, state: State) -> None:
        """Take up a checkpoint, and tell the runners, which RLlib has just built or left as they were."""
        assert self.decider is not None
        self.decider.set_state(state)
        self.curriculum.on_algorithm(self._algorithm)
        self._send(self._algorithm.env_runner_group, self.decider.push(), wait=True)

    def _send(
        self,
        group: Any,
        push: Push,
        *,
        evaluating: bool = False,
        only: list[int] | None = None,
        wait: bool = False,
    ) -> None:
        """Hand a push to the runners of a group.

        Args:
            only: remote runners, by index; None for all, the local one included.
            wait: until they have it (a minute at most). Otherwise RLlib drops the call to a runner that has not
                answered the one before (2.60), which the push of the next iteration makes good.
        """
        if group is None:
            return
        receive = functools.partial(_receive, push=push, evaluating=evaluating)
        if only is None and group.local_env_runner is not None:
            receive(group.local_env_runner)
        if group.num_remote_env_runners() == 0:
            return
        if wait:
            group.foreach_env_runner(
                receive, local_env_runner=False, remote_worker_ids=only, timeout_seconds=PATIENCE_S
            )
        else:
            group.foreach_env_runner_async_fetch_ready(receive, tag=TAG, remote_worker_ids=only)

    # on the runners

    def receive(self, push: Push, evaluating: bool) -> None:
        """Take up the driver's state. Episodes under way keep their task."""
        self.curriculum.state = push.state
        self._push = push
        self._evaluating = evaluating
        self._rngs.clear()

    def on_episode_created(
        self, *, episode: Any, env_runner: Any, env: Any, env_index: int, **kwargs: Any
    ) -> None:
        """Draw the task of the episode that is about to be reset, and give it to its sub-environment."""
        playing = self._draw(env_runner, env_index)
        self._playing[env_index] = playing
        episode.custom_data[TASK] = playing.task
        episode.custom_data[KEY] = (playing.life, *playing.order)
        self._apply(env_runner, env, env_index, playing)
        if self.route.via == "constructor" and hasattr(episode, "agent_episodes"):
            rllib.refresh_spaces(episode, env.envs[env_index])

    def on_environment_created(self, *, env_runner: Any, env: Any, **kwargs: Any) -> None:
        """A failed environment was rebuilt in the middle of a reset: its episodes already have their tasks."""
        for env_index, playing in self._playing.items():
            self._apply(env_runner, env, env_index, playing)

    def on_episode_end(
        self,
        *,
        episode: Any,
        env_runner: Any,
        env_index: int,
        prev_episode_chunks: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note how the episode went, its earlier chunks included."""
        playing = self._playing.get(env_index)
        if playing is None:
            return
        chunks = [*(prev_episode_chunks or ()), episode]
        outcome = Outcome(
            episode_return=team_return(chunks),
            length=sum(len(chunk) for chunk in chunks),
            success=self.success.of(chunks) if self.options.reports_success else None,
            returns=_module_returns(chunks) if "returns" in self.curriculum.needs else {},
        )
        self._reports.append(
            EpisodeReport(playing.life, playing.stage, playing.order, playing.task, outcome, playing.name)
        )

    def on_sample_end(self, *, metrics_logger: Any, **kwargs: Any) -> None:
        """Send the finished episodes to the driver, among the runner's metrics."""
        if self._reports:
            metrics_logger.log_value(REPORTS, self._reports, reduce="item_series")
            self._reports = []

    def _draw(self, env_runner: Any, env_index: int) -> _Playing:
        push = self._push
        worker = env_runner.worker_index or 0
        number = self._episodes[env_index] = self._episodes.get(env_index, -1) + 1
        order = (worker, push.births if push else 0, env_index, number)
        rng = self._rngs.get(env_index)
        if rng is None:
            seed, *push_key = (push.seed, push.life, push.births, push.number) if push else (0, 0, 0, 0)
            purpose = "evaluation curriculum" if self._evaluating else "curriculum"
            tasks = seeds.stream(seed, purpose, *push_key, worker, env_index)
            rng = self._rngs[env_index] = np.random.default_rng(tasks)
        if self._evaluating:
            turn = (worker - 1 if worker else 0) * env_runner.num_envs + env_index
            turn += number * env_runner.num_envs * max(1, env_runner.num_workers or 0)
            name, task = self.evaluations.task(self.curriculum, turn, rng)
            return _Playing(-1, -1, order, task, name)
        return _Playing(push.life if push else -1, self.curriculum.stage, order, self.curriculum.sample(rng))

    def _apply(self, env_runner: Any, env: Any, env_index: int, playing: _Playing) -> None:
        task = self.curriculum.environment_task(playing.task)
        if not task and (playing.task or not self._first):
            return  # the task is not the environment's, or no task before it has changed anything
        try:
            make = functools.partial(_make_env, env_runner)
            first = self._first.setdefault(env_index, {})
            self.route.apply_to(env, env_index, task, make, self._owners, first)
        except Exception as error:
            raise EnvError(
                f"curriculum: the environment rejects task {playing.task} "
                f"({self.curriculum.label(playing.task) or 'no name'}): {type(error).__name__}: {error}"
            ) from error


def _receive(env_runner: Any, push: Push, evaluating: bool) -> None:
    """Runs on an env runner: hand a push to its callback."""
    for callback in rllib.runner_callbacks(env_runner):
        if isinstance(callback, CurriculumCallback):
            callback.receive(push, evaluating)


def _make_env(env_runner: Any, task: Mapping[str, Any]) -> Any:
    from ray.rllib.env.env_context import EnvContext

    config = env_runner.config
    context = EnvContext({**config.env_config, **task}, worker_index=env_runner.worker_index or 0)
    return rllib.env_creator_of(config)(context)


def _take(result: Mapping[str, Any] | None, key: str) -> list[Any]:
    """Remove the reports from a result, whatever form an empty list took on its way."""
    runners = (result or {}).get("env_runners")
    if not isinstance(runners, dict):
        return []
    return [report for report in tree.flatten(runners.pop(key, [])) if isinstance(report, EpisodeReport)]


def _module_returns(chunks: list[Any]) -> dict[str, float]:
    returns: dict[str, float] = {}
    for chunk in chunks:
        for episode in getattr(chunk, "agent_episodes", {}).values():
            returns[episode.module_id] = returns.get(episode.module_id, 0.0) + float(episode.get_return())
    return returns
