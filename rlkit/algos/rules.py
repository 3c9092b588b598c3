"""What recipes must know of single algorithms, beside the algorithms: their own options, and values that clash.

A module of rules imports neither ray nor torch; `rules_of` imports it when a recipe uses the algorithm. The table of
RLlib's signatures gives every argument a type and a range; here stands only what that table cannot say.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

RECURRENT = ("lstm", "gru", "attention")  # registered models that keep a state
STATELESS = (None, "mlp", "cnn", "multi_input", "entities")  # None: RLlib's networks
SEQUENCE = 20  # max_seq_len where a recipe says nothing
Fault = tuple[tuple[str | int, ...], str, str]
"""Path in the recipe, what is wrong, and the fix: `(("config", "training", "lr"), "SAC refuses lr", "remove it")`."""


@dataclass(frozen=True)
class Settings:
    """A recipe as rules see it. Whatever is wrong by itself has been taken out.

    Attributes:
        algorithm, env: their names.
        line: names of the config class and its bases.
        config: method -> arguments that the recipe gives; a search space has `candidates()`.
        default: `(method, argument) -> value` of the algorithm.
        action: `"Discrete"` or `"Box"` where it is known without making the environment.
        single_agent: the environment is known to have one agent.
        model: the section `model`.
        env_config: the environment's arguments.
    """

    algorithm: str
    env: str
    line: Sequence[str]
    config: Mapping[str, Mapping[str, Any]]
    default: Callable[[str, str], Any]
    action: str | None = None
    single_agent: bool = False
    model: Mapping[str, Any] = field(default_factory=dict)
    env_config: Mapping[str, Any] = field(default_factory=dict)

    def given(self, method: str, argument: str) -> bool:
        return argument in self.config.get(method, {})

    def get(self, method: str, argument: str) -> Any:
        """Return the value the recipe gives, else the default."""
        return self.config.get(method, {}).get(argument, self.default(method, argument))

    def numbers(self, method: str, argument: str) -> list[float]:
        """Return the numbers an argument may be; empty for null, a word or a list."""
        return numbers(self.get(method, argument))

    def least(self, method: str, argument: str, otherwise: float = 0) -> float:
        return min(self.numbers(method, argument), default=otherwise)

    def batch(self) -> tuple[str, list[float]]:
        """Return the argument that sets the batch of one learner, and its candidates."""
        per_learner = self.numbers("training", "train_batch_size_per_learner")
        if per_learner:
            return "train_batch_size_per_learner", per_learner
        learners = max(1, int(self.least("learners", "num_learners")))
        return "train_batch_size", [size / learners for size in self.numbers("training", "train_batch_size")]


def candidates(value: Any) -> tuple[Any, ...]:
    """Return a value as a 1-tuple, or the candidates of a search space."""
    return tuple(value.candidates()) if hasattr(value, "candidates") else (value,)


def numbers(value: Any) -> list[float]:
    """Return the numbers among the candidates of a value."""
    return [x for x in candidates(value) if isinstance(x, int | float) and not isinstance(x, bool)]


def keeps_state(model: Mapping[str, Any]) -> bool:
    """Whether a section `model` is known to be recurrent; a user's own model may be, too."""
    return model.get("name") in RECURRENT or model.get("use_lstm") is True


@dataclass(frozen=True)
class Rules:
    """Of one config class.

    Attributes:
        options: model of arguments of `training`; its fields go before RLlib's annotations. A message of a validator
            may end in `; fix: what to write`.
        check: yields what is wrong with values that are each allowed.
        steps: the least env steps of one iteration.
        of_all: arguments of `training` that hold for all modules together.
    """

    options: type[BaseModel] | None = None
    check: Callable[[Settings], Iterator[Fault]] | None = None
    steps: Callable[[Settings], float] | None = None
    of_all: Collection[str] = ()


def refuse_overrides(overrides: Mapping[str, Mapping[str, Any]], of_all: Collection[str]) -> None:
    """Refuse overrides of single modules (`algorithm_config_overrides_per_module`) that nothing would read.

    Raises:
        ValueError: names the module and the argument.
    """
    for module, given in overrides.items():
        for name in given:
            if name in of_all:
                raise ValueError(
                    f"algorithm_config_overrides_per_module: got {name}: {given[name]!r} for module {module!r}, and "
                    f"{name} holds for all modules together; write training({name}=...), or leave it out"
                )


# config class, as in the generated table -> its rules
WHERE = {
    "rlkit.OffPolicyConfig": "rlkit.algos.offpolicy.rules:OFF_POLICY",
    "DQNConfig": "rlkit.algos.offpolicy.rules:DQN",
    "SACConfig": "rlkit.algos.offpolicy.rules:SAC",
    "TQCConfig": "rlkit.algos.offpolicy.rules:TQC",
    "rlkit.DRONConfig": "rlkit.algos.dron_rules:DRON",
    "rlkit.MADDPGConfig": "rlkit.algos.centralised.rules:MADDPG",
    "PPOConfig": "rlkit.algos.ppo_rules:PPO",
}


def rules_of(line: Sequence[str]) -> list[Rules]:
    """Return the rules of a config class and its bases, the class's own first."""
    found = []
    for name in line:
        if name in WHERE:
            module, _, attribute = WHERE[name].partition(":")
            found.append(getattr(importlib.import_module(module), attribute))
    return found
