"""Plays a connect-four run greedily against a random and a one-step-lookahead opponent, both sides in turn.

    python benchmarks/connect_four.py RUN… [--games 500] [--bars 0.95 0.80]

The lookahead opponent wins where one move does it, else blocks where the agent would win with its next move, else moves
at random. Exit code 1 when a share of games won is below its bar. Draws count as games that were not won.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import rlkit

ROWS, COLUMNS = 6, 7
Opponent = Callable[[dict[str, Any], np.random.Generator], int]


def wins(stones: np.ndarray, row: int, column: int) -> bool:
    """Return whether a stone at this place makes four in a row of `stones` (6, 7) bool."""
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        length = 1
        for sign in (1, -1):
            r, c = row + sign * dr, column + sign * dc
            while 0 <= r < ROWS and 0 <= c < COLUMNS and stones[r, c]:
                length, r, c = length + 1, r + sign * dr, c + sign * dc
        if length >= 4:
            return True
    return False


def random(observation: dict[str, Any], rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(observation["action_mask"])))


def lookahead(observation: dict[str, Any], rng: np.random.Generator) -> int:
    board = observation["observation"].astype(bool)
    free = ROWS - 1 - board.any(axis=2).sum(axis=0)  # the row a stone would fall to
    for player in (0, 1):
        for column in np.flatnonzero(observation["action_mask"]):
            if wins(board[:, :, player], int(free[column]), int(column)):
                return int(column)
    return random(observation, rng)


def games(agent: Any, opponent: Opponent, count: int) -> Counter[str]:
    """Play games on seeds 0, 1, …; return how many the agent won, drew and lost."""
    from pettingzoo.classic import connect_four_v3

    env, found = connect_four_v3.env(), Counter[str]()
    for game in range(count):
        rng, me = np.random.default_rng(game), f"player_{game % 2}"
        env.reset(seed=game)
        agent.reset()
        for player in env.agent_iter():
            observation, _, terminated, truncated, _ = env.last()
            if terminated or truncated:
                break
            mine = player == me
            env.step(int(agent.act({player: observation})[player]) if mine else opponent(observation, rng))
        reward = env.rewards[me]
        found["won" if reward > 0 else "lost" if reward < 0 else "drawn"] += 1
    env.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run or checkpoint of *_connect_four.yaml")
    parser.add_argument("--games", type=int, default=500)
    parser.add_argument("--bars", type=float, nargs=2, default=(0.95, 0.80), metavar=("RANDOM", "LOOKAHEAD"))
    asked = parser.parse_args()
    missed = False
    print(f"{'run':40s} {'opponent':10s} {'games':>6s} {'won':>7s} {'drawn':>6s} {'lost':>6s}")
    for run in asked.runs:
        agent = rlkit.load(run)
        for opponent, bar in zip((random, lookahead), asked.bars, strict=True):
            found = games(agent, opponent, asked.games)
            share = found["won"] / asked.games
            missed |= share < bar
            rest = f"{share:7.1%} {found['drawn']:6d} {found['lost']:6d}"
            print(f"{run[-40:]:40s} {opponent.__name__:10s} {asked.games:6d} {rest}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
