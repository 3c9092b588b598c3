"""Exact solutions of the soccer game against rule agents, by dynamic programming over its states.

`solve(rules, pool)` gives the best that can be reached, next to which a learned score means something: at the
paper's size .896 against the offensive and .495 against the defensive agent (discount .9, opponent known).

Legend: S states, a action of A, b action of B, P (S, b) the opponent's action probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_styles import Opponents, pool_of
from rlkit.envs.soccer_tables import SoccerTables, tables


@dataclass(frozen=True)
class Expectation:
    """Exact expectations over the starts of a game: `score` = wins - losses, `length` in moves."""

    score: float
    win: float
    draw: float
    loss: float
    length: float


@dataclass(frozen=True)
class Solution:
    """The optimum against each opponent of a pool.

    Attributes:
        known: outcome per opponent of the discounted optimum against it, its style known; `known_score` is
            their mean by the pool's probabilities.
        blind: outcome per opponent of one policy that sees the state alone: the discounted optimum against an
            opponent who redraws its style at every move; `blind_score` their mean. It is not the best of all
            policies without memory, which can use the position itself as memory (docs/dron.md).
        clock_score: the best mean score with style and clock known and no discount. Nothing can exceed it.
        policies: (S,) action of A per opponent, of `known`; `blind_policy` (S,) of `blind`.
    """

    known: dict[str, Expectation]
    known_score: float
    blind: dict[str, Expectation]
    blind_score: float
    clock_score: float
    policies: dict[str, np.ndarray]
    blind_policy: np.ndarray


def successors(table: SoccerTables, values: np.ndarray, opponent: np.ndarray) -> np.ndarray:
    """Return E[values(next state)] for each state and action of A, (S, a)."""
    steal = table.rules.steal_probability
    after = values[table.after]
    if steal < 1.0:
        after = np.where(table.meet, steal * after + (1 - steal) * values[:, None, None], after)
    return np.einsum("sab,sb->sa", after, opponent)


def value_iteration(
    rules: SoccerRules, opponent: np.ndarray, gamma: float = 0.9, tolerance: float = 1e-9
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the endless game against a fixed opponent.

    Args:
        opponent: (S, b) action probabilities of B.
        gamma: discount, below 1.
        tolerance: largest change of a value in the last sweep.

    Returns:
        The values (S,) and action values (S, a), both float64; 0 in states that end the game.

    Raises:
        ValueError: gamma is not in [0, 1).
    """
    if not 0 <= gamma < 1:
        raise ValueError(
            f"got gamma {gamma}, expected a number in [0, 1); use `finite_horizon` without a discount"
        )
    table = tables(rules)
    values = np.zeros(table.size)
    while True:
        q = successors(table, table.reward + gamma * values, opponent)
        new = np.where(table.over, 0.0, q.max(axis=1))
        change = np.abs(new - values).max()
        values = new
        if change < tolerance:
            return values, np.where(table.over[:, None], 0.0, q)


def greedy(q: np.ndarray) -> np.ndarray:
    """Return the first action whose value is the largest up to rounding, (S,)."""
    return (q >= q.max(axis=1, keepdims=True) - 1e-9).argmax(axis=1)


def finite_horizon(rules: SoccerRules, opponent: np.ndarray) -> float:
    """Return the best score against a fixed opponent when the clock is seen and nothing is discounted."""
    table = tables(rules)
    values = np.zeros(table.size)
    for _ in range(rules.horizon):
        q = successors(table, table.reward + values, opponent)
        values = np.where(table.over, 0.0, q.max(axis=1))
    return float(values[table.starts].mean())


def outcome(rules: SoccerRules, policy: np.ndarray, opponent: np.ndarray) -> Expectation:
    """Play out a policy exactly.

    Args:
        policy: (S,) actions or (S, a) probabilities of A.
        opponent: (S, b) probabilities of B.
    """
    table = tables(rules)
    if policy.ndim == 1:
        policy = np.eye(len(ACTIONS))[policy]
    here = np.zeros(table.size)
    here[table.starts] = 1 / len(table.starts)
    steal = rules.steal_probability
    win = loss = length = 0.0
    for _ in range(rules.horizon):
        length += here.sum()
        flow = here[:, None, None] * policy[:, :, None] * opponent[:, None, :]
        met = flow * table.meet
        moved = np.bincount(table.after.ravel(), (flow - (1 - steal) * met).ravel(), minlength=table.size)
        here = moved + (1 - steal) * met.sum(axis=(1, 2))
        win += here[table.reward > 0].sum()
        loss += here[table.reward < 0].sum()
        here[table.over] = 0.0
    return Expectation(float(win - loss), float(win), float(here.sum()), float(loss), float(length))


def solve(
    rules: SoccerRules | None = None,
    opponents: Opponents | None = None,
    gamma: float = 0.9,
    styles: Mapping[str, Any] | None = None,
) -> Solution:
    """Solve the game against every opponent of a pool (see `pool_of`)."""
    rules = rules or SoccerRules()
    pool = pool_of(opponents, styles)
    policies = pool.policies(rules)
    weights = dict(zip(pool.names, pool.weights, strict=True))
    policy_of = dict(zip(pool.names, policies, strict=True))
    best = {name: greedy(value_iteration(rules, policy_of[name], gamma)[1]) for name in weights}
    known = {name: outcome(rules, best[name], policy_of[name]) for name in weights}
    one = greedy(value_iteration(rules, np.tensordot(pool.weights, policies, 1), gamma)[1])
    blind = {name: outcome(rules, one, policy_of[name]) for name in weights}
    return Solution(
        known=known,
        known_score=sum(weights[name] * known[name].score for name in weights),
        blind=blind,
        blind_score=sum(weights[name] * blind[name].score for name in weights),
        clock_score=sum(weight * finite_horizon(rules, policy_of[name]) for name, weight in weights.items()),
        policies=best,
        blind_policy=one,
    )
