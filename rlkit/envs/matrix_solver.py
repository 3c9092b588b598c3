"""Exact optima of `matrix_game`, as average rewards per round over an episode of `rounds`.

`solve("prisoners_dilemma", "mixed")` gives what a learner can reach with the strategy known, with the strategy
inferred, and with no memory but the last round.

Legend: K strategies, Z automaton states, a the learner's action, b the opponent's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlkit.envs.matrix_rules import GAMES, Automaton, pool_of, strategy

MOST_BELIEFS = 60_000
DIGITS = 7  # to which beliefs are told apart; smaller ones count as 0
NEGLIGIBLE = 0.5 * 10**-DIGITS


@dataclass(frozen=True)
class MatrixSolution:
    """What can be reached against a pool, rewards per round.

    Attributes:
        known: the best response to each strategy, the round known too: nothing can exceed it; `known_score` its mean by
            the pool's probabilities.
        inferred_score: the Bayes-optimal player, who knows the pool and not which strategy of it plays; None where more
            beliefs can be reached than are worth the time, as with several strategies that play at random.
        last_round_score: the best deterministic player who sees the last round alone.
        random_score: the uniform player.
    """

    known: dict[str, float]
    known_score: float
    inferred_score: float | None
    last_round_score: float
    random_score: float


def best_response(payoffs: np.ndarray, automaton: Automaton, rounds: int) -> float:
    """Return the best average reward against a strategy, by value iteration over its states, backwards from the end."""
    values = np.zeros(len(automaton.defects))
    for _ in range(rounds):
        q = payoffs[None] + values[automaton.after]  # (Z, a, b)
        values = (q * _plays(automaton)[:, None]).sum(axis=2).max(axis=1)
    return float(values[0]) / rounds


def _plays(automaton: Automaton) -> np.ndarray:
    """Return the probabilities of C and D in each state, (Z, 2)."""
    return np.stack([1 - automaton.defects, automaton.defects], axis=1)


def bayes_optimal(
    payoffs: np.ndarray, automata: Sequence[Automaton], weights: Sequence[float], rounds: int
) -> float | None:
    """Return the average reward of the best player who infers the strategy.

    By dynamic programming over the beliefs that can be reached: the state of each strategy's automaton after this
    history, and its posterior probability, to seven digits.
    None where more than MOST_BELIEFS can be reached.
    """
    plays = [_plays(automaton) for automaton in automata]
    start = ((0,) * len(automata), tuple(float(w) for w in weights))
    layers = [{start: 0}]
    links: list[list[tuple[float, list[tuple[float, int]]]]] = []
    total = 0
    for _ in range(rounds):
        following: dict[tuple, int] = {}
        rows = []
        for (states, belief), _index in layers[-1].items():
            for a in (0, 1):
                reward, ahead = 0.0, []
                for b in (0, 1):
                    joint = [p * plays[k][z][b] for k, (p, z) in enumerate(zip(belief, states, strict=True))]
                    chance = sum(joint)
                    if chance <= NEGLIGIBLE:
                        continue
                    reward += chance * float(payoffs[a, b])
                    after = tuple(
                        int(automata[k].after[z, a, b]) if joint[k] > chance * NEGLIGIBLE else -1
                        for k, z in enumerate(states)
                    )
                    posterior = tuple(round(p / chance, DIGITS) for p in joint)
                    ahead.append((chance, following.setdefault((after, posterior), len(following))))
                rows.append((reward, ahead))
        links.append(rows)
        layers.append(following)
        total += len(following)
        if total > MOST_BELIEFS:
            return None
    values = np.zeros(len(layers[-1]))
    for rows in reversed(links):
        q = np.array([reward + sum(chance * values[i] for chance, i in ahead) for reward, ahead in rows])
        values = q.reshape(-1, 2).max(axis=1)
    return float(values[0]) / rounds


def average_reward(payoffs: np.ndarray, automaton: Automaton, policy: np.ndarray, rounds: int) -> float:
    """Return the exact average reward of a policy of the last round.

    Args:
        policy: (5,) probability of D after each observation of `matrix_game`.
    """
    here = np.zeros((5, len(automaton.defects)))
    here[0, 0] = 1.0
    total = 0.0
    for _ in range(rounds):
        new = np.zeros_like(here)
        for a, b in itertools.product((0, 1), (0, 1)):
            mine = policy if a else 1 - policy
            flow = here * mine[:, None] * _plays(automaton)[None, :, b]
            total += float(flow.sum()) * float(payoffs[a, b])
            np.add.at(new[1 + 2 * a + b], automaton.after[:, a, b], flow.sum(axis=0))
        here = new
    return total / rounds


def solve(
    game: str = "prisoners_dilemma",
    opponents: str | Sequence[str] | Mapping[str, float] | None = None,
    rounds: int = 50,
) -> MatrixSolution:
    """Solve a game against a pool (see `pool_of`), without switching."""
    payoffs, pool = np.asarray(GAMES[game], float), pool_of(opponents)
    automata = [strategy(name, game) for name in pool]
    weights = np.array(list(pool.values()))
    known = [best_response(payoffs, automaton, rounds) for automaton in automata]

    def score(policy: np.ndarray) -> float:
        return float(weights @ [average_reward(payoffs, automaton, policy, rounds) for automaton in automata])

    return MatrixSolution(
        known=dict(zip(pool, known, strict=True)),
        known_score=float(weights @ known),
        inferred_score=bayes_optimal(payoffs, automata, weights.tolist(), rounds),
        last_round_score=max(score(np.array(bits, float)) for bits in itertools.product((0, 1), repeat=5)),
        random_score=score(np.full(5, 0.5)),
    )
