"""Opponent modelling against exact ceilings: methods x pools x seeds, on the opponents trained on and on unseen ones.

    python benchmarks/opponent_modelling.py run --pools soccer_4_7 --methods dqn concat moe --seeds 0 1 2
    python benchmarks/opponent_modelling.py report

A pool is an environment with opponents to train on, and unseen ones of the same family to test on. A method is a recipe
with overrides: a row of METHODS is all that a new one needs (docs/opponent-modelling.md). `run` trains by the recipe
and plays complete greedy games with the last weights (not the best), against the training pool and against unseen
opponents; it appends a row to benchmarks/results/opponent_modelling.jsonl, and skips rows that are there.

Regret is the exact optimum with the type known minus the score. By move, it is what the chosen action loses of the
optimal action value of the game at hand (soccer), or of the mean reward of the best responses (matrix games): how fast
the player adapts within a game.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soccer_pool
import torch
from dron_games import Player
from opponent_pool import numbers
from processes import append_row

from rlkit.algos.opponents.history import FeatureOptions
from rlkit.envs.matrix_game import MatrixGames
from rlkit.envs.soccer_games import SoccerGames
from rlkit.envs.soccer_rules import SoccerRules
from rlkit.envs.soccer_solver import greedy, successors
from rlkit.envs.soccer_styles import pool_of
from rlkit.envs.soccer_tables import tables
from rlkit.runs.statistics import MIN_SEEDS, interval, iqm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "opponent_modelling.jsonl"
GAMES, SHOWN_MOVES = 2000, 20

# pool -> recipe, opponents to train on, unseen opponents of the same family
POOLS: dict[str, tuple[str, Any, Any]] = {
    "styles": ("dron_pool", "styles", None),
    "soccer_3_3": ("dron_pool", {"random": 3, "seed": 3}, {"random": 4, "seed": 103}),
    "soccer_4_4": ("dron_pool", {"random": 4, "seed": 4}, {"random": 4, "seed": 104}),
    "soccer_5_5": ("dron_pool", {"random": 5, "seed": 5}, {"random": 4, "seed": 105}),
    "soccer_3_6": ("dron_pool", {"random": 3, "seed": 6}, {"random": 4, "seed": 106}),
    "soccer_4_7": ("dron_pool", {"random": 4, "seed": 7}, {"random": 4, "seed": 107}),
    "soccer_30_8": ("dron_pool", {"random": 30, "seed": 8}, {"random": 4, "seed": 108}),
    "matrix_mixed": ("matrix_game", "mixed", ["suspicious_tit_for_tat", "tit_for_two_tats", "grim"]),
    "matrix_reciprocal": ("matrix_game", "reciprocal", ["grim", "suspicious_tit_for_tat"]),
    "matrix_stays": ("matrix_game", "mixed", None),
}
# pool in which an opponent stays for several games -> what it changes in the recipe
STAYS: dict[str, list[str]] = {
    "matrix_stays": [
        *("env_config.rounds=10", "env_config.games_per_opponent=5", "config.training.clock_horizon=10")
    ]
}
PLAIN = ["config.training.network=flat", "config.training.features=[]", "config.training.history=0"]
# method -> what it changes in the recipe of the pool
METHODS: dict[str, list[str]] = {
    "dqn": PLAIN,
    "dqn_window": [*PLAIN, "config.training.history=8"],  # a GRU over the last 8 steps in front of plain DQN
    "flat": ["config.training.network=flat"],
    "concat": ["config.training.network=concat"],
    "moe": ["config.training.network=moe"],
    "encoder": [
        *("config.training.network=concat", "config.training.features=[]", "config.training.history=8"),
        *("config.training.supervise=action", "config.training.supervise_weight=0.1"),
    ],
}
LAST_ROUND = ("dqn", "dqn_window", "encoder")  # methods that see no responses in matrix games


@functools.cache
def ceiling(env: str, arguments: str) -> dict[str, Any]:
    """Return the exact numbers of a pool (see `opponent_pool.py`); `arguments` as JSON."""
    return numbers(env, json.loads(arguments), games=4000)


@functools.cache
def optimal_values(arguments: str) -> np.ndarray:
    """Return the optimal action values of soccer against each style, (K, S, a)."""
    given = json.loads(arguments)
    return soccer_pool.style_values(SoccerRules(), pool_of(given.get("opponents"), given.get("styles")))


class Luck:
    """What of a soccer result was luck: the steps of a value function against its own expectation.

    v_k(s), (K, S), is the undiscounted value of the best play against style k. In each move
    r + v_k(s') - E[r + v_k(s') | s, a] has mean 0, and so has v_k of the first state minus its mean over starts and
    styles.
    """

    def __init__(self, arguments: str):
        given = json.loads(arguments)
        rules, pool = SoccerRules(), pool_of(given.get("opponents"), given.get("styles"))
        table, states = tables(rules), np.arange(tables(rules).size)
        ahead, expected = [], []
        for opponent, q in zip(pool.policies(rules), optimal_values(arguments), strict=True):
            best, value = greedy(q), np.zeros(table.size)
            for _ in range(rules.horizon):
                value = successors(table, table.reward + value, opponent)[states, best]
                value = np.where(table.over, 0.0, value)
            ahead.append(table.reward + value)
            expected.append(successors(table, ahead[-1], opponent))
        self.ahead, self.expected = np.stack(ahead), np.stack(expected)
        self.starts = self.ahead[:, table.starts].mean(axis=1)  # (K,)
        self.mean = float(np.dot(pool.weights, self.starts))

    def move(
        self, style: np.ndarray, before: np.ndarray, actions: np.ndarray, after: np.ndarray
    ) -> np.ndarray:
        """Return the luck of one move in each game, (N,)."""
        moved: np.ndarray = self.ahead[style, after] - self.expected[style, before, actions]
        return moved


luck_of = functools.cache(Luck)


def play(
    act: Callable[[Player], np.ndarray],
    options: FeatureOptions,
    env: str,
    arguments: dict[str, Any],
    games: int,
    seed: int,
) -> dict[str, Any]:
    """Play `games` games side by side, each to its end; return score, regret, and loss by move."""
    text = json.dumps(arguments, sort_keys=True)
    engine: SoccerGames | MatrixGames
    if env == "soccer":
        engine, rounds = SoccerGames(games, seed=seed, **arguments), SoccerRules().horizon
        values = optimal_values(text)
    else:
        engine = MatrixGames(games, seed=seed, **arguments)
        rounds = engine.rounds
    known = ceiling(env, text)["known"]
    player = Player(engine, options)
    scores, going, losses = np.zeros(games), np.ones(games, bool), []
    style = engine.style.copy()
    luck = luck_of(text) if env == "soccer" else None
    lucky = np.zeros(games) if luck is None else luck.ahead[style, engine.state].copy()
    by_game: list[float] = []  # reward per round in each game against the same opponent
    for turn in range(rounds * arguments.get("games_per_opponent", 1)):
        actions = act(player)
        if env == "soccer":
            q = values[style, engine.state]
            lost = q.max(axis=1) - q[np.arange(games), actions]
        before = engine.state.copy() if luck is not None else None
        move = player.step(actions)
        if luck is not None:
            lucky += np.where(going, luck.move(style, before, actions, engine.state), 0.0)
        losses.append(float(lost[going].mean() if env == "soccer" else known - move.reward.mean()))
        scores += np.where(going, move.reward, 0.0)
        if env != "soccer" and (turn + 1) % rounds == 0:
            by_game.append(float(scores.mean()) / rounds - sum(by_game))
            if turn + 1 < rounds * arguments.get("games_per_opponent", 1):
                player.restart(np.arange(games))
            continue
        going &= ~move.done
        if not going.any():
            break
    if env != "soccer":
        scores /= rounds * len(by_game)
    base = np.zeros(len(engine.names)) if luck is None else luck.starts
    rest = scores - lucky
    score = float(rest.mean()) + (0.0 if luck is None else luck.mean)
    return {
        "score": score, "regret": known - score, "known": known, "error": 1.96 * float(rest.std()) / games**0.5,
        "by_type": {name: float(rest[style == k].mean() + base[k]) for k, name in enumerate(engine.names)},
        "by_move": [round(loss, 4) for loss in losses[:SHOWN_MOVES]],
        **({"by_game": [round(score, 4) for score in by_game]} if len(by_game) > 1 else {}),
    }  # fmt: skip


def train(pool: str, method: str, seed: int, steps: int, games: int) -> dict[str, Any]:
    """Train one method and return what it reaches against the opponents trained on, and unseen ones."""
    from rlkit.launch.build import build
    from rlkit.recipe import load

    name, opponents, unseen = POOLS[pool]
    overrides = [f"seed={seed}", f"env_config.opponents={json.dumps(opponents)}", *METHODS[method]]
    if name == "matrix_game" and method in LAST_ROUND:
        overrides.append("env_config.observe=last_round")
    overrides += STAYS.get(pool, [])
    recipe = load(ROOT / "configs" / f"{name}.yaml", overrides)
    config = build(recipe)
    config.evaluation(evaluation_interval=None)
    options = FeatureOptions(tuple(config.features), config.history, config.clock_horizon)
    cpu = time.process_time()
    algorithm = config.build_algo()
    try:
        done = 0
        while done < steps:
            algorithm.training_step()
            done = int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime")))
        seconds = time.process_time() - cpu
        module = algorithm.env_runner.module

        def columns(player: Player) -> Any:
            seen = {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in player.observation.items()}
            return seen if options.features or options.window else seen["state"]

        def act(player: Player) -> np.ndarray:
            with torch.no_grad():
                found: np.ndarray = (
                    module.compute_q_values({"obs": columns(player)})["qf_preds"].argmax(dim=1).numpy()
                )
            return found

        result = {
            "pool": pool, "method": method, "seed": seed, "steps": done, "cpu_s": round(seconds, 1),
            "parameters": sum(p.numel() for p in module.parameters()),
            "trained": play(act, options, recipe.env, dict(recipe.env_config), games, 20_000 + seed),
        }  # fmt: skip
        result |= {"variant": method, "final": result["trained"]["score"]}  # the words of docs/results.md
        if unseen is not None:
            arguments = {**recipe.env_config, "opponents": unseen}
            result["unseen"] = play(act, options, recipe.env, arguments, games, 30_000 + seed)
    finally:
        algorithm.stop()
    return result


def rows(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the rows measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def run(given: argparse.Namespace) -> None:
    """Train what is missing."""
    import ray

    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    for seed in given.seeds:
        for pool in given.pools:
            for method in given.methods:
                if any((r["pool"], r["method"], r["seed"]) == (pool, method, seed) for r in rows(given.out)):
                    continue
                row = train(pool, method, seed, given.steps, given.games)
                append_row(given.out, row)
                shown = {part: round(row[part]["score"], 3) for part in ("trained", "unseen") if part in row}
                print(
                    pool,
                    method,
                    seed,
                    shown,
                    f"of {row['trained']['known']:.3f}, {row['cpu_s']} s",
                    flush=True,
                )


def cell(values: Sequence[float]) -> str:
    """Return the interquartile mean, from MIN_SEEDS seeds on with its 95 % interval."""
    shown = f"{float(iqm(values)):.3f}"
    if len(values) < MIN_SEEDS:
        return shown
    low, high = interval(values, iqm)
    return f"{shown} ({low:.3f} to {high:.3f})"


def report(path: Path) -> None:
    """Print the tables."""
    found = rows(path)
    for part in ("trained", "unseen"):
        print(f"\n{part}: pool | method | seeds | IQM score (95 %) | worst | optimum | seeds within 10 %")
        for pool in POOLS:
            for method in METHODS:
                mine = [r for r in found if (r["pool"], r["method"]) == (pool, method) and part in r]
                if not mine:
                    continue
                scores, known = [r[part]["score"] for r in mine], mine[0][part]["known"]
                good = sum(known - score <= 0.1 * abs(known) for score in scores)
                print(
                    f"| {pool} | {method} | {len(mine)} | {cell(scores)} | {min(scores):.3f} | {known:.3f} "
                    f"| {good} of {len(mine)} |"
                )
    print("\nloss of the chosen action by move 1, 3, 5, 10, 20, against the opponents trained on")
    for pool in POOLS:
        for method in METHODS:
            mine = [r for r in found if (r["pool"], r["method"]) == (pool, method)]
            if mine:
                curves = [r["trained"]["by_move"] for r in mine]
                shown = [np.mean([c[t] for c in curves if len(c) > t] or [np.nan]) for t in (0, 2, 4, 9, 19)]
                print(f"| {pool} | {method} | {' | '.join(f'{x:.3f}' for x in shown)} |")
    print("\nreward per round in the first game against an opponent, the second, ...")
    for pool in STAYS:
        for method in METHODS:
            games = [r["trained"]["by_game"] for r in found if (r["pool"], r["method"]) == (pool, method)]
            if games:
                print(f"| {pool} | {method} | {' | '.join(f'{x:.3f}' for x in np.mean(games, axis=0))} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--pools", nargs="+", default=["styles"], choices=sorted(POOLS), metavar="POOL")
    parser.add_argument(
        "--methods", nargs="+", default=["dqn", "concat"], choices=sorted(METHODS), metavar="METHOD"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=400_000, help="env steps of each training")
    parser.add_argument("--games", type=int, default=GAMES, help="greedy games per evaluation")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run(given) if given.what == "run" else report(given.out)


if __name__ == "__main__":
    main()
