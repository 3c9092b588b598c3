"""Stable-Baselines3's DQN on CartPole-v1 with rl-zoo's hyper-parameters, to a greedy return of 475 over 100 episodes.

    python sb3_dqn.py --seed 0 [--eval-every 2000] [--max-steps 100000]

Runs in a virtual environment of its own (see ../peer_env.py). Prints one line of JSON.
"""

import argparse
import json
import time

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--eval-every", type=int, default=2000)
parser.add_argument("--max-steps", type=int, default=100_000)
options = parser.parse_args()

torch.set_num_threads(1)
# rl-zoo anneals exploration over 16 % of 50,000 steps
annealed = 0.16 * 50_000 / options.max_steps
model = DQN(
    "MlpPolicy", make_vec_env("CartPole-v1", 1, seed=options.seed), seed=options.seed, learning_rate=2.3e-3,
    batch_size=64, buffer_size=100_000, learning_starts=1000, gamma=0.99, target_update_interval=10, train_freq=256,
    gradient_steps=128, exploration_fraction=annealed, exploration_final_eps=0.04,
    policy_kwargs={"net_arch": [256, 256]},
)  # fmt: skip
# one environment per episode: SB3's quickest way through 100 of them
callback = EvalCallback(
    make_vec_env("CartPole-v1", 100, seed=10_000 + options.seed), n_eval_episodes=100, eval_freq=options.eval_every,
    deterministic=True, verbose=0, warn=False, callback_on_new_best=StopTrainingOnRewardThreshold(475),
)  # fmt: skip
begin = time.process_time()
model.learn(options.max_steps, callback=callback)
seconds = time.process_time() - begin
print(
    json.dumps({"steps": model.num_timesteps, "cpu_s": seconds, "return": float(callback.best_mean_reward)})
)
