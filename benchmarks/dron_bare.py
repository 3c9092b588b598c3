"""DRON in plain PyTorch, without RLlib: the calibration that rlkit's DRON is measured against.

    python benchmarks/dron_bare.py --pool styles --model moe --seed 0 [--steps 400000] [--json out.json]
    python benchmarks/dron_bare.py --pool '{random: 4, seed: 7}' --model concat --normalize --target 50

64 table games, double DQN with Huber loss, Adam 1e-3, discount .9, 100k uniform replay, two updates of 512
per 64 env steps, target copy every 200 updates, epsilon .3 -> .1 over 200k steps, hidden 50, K = 3, repaired
features. Prints the greedy score over 2,000 games at 50k, 100k, 150k, 200k, 300k and 400k steps, and the
seconds of the whole run.

`--normalize` scales the state as DRON's `normalize_state` does; `--target` is how many updates lie between two copies;
the model `type` is told the opponent's style and sees no features.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from dron_games import Player, evaluate
from torch import nn

from rlkit.algos.dron_rules import PAPER_FEATURES
from rlkit.algos.opponents.history import FeatureOptions
from rlkit.envs.soccer_games import SoccerGames

CHECKS = (50_000, 100_000, 150_000, 200_000, 300_000, 400_000)
GAMES, BATCH, CAPACITY, STARTS = 64, 512, 100_000, 3_200
H, K, STATE, ACTIONS = 50, 3, 15, 5


class Flat(nn.Module):
    def __init__(self, opponent: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(STATE + opponent, H), nn.ReLU(), nn.Linear(H, H), nn.ReLU(), nn.Linear(H, ACTIONS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Concat(nn.Module):
    def __init__(self, opponent: int):
        super().__init__()
        self.state, self.opponent = nn.Linear(STATE, H), nn.Linear(opponent, H)
        self.both, self.q = nn.Linear(2 * H, H), nn.Linear(H, ACTIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([self.state(x[:, :STATE]), self.opponent(x[:, STATE:])], dim=1)
        return self.q(torch.relu(self.both(torch.relu(hidden))))


class Mixture(nn.Module):
    def __init__(self, opponent: int):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(STATE, H), nn.ReLU(), nn.Linear(H, H), nn.ReLU())
        self.gate = nn.Sequential(nn.Linear(STATE + opponent, H), nn.ReLU(), nn.Linear(H, K))
        self.experts = nn.Linear(H, K * ACTIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.gate(x), dim=1)
        values = self.experts(self.trunk(x[:, :STATE])).view(-1, K, ACTIONS)
        return torch.einsum("bk,bka->ba", weights, values)


MODELS = {"dqn": Flat, "flat": Flat, "concat": Concat, "moe": Mixture, "type": Flat}


def run(
    pool: Any,
    model: str,
    seed: int,
    steps: int,
    eval_games: int = 2000,
    normalize: bool = False,
    copy: int = 200,
) -> dict:
    """Train once and return scores by env step, the outcome per style at the end, and seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    options = FeatureOptions(() if model in ("dqn", "type") else PAPER_FEATURES)
    games = SoccerGames(GAMES, opponents=pool, seed=seed)
    player = Player(games, options)
    varies = np.ptp(games.tables.observation, axis=0) > 0

    def seen(player: Player) -> np.ndarray:
        x = player.flat
        if normalize:
            x[:, :STATE] = (x[:, :STATE] - 0.5) * 12**0.5 * varies
        if model == "type":
            x = np.concatenate([x, np.eye(len(games.names), dtype=np.float32)[player.games.style]], axis=1)
        return x

    size = seen(player).shape[1]
    q, target = MODELS[model](size - STATE), MODELS[model](size - STATE)
    target.load_state_dict(q.state_dict())
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-3, fused=True)
    data = {
        "x": np.zeros((CAPACITY, size), np.float32), "y": np.zeros((CAPACITY, size), np.float32),
        "a": np.zeros(CAPACITY, np.int64), "r": np.zeros(CAPACITY, np.float32), "d": np.zeros(CAPACITY, np.float32),
    }  # fmt: skip
    filled = head = updates = 0
    scores: dict[int, float] = {}

    def greedy(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return q(torch.from_numpy(x)).argmax(dim=1).numpy()

    for step in range(0, steps, GAMES):
        epsilon = max(0.1, 0.3 - 0.2 * step / 200_000)
        x = seen(player)
        actions = np.where(rng.random(GAMES) < epsilon, rng.integers(0, ACTIONS, GAMES), greedy(x))
        move = player.step(actions)
        rows = (head + np.arange(GAMES)) % CAPACITY
        data["x"][rows], data["y"][rows], data["a"][rows] = x, seen(player), actions
        data["r"][rows], data["d"][rows] = move.reward, move.done
        player.restart(np.flatnonzero(move.done))
        head, filled = (head + GAMES) % CAPACITY, min(filled + GAMES, CAPACITY)
        if step + GAMES >= STARTS:
            for _ in range(2):
                pick = rng.integers(0, filled, BATCH)
                b = {name: torch.from_numpy(values[pick]) for name, values in data.items()}
                with torch.no_grad():
                    best = q(b["y"]).argmax(dim=1, keepdim=True)
                    goal = b["r"] + 0.9 * (1 - b["d"]) * target(b["y"]).gather(1, best)[:, 0]
                loss = nn.functional.huber_loss(q(b["x"]).gather(1, b["a"][:, None])[:, 0], goal)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                updates += 1
                if updates % copy == 0:
                    target.load_state_dict(q.state_dict())
        for check in CHECKS:
            if step < check <= step + GAMES:
                scores[check] = evaluate(
                    lambda p: greedy(seen(p)), options, eval_games, opponents=pool, seed=10_000 + seed
                )["all"]["score"]
                print(f"{pool} {model} seed {seed}: {check:>7,} {scores[check]:.3f}", flush=True)
    final = evaluate(lambda p: greedy(seen(p)), options, eval_games, opponents=pool, seed=20_000 + seed)
    return {
        "pool": pool, "model": model, "seed": seed, "steps": steps, "updates": updates, "scores": scores,
        "final": {name: row["score"] for name, row in final.items()},
        "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", default="styles", type=yaml.safe_load, help="a soccer pool, as YAML")
    parser.add_argument("--model", default="moe", choices=sorted(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400_000)
    parser.add_argument("--normalize", action="store_true")
    parser.add_argument("--target", type=int, default=200, help="updates between two copies of the target")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row = run(
        arguments.pool, arguments.model, arguments.seed, arguments.steps,
        normalize=arguments.normalize, copy=arguments.target,
    )  # fmt: skip
    print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
