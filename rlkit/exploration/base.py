"""What every exploration class shares: options checked once, and `configure` for an AlgorithmConfig.

Nothing here imports ray or torch, so that a recipe's options can be checked without them; what runs in env
runners is an `Explorer` in rlkit.exploration.runner and its neighbours.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlkit import registry
from rlkit.errors import did_you_mean
from rlkit.exploration.schedule import Schedule, anneal

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.exploration.runner import Explorer, Place


def create(exploration: Mapping[str, Any]) -> Exploration:
    """Return the Exploration that `{type: …, **options}` describes.

    Raises:
        ValueError: no or an unknown `type`, an unknown option, or a value the class rejects.
    """
    options, known = dict(exploration), registry.TABLES["explorations"]
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"unknown exploration type {kind!r}{did_you_mean(kind, known)}; expected one of {', '.join(known)}"
        )
    cls = registry.resolve("explorations", kind)
    takes = list(inspect.signature(cls).parameters)
    for option in options:
        if option not in takes:
            raise ValueError(
                f"exploration {kind}: unknown option {option!r}{did_you_mean(option, takes)}; "
                f"expected {', '.join(takes)}"
            )
    made: Exploration = cls(**options)
    return made


def configure(
    config: AlgorithmConfig, exploration: Mapping[str, Any], spaces: Mapping[Any, Any] | None = None
) -> None:
    """Make `config` explore as `{type: …, **options}` says.

    Args:
        spaces: the action space of each agent (None for a single one); read off the config's environment by default.

    Raises:
        ValueError: see `create`; or the algorithm or action space cannot explore this way.
    """
    create(exploration).configure(config, spaces)


class Exploration(ABC):
    """Options of one way to explore. `configure` puts it into an unfrozen AlgorithmConfig."""

    @abstractmethod
    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        """Change `config` so that its training runners explore this way; `spaces` as for `rlkit.exploration.configure`.

        Raises:
            ValueError: the algorithm or its action space cannot explore this way; says what would work.
        """

    def fail(self, message: str) -> ValueError:
        """Return the error for `message`, which names this exploration first."""
        return ValueError(f"{type(self).__name__}: {message}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items())
        return f"{type(self).__name__}({options})"


class ActionExploration(Exploration):
    """An exploration that changes how actions are chosen, by standing in front of the module's `forward_exploration`.

    Attributes:
        spaces: names of the gymnasium action spaces it can serve.
        on_policy: whether PPO, IMPALA and APPO can use it: they need the probability of the action taken.
        random_timesteps: environment steps of uniform actions at the beginning; None if all are.
    """

    spaces: tuple[str, ...] = ("Discrete", "MultiDiscrete", "Box")
    on_policy = True
    random_timesteps: int | None = 0

    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        from rlkit.exploration.runner import ExploringRunners, action_spaces
        from rlkit.rllib import add_callbacks

        self.check_algorithm(config)
        for agent, space in (spaces or action_spaces(config)).items():
            self.check_space(space, agent)
        add_callbacks(config, [ExploringRunners.bind(exploration=self)])

    def check_algorithm(self, config: AlgorithmConfig) -> None:
        """Raise ValueError if the algorithm cannot explore this way."""
        if not self.on_policy and not hasattr(config, "replay_buffer_config"):
            raise self.fail(
                f"{type(config).__name__} learns on-policy and needs the probability of every action taken, "
                "which this noise does not have; use DQN or SAC, or the algorithm's own sampling"
            )

    def check_space(self, space: Any, agent: Any = None) -> None:
        """Raise ValueError if actions of this space cannot be chosen this way."""
        whose = "the action space" if agent is None else f"the action space of agent {agent!r}"
        if type(space).__name__ not in self.spaces:
            raise self.fail(f"{whose} is {space}, expected {' or '.join(self.spaces)}")
        if self.random_timesteps != 0 and type(space).__name__ == "Box" and not space.is_bounded():
            without = "" if self.random_timesteps is None else "set random_timesteps: 0, or "
            raise self.fail(
                f"{whose} is {space}, expected one with finite bounds, to draw uniform actions from; "
                f"{without}bound the environment's action space"
            )

    @abstractmethod
    def explorer(self, place: Place) -> Explorer:
        """Return what chooses the actions of one module in one env runner."""


class Scaled:
    """Options of noise that fades.

    Its factor goes from `initial_scale` to `final_scale` within `scale_timesteps`, after `random_timesteps` of
    uniformly random actions.
    """

    def __init__(self, random_timesteps: int, initial_scale: float, final_scale: float, scale_timesteps: int):
        self.random_timesteps = at_least("random_timesteps", random_timesteps, 0)
        self.initial_scale = at_least("initial_scale", initial_scale, 0)
        self.final_scale = at_least("final_scale", final_scale, 0)
        self.scale_timesteps = at_least("scale_timesteps", scale_timesteps, 0)

    @property
    def scale(self) -> Schedule:
        """The factor by environment steps of all runners."""
        return anneal(self.initial_scale, self.final_scale, self.scale_timesteps, self.random_timesteps)


def probability(name: str, value: Any) -> float:
    """Return `value` as a float in [0, 1].

    Raises:
        ValueError: it is not a number there; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a probability between 0 and 1, got {value!r}")
    return float(value)


def at_least(name: str, value: Any, minimum: float) -> Any:
    """Return `value` if it is a finite number not below `minimum`.

    Raises:
        ValueError: it is not; the message names the option.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < minimum:
        raise ValueError(f"{name} must be a number of at least {minimum:g}, got {value!r}")
    return value


def above(name: str, value: Any, minimum: float = 0) -> Any:
    """Return `value` if it is a finite number above `minimum`; else ValueError, naming the option."""
    if at_least(name, value, minimum) == minimum:
        raise ValueError(f"{name} must be above {minimum:g}, got {value!r}")
    return value
