"""Stable-Baselines3's SAC on Pendulum-v1 with rl-zoo's hyper-parameters, to a mean return of -200 over 20 episodes.

    python sb3_sac.py --seed 0 [--eval-every 500] [--max-steps 20000]

rl-zoo: learning rate 1e-3, everything else SB3's default (batch 256, one update per step, 256x256, 100 steps at
random first).
Runs in a virtual environment of its own (see ../peer_env.py). Prints one line of JSON.
"""

import argparse
import json
import time

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--eval-every", type=int, default=500)
parser.add_argument("--max-steps", type=int, default=20_000)
options = parser.parse_args()

torch.set_num_threads(1)
model = SAC(
    "MlpPolicy", make_vec_env("Pendulum-v1", 1, seed=options.seed), seed=options.seed, learning_rate=1e-3
)
callback = EvalCallback(
    make_vec_env("Pendulum-v1", 20, seed=10_000 + options.seed), n_eval_episodes=20, eval_freq=options.eval_every,
    deterministic=True, verbose=0, warn=False, callback_on_new_best=StopTrainingOnRewardThreshold(-200),
)  # fmt: skip
begin = time.process_time()
model.learn(options.max_steps, callback=callback)
seconds = time.process_time() - begin
print(
    json.dumps({"steps": model.num_timesteps, "cpu_s": seconds, "return": float(callback.best_mean_reward)})
)
