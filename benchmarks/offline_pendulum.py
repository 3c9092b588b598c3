"""MARWIL, CQL and IQL on Pendulum-v1, from recorded episodes, beside the policy that played them.

    python benchmarks/offline_pendulum.py [--seeds 3] [--out benchmarks/results/offline.jsonl]

The behaviour policy is the best checkpoint of sac_pendulum.yaml with sampled actions, 100 episodes (20,000 steps). BC
learns from them too, for what weighing adds to cloning. One line for each run: greedy return over 100 episodes.
`--steps` trains the behaviour policy shorter; `--episodes` records and plays fewer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from processes import append_row

import rlkit
from rlkit.replay.dataset import read_episodes

ROOT = Path(__file__).parents[1]
TRAINING: dict[str, dict[str, Any]] = {
    "BC": {"lr": 1e-3},
    # RLlib's average of squared advantages starts at 100 and moves by 1e-8 of the way, far from Pendulum's advantages.
    "MARWIL": {
        "lr": 1e-3,
        "beta": 1.0,
        "moving_average_sqd_adv_norm_start": 5000.0,
        "moving_average_sqd_adv_norm_update_rate": 1e-2,
    },
    "CQL": {"bc_iters": 1000, "min_q_weight": 1.0, "actor_lr": 3e-4, "critic_lr": 1e-3, "alpha_lr": 3e-4},
    "IQL": {"tau": 0.005, "beta": 0.5, "expectile": 0.8},
}


def recipe(algorithm: str, data: Path, seed: int, iterations: int) -> dict[str, Any]:
    """Return iterations of 200 updates of 256 rows."""
    every = min(10, iterations)
    return {
        "name": algorithm.lower(),
        "algorithm": algorithm,
        "env": "Pendulum-v1",
        "data": str(data),
        "seed": seed,
        "config": {
            "training": {"train_batch_size_per_learner": 256, **TRAINING[algorithm]},
            "offline_data": {"dataset_num_iters_per_learner": 200},
        },
        "stop": {"iterations": iterations},
        "evaluation": {"every": every, "episodes": 10},
        "checkpoint": {"every": every, "keep": 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--steps", type=int, help="env steps of the behaviour policy; default: the recipe's")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--algorithms", nargs="+", default=list(TRAINING), choices=TRAINING)
    parser.add_argument(
        "--data", type=Path, help="Recorded before, instead of training the behaviour policy."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "offline.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder, "pendulum.npz")
        if options.data is None:
            changes = {"stop": {"env_steps": options.steps}} if options.steps else {}
            behaviour = rlkit.train(ROOT / "configs" / "sac_pendulum.yaml", changes, out=folder)
            rlkit.evaluate(behaviour.path, episodes=options.episodes, seed=5000, explore=True, record=data)
        rows: list[dict[str, Any]] = [
            {
                "kind": "data",
                "name": "pendulum",
                "variant": "behaviour",
                "return": round(float(np.mean(read_episodes(data).returns)), 1),
            }
        ]
        append_row(options.out, rows[0])
        for algorithm in options.algorithms:
            for seed in range(options.seeds):
                run = rlkit.train(recipe(algorithm, data, seed, options.iterations), out=folder)
                found = rlkit.evaluate(run.last_checkpoint, episodes=options.episodes).episode_return
                row = {
                    "name": "pendulum",
                    "variant": algorithm,
                    "seed": seed,
                    "return": round(found["mean"], 1),
                }
                row |= {
                    "env_steps": int(run.last_metrics["env_steps"]),
                    "wall_s": round(run.last_metrics["time_s"], 1),
                }
                append_row(options.out, row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
