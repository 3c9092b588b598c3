"""PPO on CartPole-v1 as a plain torch loop, after CleanRL's ppo.py: SyncVectorEnv, whole-array GAE, fused Adam.

    python plain_ppo.py --seed 0 --seconds 20

Same arithmetic as benchmarks/onpolicy_throughput.py gives to rlkit. CleanRL's loop over one step of GAE at a time and
its unfused Adam are left out. Prints one line of JSON: env steps per CPU second after the first iteration.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.categorical import Categorical

ENVS, LENGTH, MINIBATCH, EPOCHS = 8, 256, 64, 10
GAMMA, LAMBDA, CLIP, VF_COEFF, MAX_NORM, LR = 0.99, 0.95, 0.2, 0.5, 0.5, 3e-4


def network(outputs: int, gain: float) -> nn.Module:
    def layer(inputs: int, size: int, gain: float = 2**0.5) -> nn.Linear:
        made = nn.Linear(inputs, size)
        nn.init.orthogonal_(made.weight, gain)
        nn.init.zeros_(made.bias)
        return made

    return nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, outputs, gain))


class Loop:
    """One call is one iteration: `LENGTH` steps of every environment, then `EPOCHS` epochs."""

    def __init__(self, seed: int):
        torch.manual_seed(seed)
        self.envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * ENVS)
        self.actor, self.critic = network(2, 0.01), network(1, 1.0)
        self.params = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.params, LR, fused=True)
        self.obs = self.envs.reset(seed=seed)[0]
        self.fresh = np.zeros(ENVS, bool)

    def __call__(self) -> int:
        return self.learn(*self.sample())

    def sample(self) -> tuple[Any, ...]:
        obs = np.zeros((LENGTH + 1, ENVS, 4), np.float32)
        actions = np.zeros((LENGTH, ENVS), np.int64)
        logps, rewards = np.zeros((LENGTH, ENVS), np.float32), np.zeros((LENGTH, ENVS), np.float32)
        terminated, done = np.zeros((LENGTH, ENVS), bool), np.zeros((LENGTH, ENVS), bool)
        fresh = np.zeros((LENGTH + 1, ENVS), bool)
        for t in range(LENGTH):
            obs[t], fresh[t] = self.obs, self.fresh
            with torch.no_grad():
                policy = Categorical(logits=self.actor(torch.from_numpy(obs[t])), validate_args=False)
                action = policy.sample()
                logps[t] = policy.log_prob(action).numpy()
            actions[t] = action.numpy()
            self.obs, rewards[t], terminated[t], truncated, _ = self.envs.step(actions[t])
            done[t] = terminated[t] | truncated
            self.fresh = done[t] & ~fresh[t]
        obs[LENGTH], fresh[LENGTH] = self.obs, self.fresh
        return obs, actions, logps, rewards, terminated, done, fresh

    def learn(
        self, obs: Any, actions: Any, logps: Any, rewards: Any, terminated: Any, done: Any, fresh: Any
    ) -> int:
        with torch.no_grad():
            values = self.critic(torch.from_numpy(obs)).squeeze(-1).numpy()
        advantages = rewards + GAMMA * values[1:] * ~terminated - values[:-1]
        for t in range(LENGTH - 2, -1, -1):
            advantages[t] += GAMMA * LAMBDA * (~done[t] & ~fresh[t + 1]) * advantages[t + 1]
        steps = ~fresh[:-1]
        flat = [
            obs[:-1][steps],
            actions[steps],
            logps[steps],
            advantages[steps],
            (advantages + values[:-1])[steps],
        ]
        b_obs, b_actions, b_logps, b_adv, b_targets = (torch.from_numpy(x) for x in flat)
        b_adv = (b_adv - b_adv.mean()) / (b_adv.std() + 1e-8)
        size = len(b_obs)
        for _ in range(EPOCHS):
            order = torch.randperm(size)
            for start in range(0, size, MINIBATCH):
                rows = order[start : start + MINIBATCH]
                policy = Categorical(logits=self.actor(b_obs[rows]), validate_args=False)
                ratio = (policy.log_prob(b_actions[rows]) - b_logps[rows]).exp()
                adv = b_adv[rows]
                gain = torch.min(adv * ratio, adv * ratio.clamp(1 - CLIP, 1 + CLIP))
                errors = (self.critic(b_obs[rows]).squeeze(-1) - b_targets[rows]) ** 2
                loss = (VF_COEFF * errors - gain).mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.params, MAX_NORM)
                self.optimizer.step()
        return size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loop = Loop(options.seed)
    loop()
    steps, begin = 0, time.process_time()
    while time.process_time() - begin < options.seconds:
        steps += loop()
    print(json.dumps({"steps_per_cpu_s": steps / (time.process_time() - begin)}))


if __name__ == "__main__":
    main()
