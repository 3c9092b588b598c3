"""Repeated games of two players and two actions: payoffs, and strategies of the literature as automata.

A game is the learner's payoffs [[CC, CD], [DC, DD]], its own action first; 0 is C (cooperate, stag, swerve, heads), 1
is D (defect, hare, straight, tails). The opponent's payoff is the learner's with the players exchanged; in matching
pennies it is the negative.

Payoffs and strategies: Axelrod, The Evolution of Cooperation, 1984 (prisoner's dilemma 5, 3, 1, 0; tit for tat, tit for
two tats, grim, random); Nowak and Sigmund, Nature 364, 1993 (win-stay lose-shift); Nowak and Sigmund, Nature 355, 1992
(generous tit for tat); Rapoport and Guyer, 1966 (the ordinal games: stag hunt R > T >= P > S, chicken T > R > S > P).

Legend: K strategies, Z automaton states, a the learner's action, b the opponent's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlkit.envs.rules import EnvRules, Fault, listed
from rlkit.errors import did_you_mean

if TYPE_CHECKING:
    import numpy as np

C, D = 0, 1
GAMES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "prisoners_dilemma": ((3, 0), (5, 1)),
    "stag_hunt": ((4, 0), (3, 2)),
    "chicken": ((3, 1), (4, 0)),
    "coordination": ((1, 0), (0, 1)),
    "matching_pennies": ((1, -1), (-1, 1)),
}
ZERO_SUM = ("matching_pennies",)
OBSERVE = ("last_round", "responses")


@dataclass(frozen=True)
class Automaton:
    """A strategy, which starts in state 0.

    Attributes:
        defects: (Z,) the probability of D in each state.
        after: (Z, a, b) the next state.
    """

    defects: np.ndarray
    after: np.ndarray


def _automaton(defects: Sequence[float], after: Sequence[Any]) -> Automaton:
    """Build one; `after[z]` is the next state whatever b, by a, or by a and b."""
    import numpy as np

    states = np.zeros((len(defects), 2, 2), np.int64)
    for z, row in enumerate(after):
        rows = np.asarray(row)
        states[z] = rows[:, None] if rows.ndim == 1 else rows
    return Automaton(np.asarray(defects, float), states)


# name -> probability of D per state, next state by the learner's action (a)
TABLES: dict[str, tuple[list[float], list[list[int]]]] = {
    "always_cooperate": ([0], [[0, 0]]),
    "always_defect": ([1], [[0, 0]]),
    "random": ([0.5], [[0, 0]]),
    "tit_for_tat": ([0, 1], [[0, 1], [0, 1]]),
    "suspicious_tit_for_tat": ([1, 0], [[1, 0], [1, 0]]),
    "generous_tit_for_tat": ([0, 2 / 3], [[0, 1], [0, 1]]),
    "tit_for_two_tats": ([0, 0, 1], [[0, 1], [0, 2], [0, 2]]),
    "two_tits_for_tat": ([0, 1, 1], [[0, 1], [2, 1], [0, 1]]),
    "grim": ([0, 1], [[0, 1], [1, 1]]),
}
PAVLOV = "win_stay_lose_shift"
STRATEGIES = (*TABLES, PAVLOV)
POOLS: dict[str, tuple[str, ...]] = {
    "literature": tuple(name for name in STRATEGIES if name != "generous_tit_for_tat"),
    "reciprocal": ("tit_for_tat", "tit_for_two_tats", "two_tits_for_tat", "win_stay_lose_shift"),
    "mixed": ("tit_for_tat", "win_stay_lose_shift", "always_cooperate", "always_defect", "random"),
}


def strategy(name: str, game: str) -> Automaton:
    """Return a strategy in a game. Win-stay lose-shift repeats its action after a payoff above the game's mean."""
    if name != PAVLOV:
        return _automaton(*TABLES[name])
    import numpy as np

    mine = np.asarray(GAMES[game], float)
    its = -mine if game in ZERO_SUM else mine.T  # (a, b) what the opponent gets
    wins = its > its.mean()
    after = np.zeros((2, 2, 2), np.int64)  # the state is its next action; it has just played b
    after[:] = np.where(wins, [C, D], [D, C])
    return Automaton(np.array([0.0, 1.0]), after)


def pool_of(opponents: str | Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Return the strategies of a pool with their probabilities, which sum to 1.

    Args:
        opponents: a name of `POOLS` or `STRATEGIES`, a list (equally likely), {strategy: weight}, or None: `mixed`.

    Raises:
        ValueError: an unknown name, no opponent, or weights that are not positive numbers.
    """
    for path, message, fix in faults({"opponents": opponents}):
        raise ValueError(f"{'.'.join(map(str, path))}: {message}; fix: {fix}")
    weights = _weights(opponents)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _weights(opponents: Any) -> dict[Any, Any]:
    if opponents is None:
        opponents = "mixed"
    if isinstance(opponents, str):
        opponents = POOLS.get(opponents, (opponents,))
    return dict(opponents) if isinstance(opponents, Mapping) else dict.fromkeys(opponents, 1.0)


def faults(env_config: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with an `env_config` of `matrix_game`."""
    game = env_config.get("game", "prisoners_dilemma")
    if game not in GAMES:
        yield (
            ("game",),
            f"there is no game {game!r}{did_you_mean(game, GAMES)}",
            f"use one of {', '.join(GAMES)}",
        )
    opponents = env_config.get("opponents")
    if opponents is not None and (not isinstance(opponents, str | Sequence | Mapping) or not opponents):
        message = f"got {opponents!r}, expected at least one strategy"
        yield ("opponents",), message, f"use some of {', '.join(STRATEGIES)}"
        return
    if isinstance(opponents, list | tuple) and (wrong := list(listed(opponents))):
        yield from wrong
        return
    weights = _weights(opponents)
    known = [*POOLS, *STRATEGIES] if isinstance(opponents, str) else list(STRATEGIES)
    for name, weight in weights.items():
        if name not in STRATEGIES:
            message = f"there is no strategy {name!r}{did_you_mean(name, known)}"
            yield ("opponents",), message, f"use some of {', '.join(known)}"
        elif isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            yield ("opponents", name), f"got weight {weight!r}, expected a positive number", "write 1"
    rounds = env_config.get("rounds", 50)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        yield ("rounds",), f"got {rounds!r}, expected a whole number of at least 1", "write 50"
    switches = env_config.get("switch_probability", 0.0)
    if isinstance(switches, bool) or not isinstance(switches, int | float) or not 0 <= switches <= 1:
        yield ("switch_probability",), f"got {switches!r}, expected a number in [0, 1]", "write 0.05"
    elif switches and len(weights) < 2:
        message = f"switching needs at least two opponents, got {list(weights)}"
        yield ("switch_probability",), message, "name a second strategy, or remove the switching"
    observe = env_config.get("observe", "last_round")
    if observe not in OBSERVE:
        message = f"got {observe!r}{did_you_mean(str(observe), OBSERVE)}"
        yield ("observe",), message, f"write one of {', '.join(OBSERVE)}"
    stays = env_config.get("games_per_opponent", 1)
    if not isinstance(stays, int) or isinstance(stays, bool) or stays < 1:
        yield ("games_per_opponent",), f"got {stays!r}, expected a whole number of at least 1", "write 3"
    elif stays > 1 and switches:
        message = f"an opponent that stays for {stays} games cannot switch as well"
        yield ("games_per_opponent",), message, "remove one of games_per_opponent and switch_probability"


RULES = EnvRules(faults, lambda env_config: len(_weights(env_config.get("opponents"))))
