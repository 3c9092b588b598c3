"""Styles of play of soccer's rule agents, and pools of them: by name, from a recipe, from Python, or from a seed.

A style adds up what four atoms want (`SoccerTables.scores`), weighted: `advance` and `avoid` with the ball, `defend`
and `intercept` without. It plays an action with the largest sum; among several, the first in its `order`, or any where
it has none. With probability `noise` it plays any action instead.

    env_config:
      styles:                        # optional: styles of your own, beside those of STYLES
        wall: {advance: 1, avoid: 3, defend: 9, intercept: 2, order: [down, left, right, up, noop], noise: 0.1}
      opponents: {wall: 2, up: 1}    # a pool or style by name, a list, weights, or {random: 4, seed: 7}

Styles and pools are checked where they are written: `faults` is what `rlkit check` reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlkit.envs.rules import EnvRules, Fault, listed
from rlkit.envs.soccer_rules import ACTIONS, DOWN, LEFT, NOOP, RIGHT, UP, SoccerRules
from rlkit.errors import did_you_mean

if TYPE_CHECKING:
    import numpy as np

ATOMS = ("advance", "avoid", "defend", "intercept")
MOST_STYLES = 64


class PoolError(ValueError):
    """A style or pool that cannot be played.

    Args:
        path: where it stands in `env_config`.
        message: what was got and what is expected.
        fix: what to write.
    """

    def __init__(self, path: tuple[str | int, ...], message: str, fix: str):
        super().__init__(path, message, fix)
        self.path, self.message, self.fix = path, message, fix

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}; fix: {self.fix}"


@dataclass(frozen=True)
class Style:
    """A rule agent.

    Args:
        advance: weight of going to the goal, with the ball.
        avoid: weight of going away from the other player, with the ball.
        defend: weight of going in front of the own goal, without the ball.
        intercept: weight of going at the other player, without the ball.
        order: all five actions, the one preferred in a tie first; None breaks ties at random.
        noise: probability of any action instead, per move.
    """

    advance: float
    avoid: float
    defend: float
    intercept: float
    order: tuple[int, ...] | None = None
    noise: float = 0.0


OFFENSIVE, DEFENSIVE = (9, 1, 1, 9), (1, 9, 9, 1)
STYLES: dict[str, Style] = {
    "offensive": Style(*OFFENSIVE),
    "defensive": Style(*DEFENSIVE),
    "up": Style(*OFFENSIVE, order=(UP, LEFT, RIGHT, DOWN, NOOP)),
    "down": Style(*OFFENSIVE, order=(DOWN, LEFT, RIGHT, UP, NOOP)),
    "random": Style(1, 1, 1, 1, noise=1.0),
}
POOLS: dict[str, dict[str, float]] = {
    "paper": {"offensive": 0.5, "defensive": 0.5},
    "styles": {"up": 0.5, "down": 0.5},
}


def register_soccer_style(
    name: str,
    *,
    advance: float,
    avoid: float,
    defend: float,
    intercept: float,
    order: Sequence[str] | None = None,
    noise: float = 0.0,
) -> None:
    """Make `opponents: <name>` available to the environment `soccer`.

    Args:
        name: a new name.
        advance, avoid, defend, intercept, order, noise: see `Style`; `order` by the names of the actions.

    Raises:
        ValueError: the name is taken by another style or a pool, or this style cannot be played.
    """
    values = {"advance": advance, "avoid": avoid, "defend": defend, "intercept": intercept, "noise": noise}
    style = read_style(name, values if order is None else {**values, "order": list(order)})
    if not name.isidentifier() or name in {*POOLS, "seed"} or STYLES.get(name, style) != style:
        raise PoolError(("styles", name), f"cannot register the style {name!r}", "choose a new, plain word")
    STYLES[name] = style


def read_style(name: str, values: Any) -> Style:
    """Return the style that a recipe describes.

    Raises:
        PoolError: an unknown key, weights that are not numbers, nothing wanted, a wrong order or noise.
    """
    where: tuple[str | int, ...] = ("styles", name)
    example = "{advance: 9, avoid: 1, defend: 1, intercept: 9}"
    if not isinstance(values, Mapping) or not values:
        raise PoolError(where, f"got {values!r}, expected the weights of a style", f"write {example}")
    known = [field.name for field in fields(Style)]
    for key, value in values.items():
        if key not in known:
            raise PoolError(
                (*where, key), f"a style has no {key!r}{did_you_mean(key, known)}", f"use {', '.join(known)}"
            )
        if key in ATOMS and not _number(value):
            raise PoolError(
                (*where, key), f"got weight {value!r}, expected a number of at least 0", "write 1"
            )
    missing = [atom for atom in ATOMS if atom not in values]
    if missing:
        raise PoolError(where, f"got no weight of {', '.join(missing)}", f"give all four, as in {example}")
    for state, atoms in (("with", ATOMS[:2]), ("without", ATOMS[2:])):
        if not any(values[atom] for atom in atoms):
            raise PoolError(
                where,
                f"{state} the ball this style wants no move: {' and '.join(atoms)} are both 0",
                "give one of them a weight above 0, or use the style random",
            )
    noise = values.get("noise", 0.0)
    if not _number(noise) or noise > 1:
        raise PoolError((*where, "noise"), f"got {noise!r}, expected a probability in [0, 1]", "write 0.1")
    order = values.get("order")
    if order is not None and (not isinstance(order, Sequence) or sorted(map(str, order)) != sorted(ACTIONS)):
        raise PoolError(
            (*where, "order"), f"got {order!r}, expected each action once", f"order {', '.join(ACTIONS)}"
        )
    ranks = None if order is None else tuple(ACTIONS.index(action) for action in order)
    advance, avoid, defend, intercept = (float(values[atom]) for atom in ATOMS)
    return Style(advance, avoid, defend, intercept, ranks, float(noise))


@dataclass(frozen=True)
class Pool:
    """Opponents with their probabilities, which sum to 1."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    styles: tuple[Style, ...]

    def policies(self, rules: SoccerRules) -> np.ndarray:
        """Return every style's action probabilities as player B, (K, S, b) float64."""
        import numpy as np

        return np.stack([style_policy(rules, style) for style in self.styles])


Opponents = str | Sequence[str] | Mapping[str, float] | Pool


def pool_of(opponents: Opponents | None = None, styles: Mapping[str, Any] | None = None) -> Pool:
    """Return the opponents of a game.

    Args:
        opponents: a name of `POOLS` or `STYLES`, a list of styles (equally likely), {style: weight}, or {random: N,
            seed: S} for N styles drawn from a seed; None means all of `styles`, or `paper` if there are none. A `Pool`
            is returned as it is.
        styles: styles beside those of `STYLES`, by name, as a recipe describes them.

    Raises:
        PoolError: an unknown name, no opponent, weights that are not positive numbers, a style that cannot be played.
    """
    if isinstance(opponents, Pool):
        return opponents
    own = {name: read_style(name, values) for name, values in (styles or {}).items()}
    for name in own:
        if name in POOLS or STYLES.get(name, own[name]) != own[name]:
            raise PoolError(
                ("styles", name), f"there is a style or pool {name!r} already", "choose a new name"
            )
    known = STYLES | own
    if opponents is None:
        opponents = list(own) or "paper"
    if isinstance(opponents, str):
        if opponents not in POOLS and opponents not in known:
            raise _unknown(("opponents",), opponents, known, pools=True)
        opponents = POOLS.get(opponents, {opponents: 1.0})
    if isinstance(opponents, Mapping) and "seed" in opponents:
        drawn = _drawn(opponents)
        return Pool(tuple(drawn), (1 / len(drawn),) * len(drawn), tuple(drawn.values()))
    if not isinstance(opponents, Mapping | Sequence) or not opponents:
        message = f"got {opponents!r}, expected at least one style"
        raise PoolError(("opponents",), message, f"use some of {', '.join(known)}")
    for path, message, fix in () if isinstance(opponents, Mapping) else listed(opponents):
        raise PoolError(path, message, fix)
    weights = dict(opponents) if isinstance(opponents, Mapping) else dict.fromkeys(opponents, 1.0)
    for name, weight in weights.items():
        if name not in known:
            raise _unknown(("opponents",), name, known)
        if not _number(weight) or not weight:
            message = f"got weight {weight!r}, expected a positive number"
            raise PoolError(("opponents", name), message, "write 1")
    if set(weights) == {"random"} and weights["random"] != 1:
        message = f"got {weights}, one opponent that moves at random"
        raise PoolError(
            ("opponents",), message, f"write {{random: {weights['random']}, seed: 0}} for a random pool"
        )
    total = sum(weights.values())
    return Pool(
        tuple(weights), tuple(w / total for w in weights.values()), tuple(known[name] for name in weights)
    )


def _unknown(path: tuple[str, ...], name: Any, known: Mapping[str, Style], pools: bool = False) -> PoolError:
    names = [*POOLS, *known] if pools else list(known)
    return PoolError(
        path,
        f"there is no soccer opponent {name!r}{did_you_mean(name, names)}",
        f"use one of {', '.join(names)}",
    )


def _drawn(opponents: Mapping[str, Any]) -> dict[str, Style]:
    """Read `{random: N, seed: S}`."""
    fix = "write {random: 4, seed: 7}"
    if set(opponents) != {"random", "seed"}:
        raise PoolError(("opponents",), f"got the keys {sorted(opponents)}, expected random and seed", fix)
    for key, least, most in (("random", 1, MOST_STYLES), ("seed", 0, 2**32)):
        value = opponents[key]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            message = f"got {value!r}, expected a whole number from {least} to {most}"
            raise PoolError(("opponents", key), message, fix)
    return random_styles(opponents["random"], opponents["seed"])


def random_styles(count: int, seed: int) -> dict[str, Style]:
    """Draw styles: four weights from 1 to 9, and an order of ties; no two of them play alike at 9 x 6."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn: dict[str, Style] = {}
    while len(drawn) < count:
        advance, avoid, defend, intercept = rng.integers(1, 10, len(ATOMS)).astype(float).tolist()
        order = tuple(rng.permutation(len(ACTIONS)).tolist())
        style = Style(advance, avoid, defend, intercept, order)
        played = style_policy(SoccerRules(), style)
        if not any((played == style_policy(SoccerRules(), other)).all() for other in drawn.values()):
            drawn[f"style_{len(drawn)}"] = style
    return drawn


def check_switching(pool: Pool, probability: Any, moves: Any) -> None:
    """Check the rules by which styles change within a game.

    Raises:
        PoolError: no probability, no moves, or a pool of one.
    """
    if not _number(probability) or probability > 1:
        message = f"got {probability!r}, expected a number in [0, 1]"
        raise PoolError(("switch_probability",), message, "write 0.05")
    if isinstance(moves, str) or not isinstance(moves, Sequence) or not all(_whole(move) for move in moves):
        message = f"got {moves!r}, expected a list of moves, each at least 1"
        raise PoolError(("switch_at",), message, "write [50]")
    if (probability or moves) and len(pool.names) < 2:
        name = "switch_probability" if probability else "switch_at"
        message = f"switching needs at least two opponents, got {list(pool.names)}"
        raise PoolError((name,), message, "name a second style, or remove the switching")


def faults(env_config: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with the styles and opponents of an `env_config`, every style by itself."""
    styles = env_config.get("styles") or {}
    if not isinstance(styles, Mapping):
        yield ("styles",), f"got {styles!r}, expected styles by name", "write {NAME: {advance: 9, …}}"
        return
    wrong = set()
    for name, values in styles.items():
        try:
            pool_of(name, {name: values})
        except PoolError as error:
            wrong.add(name)
            yield error.path, error.message, error.fix
    if wrong:
        return
    try:
        pool = pool_of(env_config.get("opponents"), styles)
        check_switching(pool, env_config.get("switch_probability", 0.0), env_config.get("switch_at", ()))
    except PoolError as error:
        yield error.path, error.message, error.fix


RULES = EnvRules(
    faults,
    lambda env_config: len(pool_of(env_config.get("opponents"), env_config.get("styles")).names),
    events=True,
)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@lru_cache(maxsize=256)
def best_actions(rules: SoccerRules, style: Style) -> np.ndarray:
    """Return which actions a style may play as player B without noise, (S, b) bool; all of them if it is all noise."""
    import numpy as np

    from rlkit.envs.soccer_tables import tables

    table = tables(rules)
    if style.noise == 1.0:
        return np.ones((table.size, len(ACTIONS)), bool)
    want = table.scores
    with_ball = style.advance * want["advance"] + style.avoid * want["avoid"]
    without = style.defend * want["defend"] + style.intercept * want["intercept"]
    scores = np.where((table.ball == 0)[:, None], with_ball, without)
    best: np.ndarray = scores >= scores.max(axis=1, keepdims=True) - 1e-9
    if style.order is not None:
        rank = np.argsort(style.order)  # place of each action in the order
        first = np.where(best, rank, len(ACTIONS)).argmin(axis=1)
        best = np.arange(len(ACTIONS)) == first[:, None]
    return best


def style_policy(rules: SoccerRules, style: Style | str) -> np.ndarray:
    """Return a style's action probabilities as player B, (S, b) float64. As player A, mirror state and action.

    Raises:
        PoolError: there is no style of that name.
    """
    if isinstance(style, str):
        if style not in STYLES:
            raise _unknown(("opponents",), style, STYLES)
        style = STYLES[style]
    best = best_actions(rules, style)
    return (1 - style.noise) * best / best.sum(axis=1, keepdims=True) + style.noise / len(ACTIONS)
