"""AgileRL's MADDPG on mpe2 simple_spread, with the training loop of its documentation: see ../maddpg_speed.py.

    python agilerl_maddpg.py [--seconds 60] [--until -20]

Runs in a virtual environment of its own (see ../peer_env.py). Prints `{"event": "begin"}` after learning has started
and `{"event": "end", "steps": …}` at the end. One environment: AgileRL's vectorisation is one process per environment.
"""

import argparse
import json
import os
import time
from collections import deque

import numpy as np
import torch
from agilerl.algorithms.maddpg import MADDPG
from agilerl.components.data import MultiAgentTransition, transition_to_tensordict
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.vector.dummy_vec_env import PzDummyVecEnv
from mpe2 import simple_spread_v3

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=60.0)
parser.add_argument("--until", type=float)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--every", type=int, default=100)  # env steps per update
options = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(options.seed)
np.random.seed(options.seed)


def say(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


env = PzDummyVecEnv(simple_spread_v3.parallel_env(continuous_actions=True))
agents = list(env.possible_agents)
spaces = simple_spread_v3.parallel_env(continuous_actions=True)
layers = {"encoder_config": {"hidden_size": [64]}, "head_config": {"hidden_size": [64]}}
agent = MADDPG(
    [spaces.observation_space(a) for a in agents], [spaces.action_space(a) for a in agents], agent_ids=agents,
    O_U_noise=False, expl_noise=0.1, batch_size=1024, lr_actor=0.001, lr_critic=0.002, learn_step=options.every,
    gamma=0.95, tau=0.01, net_config=layers,
)  # fmt: skip
memory = ReplayBuffer(200_000)
agent.set_training_mode(True)
recent = deque(maxlen=100)
steps, score = 0, 0.0
observation, info = env.reset(seed=options.seed)


def advance(count):
    """The inner loop of `train_multi_agent_off_policy`."""
    global steps, score, observation, info
    for _ in range(count):
        action, raw_action = agent.get_action(obs=observation, infos=info)
        following, reward, termination, truncation, info = env.step(action)
        score += float(sum(np.asarray(r).sum() for r in reward.values()))
        transition = transition_to_tensordict(
            MultiAgentTransition(
                obs=observation, action=raw_action, reward=reward, next_obs=following, done=termination
            )
        )
        transition.batch_size = torch.Size([1])
        memory.add(transition)
        steps += 1
        if steps % options.every == 0 and steps >= 2000:
            agent.learn(memory.sample(agent.batch_size))
        observation = following
        if all(np.all(termination[a]) or np.all(truncation[a]) for a in agents):
            recent.append(score / len(agents))
            score = 0.0
            agent.reset_action_noise([0])
            observation, info = env.reset()


advance(4000)
say("begin", steps=steps)
begin = time.monotonic()
while time.monotonic() - begin < options.seconds:
    advance(500)
    mean = sum(recent) / len(recent)
    if options.until is not None and len(recent) == 100 and mean >= options.until:
        break
say("end", steps=steps, per_agent=mean)
os._exit(0)
