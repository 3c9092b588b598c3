"""XuanCe's MAPPO on mpe2 simple_spread with its own agent, environments and training loop: see ../team_throughput.py.

    python xuance_mappo.py [--seconds 30] [--vectorize DummyVecMultiAgentEnv]

Runs in a virtual environment of its own (see ../peer_env.py). Prints env steps per second and per CPU second of this
process, from the second batch on. XuanCe imports `pettingzoo.mpe`, which is mpe2 today.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import mpe2
import torch
import xuance
import yaml
from xuance.environment import make_envs
from xuance.torch.agents import MAPPO_Agents

sys.modules["pettingzoo.mpe"] = mpe2
os.chdir(tempfile.mkdtemp(prefix="xuance-"))
torch.set_num_threads(1)
parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=30.0)
# XuanCe's own choice is SubprocVecMultiAgentEnv
parser.add_argument("--vectorize", default="DummyVecMultiAgentEnv")
options = parser.parse_args()

configs = Path(xuance.__file__).parent / "configs"
settings = yaml.safe_load((configs / "basic.yaml").read_text())
settings |= yaml.safe_load((configs / "mappo" / "mpe" / "simple_spread_v3.yaml").read_text())
# the matched work; what is not named here is XuanCe's recipe for this environment
settings |= {
    "continuous_action": False, "policy": "Categorical_MAAC_Policy", "vectorize": options.vectorize,
    "parallels": 16, "buffer_size": 800, "n_epochs": 10, "n_minibatch": 4, "learning_rate": 1e-3, "gamma": 0.95,
    "gae_lambda": 0.9, "clip_range": 0.2, "vf_coef": 0.5, "ent_coef": 0.0, "grad_clip_norm": 0.5, "activation": "tanh",
    "representation_hidden_size": [64], "actor_hidden_size": [64], "critic_hidden_size": [64],
    "use_value_clip": False, "use_value_norm": False, "use_huber_loss": False, "render": False,
    "seed": 0, "env_seed": 0, "running_steps": 100_000_000,
}  # fmt: skip
del settings["normalize"]  # XuanCe asks whether the word is there
config = Namespace(**settings)
agent = MAPPO_Agents(config, make_envs(config))
agent.train(100)  # steps of each of the 16 environments: two batches
first, wall, cpu = int(agent.current_step), time.monotonic(), time.process_time()
while time.monotonic() - wall < options.seconds:
    agent.train(50)
done = int(agent.current_step) - first
shown = {
    "steps_per_s": done / (time.monotonic() - wall),
    "steps_per_cpu_s": done / (time.process_time() - cpu),
}
print(json.dumps(shown), flush=True)
os._exit(0)
