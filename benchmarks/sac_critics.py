"""CPU seconds of one SAC update by how its critics join observation and action.

    python benchmarks/sac_critics.py [--rounds 9] [--batch 256] [--size 256]

Pendulum's module with two layers of `--size`; one torch thread; the three take turns; medians over the rounds. RLlib's
own critic has a tower for the observation, one for the action and layers behind both; `mlp` has the first and the last;
with `fusionnet_hiddens: []` it has one on both, as in SAC's paper.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit.algos import SACConfig
from rlkit.models import module_spec

UPDATES = 16


def models(size: int) -> dict[str, dict[str, Any]]:
    mlp = {"name": "mlp", "hiddens": [size, size], "orthogonal": False}
    rllibs = {"fcnet_hiddens": [size, size], "fcnet_activation": "relu", "fusionnet_hiddens": [size]}
    return {
        "RLlib's networks": rllibs,
        f"mlp, fusionnet_hiddens: [{size}]": {**mlp, "fusionnet_hiddens": [size]},
        "mlp, fusionnet_hiddens: []": {**mlp, "fusionnet_hiddens": []},
    }


def learner(model: dict[str, Any], batch: int) -> Any:
    config = SACConfig().environment("Pendulum-v1").training(train_batch_size_per_learner=batch)
    return config.rl_module(rl_module_spec=module_spec(config, model)).build_learner(
        env=gym.make("Pendulum-v1")
    )


def columns(batch: int) -> dict[str, np.ndarray]:
    rng, shape = np.random.default_rng(0), (UPDATES, batch)
    return {
        "obs": rng.random((*shape, 3), np.float32),
        "new_obs": rng.random((*shape, 3), np.float32),
        "actions": rng.uniform(-1, 1, (*shape, 1)).astype(np.float32),
        "rewards": rng.random(shape, np.float32),
        "terminateds": rng.random(shape) < 0.05,
        "weights": np.ones(shape, np.float32),
        "n_step": np.ones(shape, np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = columns(options.batch)
    made = {name: learner(model, options.batch) for name, model in models(options.size).items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(options.rounds + 1):
        for name, one in made.items():
            begin = time.process_time()
            one.update_from_columns(
                [{DEFAULT_MODULE_ID: batch}], num_updates=UPDATES, env_steps=UPDATES, timesteps={}
            )
            if number:
                times[name].append((time.process_time() - begin) / UPDATES * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        weights = sum(p.numel() for p in made[name].module[DEFAULT_MODULE_ID].parameters())
        ratio = value / medians["RLlib's networks"]
        print(
            f"{name:32} {value:7.2f} ms CPU per update, {ratio:.2f} of RLlib's; {weights:,} weights with targets"
        )


if __name__ == "__main__":
    main()
