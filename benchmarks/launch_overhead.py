"""What rlkit costs over a plain `tune.run` of the same AlgorithmConfig, whole process, and the cost of light commands.

    python benchmarks/launch_overhead.py [--runs 5]

The learning rate is next to nothing, so that both play the same episodes: the cost of an update of RLlib's DQN
depends on how long the sampled episodes are, and its replay buffer is not seeded in the plain script.

Bars: at most 3 % more CPU seconds; `rlkit --help` 0.3 s and `rlkit check` 1 s of CPU. Medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from processes import measure

ROOT = Path(__file__).parents[1]
STEPS = 60_000
RECIPE = f"""\
name: overhead
algorithm: rllib/DQN
env: CartPole-v1
seed: 0
config:
  training: {{lr: 1e-12, train_batch_size_per_learner: 32}}
  env_runners: {{num_env_runners: 0, num_envs_per_env_runner: 16, rollout_fragment_length: 4}}
  reporting: {{min_sample_timesteps_per_iteration: 1000, min_time_s_per_iteration: 0}}
stop: {{env_steps: {STEPS}}}
checkpoint: {{every: 10}}
"""
PLAIN = f"""\
import logging, sys
import ray
from ray import tune
from ray.rllib.algorithms.dqn import DQN, DQNConfig
ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
config = (
    DQNConfig()
    .environment("CartPole-v1")
    .debugging(seed=0)
    .training(lr=1e-12, train_batch_size_per_learner=32)
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=4)
    .reporting(min_sample_timesteps_per_iteration=1000, min_time_s_per_iteration=0)
)
tune.run(
    DQN, config=config, stop={{"num_env_steps_sampled_lifetime": {STEPS}}}, verbose=0, storage_path=sys.argv[1],
    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=10, num_to_keep=3, checkpoint_at_end=True),
)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    env = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory() as folder:
        recipe, plain = Path(folder, "overhead.yaml"), Path(folder, "plain.py")
        recipe.write_text(RECIPE)
        plain.write_text(PLAIN)
        commands = {
            "rlkit": [sys.executable, "-m", "rlkit", "train", str(recipe), "--out", f"{folder}/ours"],
            "plain": [sys.executable, str(plain), f"{folder}/plain"],
        }
        cpu: dict[str, list[float]] = {"rlkit": [], "plain": []}
        wall: dict[str, list[float]] = {"rlkit": [], "plain": []}
        for number in range(runs):
            for name, command in commands.items():
                cost = measure(command, env)
                assert cost.code == 0, name
                cpu[name].append(cost.cpu)
                wall[name].append(cost.wall)
                print(f"run {number}: {name:<6} {cost.cpu:6.1f} s CPU  {cost.wall:6.1f} s wall", flush=True)
    ratios = [a / b for a, b in zip(cpu["rlkit"], cpu["plain"], strict=True)]
    extra = statistics.median(ratios) - 1
    print(
        f"\nCPU, rlkit over a plain tune.run, {STEPS} env steps of rllib/DQN: median {100 * extra:+.1f} % (bar: +3 %)"
    )
    print(f"medians: {statistics.median(cpu['rlkit']):.1f} and {statistics.median(cpu['plain']):.1f} s CPU, "
          f"{statistics.median(wall['rlkit']):.1f} and {statistics.median(wall['plain']):.1f} s wall")  # fmt: skip
    recipe_file = str(ROOT / "configs" / "dqn_cartpole.yaml")
    for words, bar in ((["--help"], 0.3), (["check", recipe_file], 1.0)):
        costs = [measure([sys.executable, "-m", "rlkit", *words], env).cpu for _ in range(5)]
        print(f"rlkit {words[0]:<7} {statistics.median(costs):.2f} s CPU (bar: {bar} s)")


if __name__ == "__main__":
    main()
