"""The short way on arrays: what rlkit's env runners share, and when RLlib's own loop is needed instead.

A runner looks once per environment whether the short way is possible, and says why if it is not: connectors, modules,
spaces or hooks of callbacks need episodes. Whole episodes and random actions are asked for in single calls; those go
RLlib's way without a word. A module says itself that it needs episodes with a true attribute `needs_episodes` (a policy
that is drawn anew in every episode).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME

from rlkit import rllib
from rlkit.algos.sampling.connectors import ACTING, OBSERVING, PerEpisode, array_connector, extras
from rlkit.errors import UsageError
from rlkit.roster import module_space

logger = logging.getLogger(__name__)

UNKNOWN = "not looked at yet"
SPACES = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
PLAIN_ACTIONS = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete)


class ShortWay(rllib.RunnerInside):
    """Mixin for env runners, before RLlib's class.

    Attributes:
        why_episodes: why RLlib's loop samples; None where the short way does.
    """

    why_episodes: str | None = UNKNOWN

    def short_way(self) -> str | None:
        """Return why the short way is impossible, None if it is possible."""
        raise NotImplementedError

    def sample_short(self, num_timesteps: int, explore: bool, force_reset: bool) -> list[Any]:
        """Sample at least `num_timesteps` env steps."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what the short way knows of the environments; they start anew."""
        raise NotImplementedError

    def collect(self, *, num_timesteps: int | None = None, random_actions: bool = False, **asked: Any) -> Any:
        if self.why_episodes == UNKNOWN:
            self.why_episodes = self.short_way()
            if self.why_episodes is not None and not self.config.in_evaluation:
                logger.warning(
                    "sampling on arrays is not possible here, RLlib's loop samples episodes: %s",
                    self.why_episodes,
                )
        if num_timesteps is None or random_actions or self.why_episodes is not None:
            self.forget()
            return super().collect(num_timesteps=num_timesteps, random_actions=random_actions, **asked)
        return self.sample_short(num_timesteps, asked["explore"], asked.get("force_reset", False))

    def try_env(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the environments; after a failure that may be repaired build them anew and return None.

        As `EnvRunner._try_env_step`, which raises a RuntimeError without a message (2.60).
        """
        try:
            return call(*args)
        except UsageError:
            raise
        except Exception:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            if not self.config.restart_failed_sub_environments:
                raise
            logger.exception("an environment failed; all environments of this runner are built anew")
            self.make_env()
            return None


# Who needs episodes ------------------------------------------------------------------------------------------


def one_agent_needs_episodes(env_runner: Any) -> str | None:
    """Return why a single-agent runner has to sample RLlib's episodes, or None."""
    config, module, env = env_runner.config, env_runner.module, env_runner.env
    observing, choosing = env_runner.pipelines
    if module is None:
        return "there is no module"
    if config.batch_mode != "truncate_episodes":
        return f"batch_mode is {config.batch_mode!r}"
    if not config.episodes_to_numpy:
        return "episodes_to_numpy is off"
    if env.metadata.get("autoreset_mode") != gym.vector.AutoresetMode.NEXT_STEP:
        return f"the environment resets itself in mode {env.metadata.get('autoreset_mode')}"
    if getattr(module, "needs_episodes", False):
        return f"the module ({type(module).__name__}) follows episodes"
    beside = extras(observing, OBSERVING, multi_agent=False)
    after = extras(choosing, ACTING, multi_agent=False)
    if beside is None or after is None:
        return "a default connector is missing"
    if after:
        return f"the connectors {_names(after)} change actions"
    if beside != observing.connectors[: len(beside)]:
        return f"the connectors {_names(beside)} stand between RLlib's own"
    without = [piece for piece in beside if array_connector(piece, env_runner.num_envs) is None]
    if without:
        return f"the connectors {_names(without)} read episodes"
    for hook in hooks(env_runner, "on_episode_step"):
        return f"{owner(hook)}.on_episode_step looks at every step"
    for what, space in (
        ("observations", env.single_observation_space),
        ("actions", env.single_action_space),
    ):
        odd = [part for part in _leaves(space) if not isinstance(part, SPACES)]
        if odd:
            return f"the {what} are {odd[0]}"
    return None


def team_needs_episodes(env_runner: Any) -> str | None:
    """Return why a multi-agent runner has to sample RLlib's episodes, or None.

    A module says so itself with a true attribute `needs_episodes` (a policy that is drawn anew in every episode).
    """
    config, module = env_runner.config, env_runner.module
    if config.batch_mode != "truncate_episodes":
        return f"batch_mode is {config.batch_mode!r}"
    for module_id in module.keys():  # noqa: SIM118 - no dict
        part = module[module_id].unwrapped()
        if part.is_stateful():
            return f"module {module_id!r} is recurrent"
        if getattr(part, "needs_episodes", False):
            return f"module {module_id!r} ({type(part).__name__}) follows episodes"
    for pipeline, expected in zip(env_runner.pipelines, (OBSERVING, ACTING), strict=True):
        beside = extras(pipeline, expected, multi_agent=True)
        if beside is None:
            return "a default connector is missing"
        extra = [type(piece).__name__ for piece in beside if not isinstance(piece, PerEpisode)]
        if extra:
            return f"the connectors {', '.join(extra)} read episodes"
    for hook in hooks(env_runner, "on_episode_step"):
        return f"{owner(hook)}.on_episode_step looks at every step"
    reader = reads(env_runner, "on_sample_end", "samples")
    if reader:
        return f"{reader} reads the sampled episodes"
    for agent, space in env_runner.roster.action_spaces.items():
        # Joint rows hold the environment's shape, which the module acts in only where neither is reshaped.
        if not isinstance(space, PLAIN_ACTIONS) or module_space(space).shape != space.shape:
            return f"the actions of agent {agent!r} are {space}"
    return None


def _names(pieces: list[Any]) -> str:
    return ", ".join(type(piece).__name__ for piece in pieces)


def _leaves(space: Any) -> list[gym.Space]:
    parts = getattr(space, "spaces", None)
    if parts is None:
        return [space]
    return [leaf for part in (parts.values() if isinstance(parts, dict) else parts) for leaf in _leaves(part)]


# Hooks of callbacks ------------------------------------------------------------------------------------------


def hooks(env_runner: Any, name: str) -> Iterator[Callable[..., Any]]:
    """Yield what the config's callbacks do in hook `name`: overridden methods and given functions."""
    for callback in rllib.runner_callbacks(env_runner):
        if getattr(type(callback), name) is not getattr(RLlibCallback, name):
            yield getattr(callback, name)
    given = getattr(env_runner.config, f"callbacks_{name}")
    yield from given if isinstance(given, list | tuple) else [given] if given else []


def named(env_runner: Any, name: str) -> bool:
    """Whether any callback does something in hook `name`."""
    return any(True for _ in hooks(env_runner, name))


def reads(env_runner: Any, name: str, argument: str) -> str | None:
    """Return the first hook `name` that reads an argument: RLlib passes all by keyword, and a hook names its own."""
    for hook in hooks(env_runner, name):
        if argument in inspect.signature(hook).parameters:
            return f"{owner(hook)}.{name}"
    return None


def owner(hook: Callable[..., Any]) -> str:
    """Return what messages call the place of a hook."""
    found = getattr(hook, "__self__", None)
    return type(found).__name__ if found is not None else getattr(hook, "__qualname__", repr(hook))
