"""CPU seconds of one DQN update: rlkit's learner against the same arithmetic in plain torch, and RLlib's learner.

    python benchmarks/offpolicy_update.py [--rounds 25] [--double]

CartPole's spaces, 256x256, batch 64, fused Adam, gradients clipped by global norm, one torch thread. The
three take turns; medians over the rounds. Bar: at most 1.3 x plain torch.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import nn

from rlkit.algos import DQNConfig

UPDATES, BATCH, LR, GAMMA, CLIP = 64, 64, 2.3e-3, 0.99, 10.0
BAR = 1.3


class Net(nn.Module):
    """The layers of RLlib's default module: two ReLU layers and linear heads."""

    def __init__(self, dueling: bool):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.advantage = nn.Linear(256, 2)
        self.value = nn.Linear(256, 1) if dueling else None

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        hidden = self.body(obs)
        advantage: torch.Tensor = self.advantage(hidden)
        if self.value is None:
            return advantage
        return advantage - advantage.mean(-1, keepdim=True) + self.value(hidden)


def learner(config: Any, double: bool) -> Any:
    config.environment("CartPole-v1").training(
        lr=LR, gamma=GAMMA, train_batch_size_per_learner=BATCH, grad_clip=CLIP, double_q=double, dueling=double,
        target_network_update_freq=UPDATES, replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 10_000},
    )  # fmt: skip
    model = {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu", "head_fcnet_hiddens": []}
    return config.rl_module(model_config=model).build_learner(env=gym.make("CartPole-v1"))


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (UPDATES, BATCH)
    return {
        "obs": rng.random((*shape, 4), np.float32),
        "new_obs": rng.random((*shape, 4), np.float32),
        "actions": rng.integers(0, 2, shape),
        "rewards": np.ones(shape, np.float32),
        "terminateds": rng.random(shape) < 0.05,
        "weights": np.ones(shape, np.float32),
        "n_step": np.ones(shape, np.float32),
    }


def plain_torch(batch: dict[str, np.ndarray], double: bool) -> Callable[[], None]:
    net = Net(double)
    target = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    names = ("obs", "new_obs", "actions", "rewards", "terminateds")
    tensors = [torch.from_numpy(batch[name]) for name in names]

    def run() -> None:
        for k in range(UPDATES):
            obs, new_obs, actions, rewards, ended = (t[k] for t in tensors)
            if double:
                q, q_next = net(torch.cat([obs, new_obs])).chunk(2)
            else:
                q = net(obs)
            with torch.no_grad():
                q_target = target(new_obs)
                best = (q_next if double else q_target).argmax(1, keepdim=True)
                y = rewards + GAMMA * (1 - ended.float()) * q_target.gather(1, best).squeeze(1)
            loss = nn.functional.huber_loss(q.gather(1, actions[:, None]).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()
        target.load_state_dict(net.state_dict())

    return run


def rlkits(batch: dict[str, np.ndarray], double: bool) -> Callable[[], None]:
    made, clock = learner(DQNConfig(), double), iter(range(10**9))

    def run() -> None:
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: UPDATES * (next(clock) + 1)}
        chunk = {DEFAULT_MODULE_ID: batch}
        made.update_from_columns([chunk], num_updates=UPDATES, env_steps=UPDATES, timesteps=timesteps)

    return run


def rllibs(batch: dict[str, np.ndarray], double: bool) -> Callable[[], None]:
    made, clock = learner(RLlibDQNConfig(), double), iter(range(10**9))

    def run() -> None:
        for k in range(8):
            rows = SampleBatch({name: torch.from_numpy(values[k]) for name, values in batch.items()})
            timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: next(clock)}
            made.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: rows}, BATCH), timesteps=timesteps)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--double", action="store_true", help="double and dueling, RLlib's default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = columns()
    runs = {
        "plain torch": (plain_torch(batch, options.double), UPDATES),
        "rlkit": (rlkits(batch, options.double), UPDATES),
        "RLlib Learner.update": (rllibs(batch, options.double), 8),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(options.rounds + 2):
        for name, (run, updates) in runs.items():
            begin = time.process_time()
            run()
            if i >= 2:
                times[name].append((time.process_time() - begin) / updates * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:22} {value:7.3f} ms CPU per update")
    ratio = medians["rlkit"] / medians["plain torch"]
    print(f"rlkit / plain torch: {ratio:.2f}   (bar: at most {BAR}) {'PASS' if ratio <= BAR else 'FAIL'}")


if __name__ == "__main__":
    main()
