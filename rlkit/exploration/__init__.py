"""Exploration by name, with RLlib's old names and parameters, for RLlib's new API stack.

    from rlkit.exploration import configure
    config = DQNConfig().environment("CartPole-v1")
    configure(config, {"type": "EpsilonGreedy", "final_epsilon": 0.02, "epsilon_timesteps": 10_000})

`configure` changes an unfrozen AlgorithmConfig and raises ValueError for a combination that cannot work.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlkit.errors import did_you_mean

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.exploration.base import Exploration

# type -> the class behind it; each module is imported when its type is first used
TYPES: dict[str, str] = {
    "CountBased": "rlkit.exploration.intrinsic:CountBased",
    "Curiosity": "rlkit.exploration.intrinsic:Curiosity",
    "EpsilonGreedy": "rlkit.exploration.epsilon_greedy:EpsilonGreedy",
    "GaussianNoise": "rlkit.exploration.continuous:GaussianNoise",
    "OrnsteinUhlenbeckNoise": "rlkit.exploration.continuous:OrnsteinUhlenbeckNoise",
    "ParameterNoise": "rlkit.exploration.parameter_noise:ParameterNoise",
    "PerWorkerEpsilonGreedy": "rlkit.exploration.epsilon_greedy:PerWorkerEpsilonGreedy",
    "RND": "rlkit.exploration.intrinsic:RND",
    "Random": "rlkit.exploration.discrete:Random",
    "SoftQ": "rlkit.exploration.discrete:SoftQ",
    "StochasticSampling": "rlkit.exploration.discrete:StochasticSampling",
    "UpperConfidenceBound": "rlkit.exploration.discrete:UpperConfidenceBound",
}


def create(exploration: Mapping[str, Any]) -> Exploration:
    """Return the Exploration that `{type: …, **options}` describes.

    Raises:
        ValueError: no or an unknown `type`, an unknown option, or a value the class rejects.
    """
    options = dict(exploration)
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(
            f"unknown exploration type {kind!r}{did_you_mean(kind, TYPES)}; "
            f"expected one of {', '.join(sorted(TYPES))}"
        )
    module, _, name = TYPES[kind].partition(":")
    cls = getattr(importlib.import_module(module), name)
    known = [p for p in inspect.signature(cls).parameters if p != "self"]
    for option in options:
        if option not in known:
            raise ValueError(
                f"exploration {kind}: unknown option {option!r}{did_you_mean(option, known)}; "
                f"expected {', '.join(known)}"
            )
    made: Exploration = cls(**options)
    return made


def configure(config: AlgorithmConfig, exploration: Mapping[str, Any]) -> None:
    """Make `config` explore as `{type: …, **options}` says.

    Raises:
        ValueError: see `create`; or the algorithm or action space cannot explore this way.
    """
    create(exploration).configure(config)


def __getattr__(name: str) -> Any:
    if name in TYPES:
        module, _, attribute = TYPES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["TYPES", "configure", "create", *TYPES]
