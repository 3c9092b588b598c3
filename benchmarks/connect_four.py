"""A policy of connect four against a random player and one that looks one step ahead, 500 games each.

    python benchmarks/connect_four.py RUN [--games 500] [--seed 0] [--keep]

RUN is whatever `rlkit.load` takes. The policy plays greedily and begins every other game. The player that looks ahead
takes a column that wins at once, else one in which the opponent would win next, else a random one. Prints one JSON line
per opponent: games won, drawn and lost. `--keep` appends them to benchmarks/results/<recipe>.jsonl: the mean score of a
game, 1 for one that was won and -1 for one that was lost.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pettingzoo.classic import connect_four_v3
from processes import append_row

import rlkit

RESULTS = Path(__file__).parent / "results"
Player = Callable[[dict[str, np.ndarray], np.random.Generator], int]
LINES = ((0, 1), (1, 0), (1, 1), (1, -1))


def wins(stones: np.ndarray, row: int, column: int) -> bool:
    """Whether a stone at this place makes four in a row with `stones`, (6, 7) bool."""

    def run(down: int, right: int) -> int:
        count, r, c = 0, row + down, column + right
        while 0 <= r < 6 and 0 <= c < 7 and stones[r, c]:
            count, r, c = count + 1, r + down, c + right
        return count

    return any(run(down, right) + run(-down, -right) >= 3 for down, right in LINES)


def random_player(seen: dict[str, np.ndarray], rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(seen["action_mask"])))


def looking_ahead(seen: dict[str, np.ndarray], rng: np.random.Generator) -> int:
    """Win, else prevent, else random. Row 0 is the top; `observation` (6, 7, 2) holds own stones, then the other's."""
    own, other = seen["observation"][..., 0] > 0, seen["observation"][..., 1] > 0
    places = {
        int(c): int(np.flatnonzero(~(own | other)[:, c])[-1]) for c in np.flatnonzero(seen["action_mask"])
    }
    for stones in (own, other):
        for column, row in places.items():
            if wins(stones, row, column):
                return column
    return random_player(seen, rng)


def play(agent: Any, opponent: Player, games: int, seed: int) -> Counter[str]:
    """Play games; return how many were won, drawn and lost."""
    rng, found = np.random.default_rng(seed), Counter(won=0, drawn=0, lost=0)
    env = connect_four_v3.env()
    for game in range(games):
        mine = f"player_{game % 2}"
        agent.reset()
        env.reset(seed=seed + game)
        result = 0.0
        for name in env.agent_iter():
            seen, reward, terminated, truncated, _ = env.last()
            result += reward * (name == mine)
            if terminated or truncated:
                env.step(None)
            elif name == mine:
                env.step(int(agent.act({name: seen})[name]))
            else:
                env.step(opponent(seen, rng))
        found["won" if result > 0 else "lost" if result < 0 else "drawn"] += 1
    return found


def check() -> None:
    """The player that looks ahead beats the random one."""
    rng, env, results = np.random.default_rng(0), connect_four_v3.env(), Counter[str]()
    for game in range(40):
        env.reset(seed=game)
        mine, result = f"player_{game % 2}", 0.0
        for name in env.agent_iter():
            seen, reward, terminated, truncated, _ = env.last()
            result += reward * (name == mine)
            over = terminated or truncated
            env.step(None if over else (looking_ahead if name == mine else random_player)(seen, rng))
        results["won" if result > 0 else "other"] += 1
    assert results["won"] > 30, results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--games", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    check()
    agent = rlkit.load(given.run)
    for name, opponent in (("random", random_player), ("looks ahead", looking_ahead)):
        found = {"opponent": name, **play(agent, opponent, given.games, given.seed)}
        print(json.dumps(found), flush=True)
        if given.keep:
            recipe = agent.manifest.recipe or {}
            score = round((found["won"] - found["lost"]) / given.games, 3)
            row = {"seed": recipe.get("seed"), "variant": f"against: {name}", "return": score}
            row |= {"env_steps": agent.manifest.env_steps, **found}
            append_row(RESULTS / f"{recipe['name']}.jsonl", row)


if __name__ == "__main__":
    main()
