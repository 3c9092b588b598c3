"""What recipes must know of DRON."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from rlkit.algos.options import Options, Positive
from rlkit.algos.rules import Fault, Rules, Settings, candidates
from rlkit.envs.rules import opponent_types, rules_of

# name -> what it is; the order is that of the feature vector (`rlkit.algos.opponents.history`)
FEATURES: dict[str, str] = {
    "moves": "decayed move statistics, one set with and one without the ball (2 x 4)",
    "last_moves": "the last two moves: had the ball, and the 4 statistics of each (2 x 5)",
    "last_action": "the last action, one-hot (A)",
    "lost": "how often the ball was lost / 10",
    "clock": "moves played / clock_horizon, at most 1",
    "frequencies": "share of each action so far (A)",
}
PAPER_FEATURES = ("moves", "last_moves", "last_action", "lost", "clock")
NEED_EVENTS = ("moves", "last_moves", "lost")


class DRONOptions(Options):
    """Options of `DRONConfig.training` that have a range."""

    hidden: Positive = 50
    experts: Positive = 3
    clock_horizon: Positive = 100
    history: int = Field(default=0, ge=0)
    encoder_size: Positive = 32
    supervise_weight: float = Field(default=1 / 64, ge=0)
    opponent_types: Positive = 2


def check_dron(settings: Settings) -> Iterator[Fault]:
    """Check that the environment tells of its opponents what the features and the labels need."""
    yield from _check_features(settings)
    yield from _check_types(settings)


def _check_features(settings: Settings) -> Iterator[Fault]:
    """Some features need events, which of this package's games only soccer tells."""
    rules = rules_of(settings.env)
    if rules is None or rules.events:
        return
    for features in candidates(settings.get("training", "features")):
        lacking = [name for name in features if name in NEED_EVENTS]
        if lacking:
            place = ("config", "training", "features") if settings.given("training", "features") else ("env",)
            message = f"the features {', '.join(lacking)} need events that {settings.env} does not tell"
            rest = ", ".join(name for name in FEATURES if name not in NEED_EVENTS)
            yield place, message, f"write config.training.features: [{rest}]"
            return


def _check_types(settings: Settings) -> Iterator[Fault]:
    """Types need an environment that labels them, and as many classes as it has types."""
    if "type" not in candidates(settings.get("training", "supervise")):
        return
    types = opponent_types(settings.env, settings.env_config)
    if types == 0:
        lacking = f"{settings.env} labels no types of opponents (infos['opponent_type'])"
        yield (
            ("config", "training", "supervise"),
            lacking,
            "use supervise: action, or an environment that does",
        )
    elif types is not None and any(n < types for n in settings.numbers("training", "opponent_types")):
        got = settings.get("training", "opponent_types")
        place = "opponent_types" if settings.given("training", "opponent_types") else "supervise"
        message = f"opponent_types is {got}, {settings.env} has {types} types of opponents here"
        yield ("config", "training", place), message, f"write opponent_types: {types}"


# what the features, the networks and their labels are; `supervise_weight` is read with each module's loss
OF_ALL = (
    "network", "hidden", "experts", "gate_inputs", "opponents", "features", "clock_horizon", "history", "encoder_size",
    "supervise", "opponent_types", "opponent_actions", "shuffle_features", "normalize_state",
)  # fmt: skip
DRON = Rules(options=DRONOptions, check=check_dron, of_all=OF_ALL)
