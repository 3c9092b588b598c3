"""rlkit's side of benchmarks/maddpg_speed.py: MADDPG on simple_spread, timed by the lines it prints.

    python benchmarks/maddpg_run.py [--seconds 60] [--until -20] [--agents 3] [--envs 16]
        [--runners 0] [--vmas] [--warmup 4000]

Batch 1024, 64x64, one update of all agents per 100 env steps, one torch thread, continuous actions. Prints `{"event":
"begin"}` after learning has started and `{"event": "end", "steps": …}` at the end, one JSON object per line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections import deque
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
import torch

from rlkit.algos import MADDPGConfig
from rlkit.envs.make import env_creator
from rlkit.roster import PolicyMapping

LAST = 100  # episodes of the running return


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def build(options: argparse.Namespace) -> Any:
    from ray.tune.registry import register_env

    if options.vmas:
        env, env_config = "vmas/simple_spread", {"n_agents": options.agents, "max_steps": 25}
    else:
        env, env_config = (
            "pettingzoo/mpe2.simple_spread_v3",
            {"N": options.agents, "continuous_actions": True},
        )
    register_env(env, env_creator(env))
    config = MADDPGConfig().environment(env, env_config=env_config)
    agents = list(env_creator(env)(env_config).unwrapped.possible_agents)
    config.multi_agent(policies=set(agents), policy_mapping_fn=PolicyMapping({a: [a] for a in agents}))
    length = 25 if not options.vmas else max(1, 1600 // options.envs)
    config.env_runners(
        num_env_runners=options.runners, num_envs_per_env_runner=options.envs, rollout_fragment_length=length
    )
    config.training(
        train_batch_size_per_learner=1024, training_intensity=10.24, num_steps_sampled_before_learning_starts=2_000,
        actor_lr=options.actor_lr, critic_lr=options.critic_lr, tau=0.01, gamma=0.95,
        exploration_noise=[[0, options.noise], [options.anneal, 0.05]],
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 200_000},
    )  # fmt: skip
    config.rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"})
    config.reporting(
        min_sample_timesteps_per_iteration=400,
        min_time_s_per_iteration=0,
        metrics_num_episodes_for_smoothing=LAST,
    )
    return config.debugging(seed=options.seed, log_level="ERROR")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--until", type=float)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--envs", type=int, default=16)
    # Remote ones; they sample while the learner updates.
    parser.add_argument("--runners", type=int, default=0)
    parser.add_argument("--vmas", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--actor-lr", type=float, default=1e-3)
    parser.add_argument("--critic-lr", type=float, default=2e-3)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--anneal", type=int, default=50_000)
    parser.add_argument("--warmup", type=int, default=4_000)  # env steps; learning starts after 2,000
    parser.add_argument("--profile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    algorithm = build(options).build_algo()
    steps = 0
    while steps < options.warmup:
        steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
    say("begin", steps=steps)
    profile = None
    if options.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    begin, recent = time.monotonic(), deque([-1e9], maxlen=1)
    while time.monotonic() - begin < options.seconds:
        result = algorithm.train()
        recent.append(result["env_runners"].get("episode_return_mean", -1e9) / options.agents)
        if options.until is not None and recent[0] >= options.until:
            break
    steps = int(result["num_env_steps_sampled_lifetime"])
    if profile is not None:
        profile.disable()
        profile.dump_stats(options.profile)
    say("end", steps=steps, per_agent=recent[0])
    os._exit(0)


if __name__ == "__main__":
    main()
