"""XuanCe's MADDPG on mpe2 simple_spread with its own agent, environments and training loop: see ../maddpg_speed.py.

    python xuance_maddpg.py [--seconds 60] [--until -20] [--envs 1]

Runs in a virtual environment of its own (see ../peer_env.py). Prints `{"event": "begin"}` after learning has started
and `{"event": "end", "steps": …}` at the end. XuanCe imports `pettingzoo.mpe`, which is mpe2 today.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections import deque
from pathlib import Path

import mpe2
import torch
import xuance
import yaml
from xuance.common import MultiAgentBaseCallback
from xuance.environment import make_envs
from xuance.torch.agents import MADDPG_Agents

sys.modules["pettingzoo.mpe"] = mpe2
os.chdir(tempfile.mkdtemp(prefix="xuance-"))
torch.set_num_threads(1)
parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=60.0)
parser.add_argument("--until", type=float)
parser.add_argument("--envs", type=int, default=1)  # divides 100
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--every", type=int, default=100)  # env steps per update
options = parser.parse_args()


def say(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


configs = Path(xuance.__file__).parent / "configs"
settings = yaml.safe_load((configs / "basic.yaml").read_text())
settings |= yaml.safe_load((configs / "maddpg" / "mpe" / "simple_spread_v3.yaml").read_text())
# the matched work; what is not named here is XuanCe's recipe for this environment
settings |= {
    "parallels": options.envs, "batch_size": 1024, "training_frequency": options.every, "start_training": 2000,
    "use_parameter_sharing": False, "render": False, "seed": options.seed, "env_seed": options.seed,
    "learning_rate_actor": 0.001, "learning_rate_critic": 0.002, "tau": 0.01, "running_steps": 200_000,
}  # fmt: skip
recent = deque(maxlen=100)


class Watch(MultiAgentBaseCallback):
    def on_train_episode_info(self, infos=None, env_id=0, **kwargs):
        scores = infos[env_id]["episode_score"]
        recent.append(sum(scores.values()) / len(scores))


config = Namespace(**settings)
agent = MADDPG_Agents(config, make_envs(config), callback=Watch())
agent.train(4000 // options.envs)
say("begin", steps=int(agent.current_step))
begin = time.monotonic()
while time.monotonic() - begin < options.seconds:
    agent.train(1000 // options.envs)
    mean = sum(recent) / len(recent)
    if options.until is not None and len(recent) == 100 and mean >= options.until:
        break
say("end", steps=int(agent.current_step), per_agent=mean)
os._exit(0)
