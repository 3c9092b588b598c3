"""Exact evaluation inside a training, in place of RLlib's: `evaluation(custom_evaluation_function=…)`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.rllib.core import (
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rlkit.curriculum.evaluation_env import prepared
from rlkit.errors import UsageError
from rlkit.play.answers import BLOCK
from rlkit.play.connectors import policy_of
from rlkit.play.rollout import Pool, Row, play
from rlkit.rllib import env_creator_of

if TYPE_CHECKING:
    from rlkit.recipe import Recipe

# Far from the seeds of recipes and of `rlkit evaluate`: what chooses a checkpoint does not also judge it.
FIRST_SEED = 1_000_000


def during_training(
    recipe: Recipe | None = None,
    *,
    episodes: int = 20,
    seed: int = FIRST_SEED,
    num_envs: int | None = None,
) -> TrainingEvaluation:
    """Return a function for `config.evaluation(custom_evaluation_function=…)` of any RLlib Algorithm.

    Every evaluation plays the same greedy episodes, with the seeds `seed … seed + episodes - 1`, in the
    algorithm's own process. Set `evaluation_interval`, and `evaluation_num_env_runners=0`.

    Args:
        recipe: names the environment; None takes it from the algorithm's evaluation config.
        episodes: complete episodes per evaluation.
        seed: of the first one.
        num_envs: environments stepped as one batch; 32, or as many as there are episodes.
    """
    environment = None if recipe is None else (recipe.env, dict(recipe.env_config))
    limit_s = None if recipe is None else recipe.env_timeout_s
    return TrainingEvaluation(environment, episodes, seed, num_envs or BLOCK, limit_s)


class TrainingEvaluation:
    """See `during_training`. Environments and connectors are kept from one evaluation to the next."""

    limit_s: float | None = None

    def __init__(
        self,
        environment: tuple[str, dict[str, Any]] | None,
        episodes: int,
        seed: int,
        slots: int,
        limit_s: float | None,
    ):
        self.environment = environment
        self.limit_s = limit_s
        self.episodes = episodes
        self.seed = seed
        self.slots = slots
        self._pool: Pool | None = None
        self._connectors: tuple[Any, Any] | None = None
        self.rows: list[Row] = []  # of the latest evaluation

    def __call__(self, algorithm: Any, eval_env_runner_group: Any) -> tuple[dict[str, Any], int, int]:
        """Evaluate the current weights; return RLlib's result dict, environment steps and agent steps."""
        if self._pool is None:
            config = algorithm.evaluation_config
            self._pool = Pool(lambda render: prepared(algorithm, functools.partial(self._make, config)))
        module = self._module(algorithm, eval_env_runner_group)
        modules = module if isinstance(module, MultiRLModule) else {DEFAULT_MODULE_ID: module}
        policy = policy_of(modules, *self._pipelines(algorithm))
        seeds = range(self.seed, self.seed + self.episodes)
        with _evaluating(modules):
            self.rows = play(policy, self._pool, seeds, slots=self.slots)
        logger = summary(self.rows)
        results = logger.peek()
        # `Algorithm.evaluate` returns what its logger holds, not what this function returns (2.60).
        algorithm.metrics.aggregate([logger.reduce()], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
        steps = sum(row.length for row in self.rows)
        agents = max(1, len({name for row in self.rows for name in row.agents}))
        return {ENV_RUNNER_RESULTS: results}, steps, steps * agents

    def _module(self, algorithm: Any, group: Any) -> Any:
        """Return the module with the current weights: `Algorithm.evaluate` has just synced this runner."""
        runner = group.local_env_runner if group is not None else None
        runner = runner or algorithm.env_runner
        if runner is None:
            raise UsageError("evaluation needs a local env runner: set create_local_env_runner=True")
        return _components(runner)[COMPONENT_RL_MODULE]

    def _pipelines(self, algorithm: Any) -> tuple[Any, Any]:
        """Return copies of the training connectors in their current state.

        Those of a local evaluation runner never get it: `sync_env_runner_states` returns early without remote
        runners (env_runner_group.py, 2.60), so a MeanStdFilter there knows nothing of the training.
        """
        if algorithm.env_runner is not None:
            found = _components(algorithm.env_runner)
            live = found[COMPONENT_ENV_TO_MODULE_CONNECTOR], found[COMPONENT_MODULE_TO_ENV_CONNECTOR]
        else:
            live = algorithm.env_to_module_connector, algorithm.module_to_env_connector
        if self._connectors is None:
            self._connectors = copy.deepcopy(live[0]), copy.deepcopy(live[1])
        for own, source in zip(self._connectors, live, strict=True):
            own.set_state(copy.deepcopy(source.get_state()))
        return self._connectors

    def _make(self, config: Any, task: Mapping[str, Any]) -> Any:
        """Make the environment; a curriculum's task may override its arguments."""
        arguments = {**config.env_config, **task}
        if self.environment is not None:
            from rlkit.envs.make import make_env

            return make_env(self.environment[0], {**self.environment[1], **task}, limit_s=self.limit_s)
        return env_creator_of(config)(arguments)

    def __getstate__(self) -> dict[str, Any]:
        """The config travels to other processes and into checkpoints; environments and connectors do not."""
        return {**self.__dict__, "_pool": None, "_connectors": None, "rows": []}


def summary(rows: list[Row]) -> MetricsLogger:
    """Return a logger that holds rows as an RLlib env runner's holds its episodes, under the same names.

    Statistics of the same kinds, because a restored algorithm may go on with RLlib's own evaluation, and its logger
    refuses to merge a mean into a single value (`MetricsLogger.aggregate`, 2.60).
    """
    logger = MetricsLogger()
    for row in rows:
        for name, value in (("return", row.ret), ("len", row.length)):
            logger.log_value(f"episode_{name}_mean", value, window=len(rows))
            logger.log_value(f"episode_{name}_min", value, reduce="min", window=len(rows))
            logger.log_value(f"episode_{name}_max", value, reduce="max", window=len(rows))
        for agent, value in row.agents.items():
            logger.log_value(("agent_episode_returns_mean", agent), value, window=len(rows))
    logger.log_value("num_episodes", len(rows), reduce="sum")
    logger.log_value("num_env_steps_sampled", sum(row.length for row in rows), reduce="sum")
    return logger


def _components(runner: Any) -> dict[str, Any]:
    return dict(runner.get_checkpointable_components())


@contextmanager
def _evaluating(modules: Any) -> Iterator[None]:
    """Put modules into evaluation mode once; `forward_inference` would do it and undo it at every call."""
    training = [module for module in modules.values() if getattr(module, "training", False)]
    for module in training:
        module.eval()
    try:
        yield
    finally:
        for module in training:
            module.train()
