"""Env steps per CPU second of `PPO` against `rllib/PPO`, Stable-Baselines3 and plain torch, on CartPole-v1.

    python benchmarks/onpolicy_throughput.py [--runs 5] [--seconds 10] [--profile]

All four: 8 environments x 256 steps, minibatches of 64, 10 epochs, 64x64 tanh for the policy and again for the value
function, lr 3e-4, one torch thread, a process each, one after the other. CPU seconds of the process that samples and
learns, from the second iteration on. Bars: at least 3 x rllib/PPO, 1.5 x Stable-Baselines3, 0.9 x plain torch.

`--profile` prints where the time of ours goes instead.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from peer_env import SB3, python_of

PEERS = Path(__file__).parent / "peers"
BARS = {"rllib/PPO": 3.0, "Stable-Baselines3": 1.5, "plain torch": 0.9}


def algorithm(name: str) -> Any:
    import torch

    from rlkit import registry

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    config = registry.resolve("algorithms", name)().environment("CartPole-v1")
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    config.training(
        lr=3e-4, gamma=0.99, lambda_=0.95, train_batch_size_per_learner=2048, minibatch_size=64, num_epochs=10,
        clip_param=0.2, vf_clip_param=1e9, vf_loss_coeff=0.5, entropy_coeff=0.0, use_kl_loss=False, grad_clip=0.5,
    )  # fmt: skip
    config.rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    config.reporting(min_time_s_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def steps_of(result: dict[str, Any]) -> int:
    return int(result["num_env_steps_sampled_lifetime"])


def speed(name: str, seconds: float) -> float:
    """Return the env steps per CPU second of this process."""
    made = algorithm(name)
    first = steps_of(made.train())
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        last = steps_of(made.train())
    return (last - first) / (time.process_time() - begin)


def profile() -> None:
    import cProfile
    import pstats

    made = algorithm("PPO")
    made.train()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(3):
        result = made.train()
    profiler.disable()
    print({name: round(value, 3) for name, value in result["timers"].items() if isinstance(value, float)})
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one", help="measure this algorithm alone, in this process")
    options = parser.parse_args()
    if options.profile:
        profile()
        return
    if options.one:
        print(json.dumps({"steps_per_cpu_s": speed(options.one, options.seconds)}))
        return
    seconds = ["--seconds", str(options.seconds)]
    commands = {
        "PPO": [sys.executable, __file__, "--one", "PPO", *seconds],
        "plain torch": [sys.executable, str(PEERS / "plain_ppo.py"), *seconds],
        "Stable-Baselines3": [python_of("sb3", SB3), str(PEERS / "sb3_ppo.py"), "--speed", *seconds],
        "rllib/PPO": [sys.executable, __file__, "--one", "rllib/PPO", *seconds],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-3000:]}")
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1])["steps_per_cpu_s"])
    for name, values in found.items():
        shown = ", ".join(f"{value:.0f}" for value in sorted(values))
        print(f"{name:18} {statistics.median(values):8.0f} env steps per CPU second   ({shown})")
    for name, bar in BARS.items():
        ratios = [ours / theirs for ours, theirs in zip(found["PPO"], found[name], strict=True)]
        ratio = statistics.median(ratios)
        verdict = "PASS" if ratio >= bar else "FAIL"
        print(f"PPO / {name:18} {ratio:5.2f} x   (bar: at least {bar}) {verdict}")


if __name__ == "__main__":
    main()
