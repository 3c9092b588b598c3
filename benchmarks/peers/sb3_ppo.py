"""Stable-Baselines3's PPO on CartPole-v1.

    python sb3_ppo.py --seed 0                   # rl-zoo's parameters, to a greedy return of 475 over 100 episodes
    python sb3_ppo.py --speed --seconds 20       # env steps per CPU second in the setting of onpolicy_throughput.py

Runs in a virtual environment of its own (see ../peer_env.py). Prints one line of JSON.
"""

import argparse
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("--speed", action="store_true")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--seconds", type=float, default=20)
parser.add_argument("--eval-every", type=int, default=4096)
parser.add_argument("--max-steps", type=int, default=100_000)
options = parser.parse_args()
torch.set_num_threads(1)
envs = make_vec_env("CartPole-v1", 8, seed=options.seed)


class Clock(BaseCallback):
    """CPU seconds of the iterations after the first one, until the time is over."""

    begin = 0.0
    first = 0

    def _on_step(self) -> bool:
        return not self.begin or time.process_time() - self.begin < options.seconds

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps and not self.begin:
            self.begin, self.first = time.process_time(), self.model.num_timesteps
        self.end, self.last = time.process_time(), self.model.num_timesteps


if options.speed:
    model = PPO(
        "MlpPolicy", envs, seed=options.seed, learning_rate=3e-4, n_steps=256, batch_size=64, n_epochs=10,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
    )  # fmt: skip
    clock = Clock()
    model.learn(10**9, callback=clock)
    print(json.dumps({"steps_per_cpu_s": (clock.last - clock.first) / (clock.end - clock.begin)}))
else:
    model = PPO(
        "MlpPolicy", envs, seed=options.seed, n_steps=32, batch_size=256, n_epochs=20, gamma=0.98, gae_lambda=0.8,
        learning_rate=lambda left: 1e-3 * left, clip_range=lambda left: 0.2 * left, ent_coef=0.0,
    )  # fmt: skip
    # one environment per episode: SB3's quickest way through 100 of them
    callback = EvalCallback(
        make_vec_env("CartPole-v1", 100, seed=10_000 + options.seed), n_eval_episodes=100,
        eval_freq=options.eval_every // 8, deterministic=True, verbose=0, warn=False,
        callback_on_new_best=StopTrainingOnRewardThreshold(475),
    )  # fmt: skip
    begin = time.process_time()
    model.learn(options.max_steps, callback=callback)
    cpu = time.process_time() - begin
    print(
        json.dumps({"steps": model.num_timesteps, "cpu_s": cpu, "return": float(callback.best_mean_reward)})
    )
