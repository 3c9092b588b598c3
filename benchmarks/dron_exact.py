"""Figures of the soccer game that need no learning: rule agents, exact optima, speed.

    python benchmarks/dron_exact.py [--memoryless]

`--memoryless` also searches for the best policy that sees the state alone (minutes): deterministic policies, improved
by what each action gains against every opponent, weighted by how often the state is reached.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from soccer_pool import memoryless

from rlkit.envs.soccer import SoccerVectorEnv
from rlkit.envs.soccer_games import SoccerGames, play
from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_solver import outcome, solve
from rlkit.envs.soccer_styles import pool_of, style_policy
from rlkit.envs.soccer_tables import tables

GAMMA = 0.9


def rule_agents(games: int = 20_000) -> None:
    rules = SoccerRules()
    uniform = np.full((tables(rules).size, len(ACTIONS)), 1 / len(ACTIONS))
    print(f"rule agent against a random player, {games:,} games (exact in brackets)")
    for style in ("offensive", "defensive"):
        exact = outcome(rules, uniform, style_policy(rules, style))
        played = play(uniform, games, rules, style, seed=1)["all"]
        print(
            f"  {style}: wins {100 * played['loss']:.2f} % ({100 * exact.loss:.2f}), ties {100 * played['draw']:.2f} % "
            f"({100 * exact.draw:.2f}), length {played['length']:.2f} ({exact.length:.2f})"
        )


def optima() -> None:
    for pool in ("paper", "styles"):
        best = solve(SoccerRules(), pool, GAMMA)
        each = ", ".join(f"{name} {result.score:.4f}" for name, result in best.known.items())
        print(
            f"{pool} pool: opponent known {best.known_score:.4f} ({each}); one policy against a mixture of them "
            f"{best.blind_score:.4f}; with the clock and no discount {best.clock_score:.4f}"
        )


def speed(games: int = 64, steps: int = 3000) -> None:
    actions = np.random.default_rng(0).integers(0, len(ACTIONS), (steps, games))
    table = SoccerGames(games, seed=0)
    began = time.process_time()
    for row in actions:
        move = table.step(row)
        table.observation  # noqa: B018 (what a learner reads)
        table.reset(np.flatnonzero(move.done))
    print(
        f"{games} games as arrays: {games * steps / (time.process_time() - began):,.0f} steps per CPU second"
    )
    env = SoccerVectorEnv(games)
    env.reset(seed=0)
    began = time.process_time()
    for row in actions:
        env.step(row)
    print(
        f"as a vector environment: {games * steps / (time.process_time() - began):,.0f} steps per CPU second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memoryless", action="store_true")
    arguments = parser.parse_args()
    rule_agents()
    optima()
    speed()
    if arguments.memoryless:
        for pool in ("paper", "styles"):
            found = memoryless(SoccerRules(), pool_of(pool))
            print(f"{pool} pool, best policy of the state alone found: {found:.4f}")


if __name__ == "__main__":
    main()
