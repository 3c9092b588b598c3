"""Print the exact numbers of a pool of opponents: what can be reached with the type known, inferred, without memory.

    python benchmarks/opponent_pool.py soccer '{opponents: {random: 4, seed: 7}}' [--memoryless 40]
    python benchmarks/opponent_pool.py matrix_game '{game: chicken, opponents: literature}'
    python benchmarks/opponent_pool.py configs/dron_styles.yaml          # the environment of a recipe

What the lines mean stands in benchmarks/soccer_pool.py and rlkit/envs/matrix_solver.py. `--memoryless N` also searches
for the best soccer policy of the state alone, N rounds of some seconds each. `--json` prints one object.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import soccer_pool
import yaml

from rlkit import recipe as recipes
from rlkit.envs import matrix_solver
from rlkit.envs.rules import rules_of
from rlkit.envs.soccer_rules import SoccerRules
from rlkit.envs.soccer_styles import pool_of

SOLVED = ("soccer", "matrix_game")
SOCCER_POOL = ("opponents", "styles", "switch_probability", "switch_at", "render_mode")
GAMES = 20_000


def environment(name: str, env_config: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of an environment, given so or as a recipe; leave the program if it is not solved."""
    if name in SOLVED:
        arguments = yaml.safe_load(env_config) or {}
        if not isinstance(arguments, dict):
            raise SystemExit(
                f"env_config: got {env_config!r}, expected a mapping such as {{opponents: styles}}"
            )
    else:
        recipe = recipes.load(name)
        name, arguments = recipe.env, dict(recipe.env_config)
    rules = rules_of(name)
    if rules is None or name not in SOLVED:
        raise SystemExit(f"there are no exact numbers for {name!r}; use one of {', '.join(SOLVED)}")
    problems = [
        f"env_config.{'.'.join(map(str, p))}: {m}; fix: {fix}" for p, m, fix in rules.faults(arguments)
    ]
    if problems:
        raise SystemExit("\n".join(problems))
    return name, arguments


def soccer_numbers(arguments: dict[str, Any], rounds: int = 0, games: int = GAMES) -> dict[str, Any]:
    """Return the numbers of a soccer pool, see `soccer_pool.numbers`."""
    if arguments.get("switch_at"):
        raise SystemExit("switch_at: pools that switch at fixed moves are not solved; use switch_probability")
    field = {name: value for name, value in arguments.items() if name not in SOCCER_POOL}
    pool = pool_of(arguments.get("opponents"), arguments.get("styles"))
    switches = float(arguments.get("switch_probability", 0.0))
    return soccer_pool.numbers(
        SoccerRules(**field), pool, switch_probability=switches, games=games, rounds=rounds
    )


def matrix_numbers(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a repeated matrix game, rewards per round."""
    if arguments.get("switch_probability"):
        raise SystemExit("switch_probability: matrix games are solved without switching; leave it out")
    given: dict[str, Any] = {"game": "prisoners_dilemma", "opponents": None, "rounds": 50} | arguments
    found = matrix_solver.solve(given["game"], given["opponents"], given["rounds"])
    return {
        "known": found.known_score, "known_each": found.known, "inferred": found.inferred_score,
        "memoryless": found.last_round_score, "random": found.random_score,
    }  # fmt: skip


def numbers(name: str, arguments: dict[str, Any], rounds: int = 0, games: int = GAMES) -> dict[str, Any]:
    """Return the numbers of an environment's pool: known, known_each, inferred, memoryless or mixture, random."""
    return soccer_numbers(arguments, rounds, games) if name == "soccer" else matrix_numbers(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("env", help="soccer, matrix_game, or a recipe")
    parser.add_argument("env_config", nargs="?", default="{}", help="its arguments, as YAML")
    parser.add_argument("--memoryless", type=int, default=0, metavar="ROUNDS")
    parser.add_argument(
        "--games", type=int, default=GAMES, help="simulated games of the line `type inferred`"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = numbers(*environment(given.env, given.env_config), rounds=given.memoryless, games=given.games)
    if given.json:
        print(json.dumps(found))
        return
    each = ", ".join(f"{name} {score:.3f}" for name, score in found.get("known_each", {}).items())
    words = {
        "known": f"type known ({each})" if each else "type known, simulated", "inferred": "type inferred",
        "memoryless": "best memoryless found", "mixture": "against the mixture", "random": "random",
    }  # fmt: skip
    for name, text in words.items():
        if name in found:
            value, error = found[name], found.get(f"{name}_error")
            shown = "too many beliefs to solve" if value is None else f"{value:.3f}"
            print(f"{shown}{f' +- {error:.3f}' if error else ''}  {text}")


if __name__ == "__main__":
    main()
