"""What any method can and cannot reach against a pool of soccer opponents; `opponent_pool.py` prints it.

Mean scores (wins - losses) over the starts of the game:
- type known: the optimum at the discount against each opponent, exact. With switching, the style is seen at every move.
- type inferred: a player who starts from the pool's probabilities, updates them exactly after every move, and plays
  argmax_a sum_k b_k Q_k(s, a) (QMDP: Littman, Cassandra, Kaelbling 1995), over simulated games, with its 95 % interval.
  The best policy that infers the type lies between this and the line above.
- memoryless: the best policy of the state alone that a local search found.
- mixture: the optimum against an opponent that draws its style anew at every move, exact; near what Q-learning on the
  state alone finds.
- random: the uniform player, exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlkit.envs.soccer_games import SoccerGames
from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_solver import greedy, outcome, successors, value_iteration
from rlkit.envs.soccer_styles import Pool
from rlkit.envs.soccer_tables import tables

GAMMA = 0.9


def style_values(
    rules: SoccerRules,
    pool: Pool,
    gamma: float = GAMMA,
    switch_probability: float = 0.0,
    tolerance: float = 1e-7,
) -> np.ndarray:
    """Return the optimal action values with the style seen at every move, (K, S, a)."""
    policies = pool.policies(rules)
    if not switch_probability:
        return np.stack([value_iteration(rules, policy, gamma, tolerance)[1] for policy in policies])
    table, stays = tables(rules), switching(pool, switch_probability)
    values = np.zeros((len(policies), table.size))
    while True:
        ahead = table.reward + gamma * (stays @ values)
        q = np.stack(
            [successors(table, next_, policy) for next_, policy in zip(ahead, policies, strict=True)]
        )
        new = np.where(table.over, 0.0, q.max(axis=2))
        if np.abs(new - values).max() < tolerance:
            return np.where(table.over[:, None], 0.0, q)
        values = new


def switching(pool: Pool, probability: float) -> np.ndarray:
    """Return the chance that style k is followed by style j after a move, (K, K)."""
    weights = np.array(pool.weights)
    others = np.tile(weights, (len(weights), 1)) * (1 - np.eye(len(weights)))
    if len(weights) == 1:
        return np.ones((1, 1))
    others /= others.sum(axis=1, keepdims=True)
    return (1 - probability) * np.eye(len(weights)) + probability * others


def simulate(
    rules: SoccerRules,
    pool: Pool,
    q: np.ndarray,
    games: int,
    *,
    inferred: bool,
    switch_probability: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Play `games` games by the action values, the style known or inferred; return their scores, (games,)."""
    table = SoccerGames(games, rules, pool, switch_probability=switch_probability, seed=seed)
    policies, moves = pool.policies(rules), switching(pool, switch_probability)
    belief = np.tile(np.array(pool.weights), (games, 1))
    scores, going = np.zeros(games), np.ones(games, bool)
    for _ in range(rules.horizon):
        if inferred:
            values = np.einsum("gk,kga->ga", belief, q[:, table.state])
        else:
            values = q[table.style, table.state]
        before = table.state
        move = table.step(greedy(values))
        belief = belief * policies[:, before, move.opponent_action].T
        belief = belief / belief.sum(axis=1, keepdims=True) @ moves
        scores += np.where(going, move.reward, 0.0)
        going &= ~move.done
    return scores


def memoryless(rules: SoccerRules, pool: Pool, rounds: int = 40, gamma: float = GAMMA) -> float:
    """Return the best score found by a policy of the state alone, starting from the optimum against the mixture.

    Deterministic policies, improved by what each action gains against every opponent, weighted by how often the state
    is reached.
    """
    table, rng = tables(rules), np.random.default_rng(0)
    states, policies = np.arange(table.size), pool.policies(rules)
    policy = greedy(value_iteration(rules, np.tensordot(pool.weights, policies, 1), gamma)[1])
    best = -1.0
    for round_ in range(rounds):
        gain, score = np.zeros((table.size, len(ACTIONS))), 0.0
        after = table.after[states, policy]
        for weight, opponent in zip(pool.weights, policies, strict=True):
            values = np.zeros(table.size)
            for _ in range(120):
                values = np.where(table.over, 0, ((table.reward + gamma * values)[after] * opponent).sum(1))
            q = successors(table, table.reward + gamma * values, opponent)
            reached, here = np.zeros(table.size), np.zeros(table.size)
            here[table.starts] = 1 / len(table.starts)
            for t in range(rules.horizon):
                reached += here * gamma**t
                here = np.bincount(after.ravel(), (here[:, None] * opponent).ravel(), minlength=table.size)
                here[table.over] = 0
            gain += weight * reached[:, None] * (q - values[:, None])
            score += weight * outcome(rules, policy, opponent).score
        best = max(best, score)
        better = (gain.max(axis=1) > 1e-12) & (rng.random(table.size) < (1.0 if round_ < 8 else 0.5))
        policy = np.where(better, greedy(gain), policy)
    return best


def numbers(
    rules: SoccerRules, pool: Pool, *, switch_probability: float = 0.0, games: int = 20_000, rounds: int = 0
) -> dict[str, Any]:
    """Return the numbers of a pool; `rounds` of the memoryless search, which takes seconds each."""
    q = style_values(rules, pool, switch_probability=switch_probability)
    policies = pool.policies(rules)
    result: dict[str, Any] = {}
    if switch_probability:
        known = simulate(rules, pool, q, games, inferred=False, switch_probability=switch_probability)
        result["known"], result["known_error"] = float(known.mean()), 1.96 * float(known.std()) / games**0.5
    else:
        each = [outcome(rules, greedy(q[k]), policy).score for k, policy in enumerate(policies)]
        result["known"] = float(np.dot(pool.weights, each))
        result["known_each"] = dict(zip(pool.names, each, strict=True))
        uniform = np.full((tables(rules).size, len(ACTIONS)), 1 / len(ACTIONS))
        mixture = greedy(value_iteration(rules, np.tensordot(pool.weights, policies, 1), GAMMA, 1e-7)[1])
        for name, policy in (("mixture", mixture), ("random", uniform)):
            scores = [outcome(rules, policy, opponent).score for opponent in policies]
            result[name] = float(np.dot(pool.weights, scores))
        if rounds:
            result["memoryless"] = memoryless(rules, pool, rounds)
    scores = simulate(rules, pool, q, games, inferred=True, switch_probability=switch_probability)
    result["inferred"], result["inferred_error"] = (
        float(scores.mean()),
        1.96 * float(scores.std()) / games**0.5,
    )
    return result
