"""IPPO and MAPPO on mpe2's spread: speed against `rllib/PPO`, BenchMARL and XuanCe, growth with agents.

    python benchmarks/team_throughput.py [--runs 3] [--seconds 10]
    python benchmarks/team_throughput.py --peers [--runs 3] [--seconds 10]    # MAPPO against BenchMARL's and XuanCe's
    python benchmarks/team_throughput.py --growth [--seconds 10]     # IPPO and MAPPO at 2, 4, 8, 16 agents

One policy for all agents, 16 environments x 50 steps, minibatches of 600 agent steps (200 per agent, at most 800), 10
epochs, 64x64 tanh, one torch thread, a process each, one after the other; CPU seconds of the process that samples and
learns, from the second iteration on. Bars: at least 5 x rllib/PPO per CPU second; MAPPO at least 2 x the better of
BenchMARL and XuanCe by wall-clock, with the same networks, batch, minibatches and epochs.
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

from peer_env import BENCHMARL, BENCHMARL_NEEDS, XUANCE, XUANCE_NEEDS, python_of

os.environ.setdefault("OMP_NUM_THREADS", "1")

SPREAD = "pettingzoo/mpe2.simple_spread_v3"
BAR = 5.0


def policy(agent: str, *_: Any, **__: Any) -> str:
    return "p"


def algorithm(name: str, agents: int, critic: str) -> Any:
    import torch
    from ray.tune.registry import register_env

    from rlkit import registry
    from rlkit.envs.make import env_creator

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    register_env(SPREAD, env_creator(SPREAD))
    config = registry.resolve("algorithms", name)().environment(SPREAD, env_config={"N": agents})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=50)
    config.training(
        lr=1e-3, gamma=0.95, lambda_=0.9, train_batch_size_per_learner=800, num_epochs=10,
        minibatch_size=min(200 * agents, 800),  # RLlib compares it with env steps
        clip_param=0.2, vf_clip_param=1e9, vf_loss_coeff=0.5, use_kl_loss=False, grad_clip=0.5,
        **({"critic": critic} if critic != "local" else {}),
    )  # fmt: skip
    config.multi_agent(policies=["p"], policy_mapping_fn=policy)
    config.rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    config.reporting(min_time_s_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def speed(name: str, agents: int, critic: str, seconds: float) -> dict[str, float]:
    """Return the env steps per CPU second of this process, and per second."""
    made = algorithm(name, agents, critic)
    first = int(made.train()["num_env_steps_sampled_lifetime"])
    begin, wall = time.process_time(), time.monotonic()
    while time.process_time() - begin < seconds:
        last = int(made.train()["num_env_steps_sampled_lifetime"])
    cpu, wall = time.process_time() - begin, time.monotonic() - wall
    return {"steps_per_cpu_s": (last - first) / cpu, "steps_per_s": (last - first) / wall}


def measured(name: str, agents: int, critic: str, seconds: float) -> float:
    command = [sys.executable, __file__, "--one", name, str(agents), critic, "--seconds", str(seconds)]
    return told(name, command)["steps_per_cpu_s"]


def told(name: str, command: list[str]) -> dict[str, float]:
    """Run a contender; return the numbers of its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peers(runs: int, seconds: float) -> None:
    """MAPPO against BenchMARL's and XuanCe's in turn."""
    folder = Path(__file__).parent / "peers"
    benchmarl = python_of("benchmarl", BENCHMARL_NEEDS, BENCHMARL)
    xuance = python_of("xuance", XUANCE_NEEDS, XUANCE)
    commands = {
        "rlkit": [sys.executable, __file__, "--one", "PPO", "3", "centralized"],
        "BenchMARL": [benchmarl, str(folder / "benchmarl_mappo.py")],
        "XuanCe": [xuance, str(folder / "xuance_mappo.py")],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            found[name].append(told(name, [*command, "--seconds", str(seconds)]))
            print(name, {key: round(value) for key, value in found[name][-1].items()}, flush=True)
    ours = found.pop("rlkit")
    for key in ("steps_per_s", "steps_per_cpu_s"):
        bar = "   (bar: at least 2)" if key == "steps_per_s" else ""
        for name, theirs in found.items():
            ratio = statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))
            print(f"MAPPO, {key}: {ratio:.1f} x {name}{bar}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--one", nargs=3, help="measure this algorithm alone, in this process")
    options = parser.parse_args()
    if options.one:
        name, agents, critic = options.one
        print(json.dumps(speed(name, int(agents), critic, options.seconds)))
    elif options.peers:
        peers(options.runs, options.seconds)
    elif options.growth:
        for agents in (2, 4, 8, 16):
            found = {c: 1e3 / measured("PPO", agents, c, options.seconds) for c in ("local", "centralized")}
            shown = ", ".join(f"{critic} {ms:.3f}" for critic, ms in found.items())
            print(f"{agents:3} agents: ms of CPU per env step, critic {shown}", flush=True)
    else:
        found: dict[str, list[float]] = {"PPO": [], "rllib/PPO": []}
        for _ in range(options.runs):
            for name, values in found.items():
                values.append(measured(name, 3, "local", options.seconds))
                print(f"{name:10} {values[-1]:8.0f} env steps per CPU second", flush=True)
        ratio = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
        print(f"PPO / rllib/PPO {ratio:.2f} x   (bar: at least {BAR:g}) {'PASS' if ratio >= BAR else 'FAIL'}")


if __name__ == "__main__":
    main()
