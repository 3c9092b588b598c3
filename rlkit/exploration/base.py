"""What every exploration class shares: options checked once, and `configure` for an AlgorithmConfig."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


class Exploration(ABC):
    """Options of one way to explore. `configure` puts it into an unfrozen AlgorithmConfig."""

    @abstractmethod
    def configure(self, config: AlgorithmConfig) -> None:
        """Change `config` so that its training runners explore this way.

        Raises:
            ValueError: the algorithm or its action space cannot explore this way; says what would work.
        """

    def fail(self, message: str) -> ValueError:
        """Return the error for `message`, which names this exploration first."""
        return ValueError(f"exploration {type(self).__name__}: {message}")

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({options})"


def probability(name: str, value: Any) -> float:
    """Return `value` as a float in [0, 1].

    Raises:
        ValueError: it is not a number there; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a probability between 0 and 1, got {value!r}")
    return float(value)


def at_least(name: str, value: Any, minimum: float) -> float:
    """Return `value` if it is a finite number not below `minimum`.

    Raises:
        ValueError: it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value < float("inf"):
        raise ValueError(f"{name} must be a number of at least {minimum:g}, got {value!r}")
    return value
