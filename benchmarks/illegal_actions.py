"""Counts illegal actions of every algorithm that takes action masks, in training, exploring and greedy. The bar is 0.

    python benchmarks/illegal_actions.py [CASE…] [--steps 100000]

Every case trains through a recipe on a small environment of its kind, whose mask is drawn anew in every step, and is
evaluated greedily in between. An illegal action would be paid better than all others. `--steps` is shared by the cases.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit import registry
from rlkit.launch.build import build
from rlkit.launch.spaces import check_spaces
from rlkit.recipe import Recipe
from rlkit.roster import choices_of, mask_parts, random_action

LENGTH = 8
COUNTS: Counter[str] = Counter()  # env steps, actions, illegal ones, of all environments of this process
LURE = 5.0
ACTIONS = {"discrete": gym.spaces.Discrete(5), "several": gym.spaces.MultiDiscrete([3, 2, 4])}


class Player:
    """One agent: numbers and a mask in every step; the action with the largest number among those allowed pays 1."""

    def __init__(self, actions: gym.Space, key: str, in_parts: bool):
        self.actions, self.key, self.in_parts = actions, key, in_parts
        self.sizes = choices_of(actions)
        parts = [gym.spaces.Box(0, 1, (n,), np.int8) for n in self.sizes]
        whole = gym.spaces.Box(0, 1, (sum(self.sizes),), np.int8)
        numbers = gym.spaces.Box(-1.0, 1.0, (sum(self.sizes),), np.float32)
        mask = gym.spaces.Tuple(parts) if in_parts else whole
        self.space = gym.spaces.Dict({key: numbers, "action_mask": mask})
        self.draw(np.random.default_rng(0), False)

    def draw(self, rng: np.random.Generator, over: bool) -> dict[str, Any]:
        """Return the next observation; after the end of an episode nothing is allowed, as in PettingZoo."""
        self.numbers = rng.uniform(-1, 1, sum(self.sizes)).astype(np.float32)
        drawn = [rng.random(n) < 0.5 for n in self.sizes]
        for part in drawn:
            part[rng.integers(len(part))] = True
        masks = [part.astype(np.int8) * (not over) for part in drawn]
        self.mask = tuple(masks) if self.in_parts else np.concatenate(masks)
        return {self.key: self.numbers, "action_mask": self.mask}

    def pay(self, action: Any) -> float:
        chosen = np.atleast_1d(action)
        allowed = mask_parts(self.mask, self.actions)
        numbers = np.split(self.numbers, np.cumsum(self.sizes)[:-1])
        COUNTS["actions"] += 1
        if not all(part[a] for part, a in zip(allowed, chosen, strict=True)):
            COUNTS["illegal"] += 1
            return LURE
        best = [np.where(part, n, -2.0).argmax() for part, n in zip(allowed, numbers, strict=True)]
        return float(np.mean(best == chosen))


class Alone(gym.Env):
    """One agent. `ends` says how episodes end: terminated or truncated."""

    def __init__(
        self,
        kind: str = "discrete",
        key: str = "observation",
        in_parts: bool = False,
        ends: str = "terminated",
    ):
        self.player, self.ends = Player(ACTIONS[kind], key, in_parts), ends
        self.observation_space, self.action_space = self.player.space, self.player.actions
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time = 0
        # an opponent, for DRON
        return self.player.draw(self.rng, False), {"opponent_action": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        COUNTS["steps"] += 1
        reward = self.player.pay(action)
        self.time += 1
        over = self.time >= LENGTH
        observation, info = self.player.draw(self.rng, over), {"opponent_action": int(self.rng.integers(5))}
        return (
            observation,
            reward,
            over and self.ends == "terminated",
            over and self.ends == "truncated",
            info,
        )


class Team(MultiAgentEnv):
    """Two agents that act in every step."""

    def __init__(self, kind: str = "discrete", ends: str = "terminated"):
        super().__init__()
        self.players = {a: Player(ACTIONS[kind], "observation", False) for a in ("a_0", "a_1")}
        self.ends = ends
        self.agents = self.possible_agents = list(self.players)
        self.observation_spaces = {a: p.space for a, p in self.players.items()}
        self.action_spaces = {a: p.actions for a, p in self.players.items()}
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time = 0
        return {a: p.draw(self.rng, False) for a, p in self.players.items()}, {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        COUNTS["steps"] += 1
        rewards = {a: self.players[a].pay(action) for a, action in action_dict.items()}
        self.time += 1
        over = self.time >= LENGTH
        seen = {a: p.draw(self.rng, over) for a, p in self.players.items()}
        ended = {"__all__": over and self.ends == "terminated"}
        return seen, rewards, ended, {"__all__": over and self.ends == "truncated"}, {}


MLP: dict[str, Any] = {"model": {"name": "mlp", "hiddens": [32]}}
LSTM: dict[str, Any] = {"model": {"name": "lstm", "cell": 16, "hiddens": [16], "max_seq_len": 8}}
ONE, TWO = {"env": "masked_alone"}, {"env": "masked_team"}
SEVERAL, IN_PARTS = {"kind": "several"}, {"kind": "several", "in_parts": True}
REPLAY = {
    "train_batch_size_per_learner": 32, "num_steps_sampled_before_learning_starts": 64, "training_intensity": 8,
    "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 5000},
}  # fmt: skip
BATCH = {"train_batch_size_per_learner": 128}
PPO = {**BATCH, "minibatch_size": 64, "num_epochs": 2}


def _case(
    algorithm: str, where: Mapping[str, Any], training: Mapping[str, Any], *more: Mapping[str, Any]
) -> dict:
    made = {"algorithm": algorithm, **where, "config": {"training": dict(training)}}
    for part in more:
        made |= part
    return made


def _explore(name: str, **options: Any) -> dict[str, Any]:
    return {"exploration": {"type": name, **options}}


CASES: dict[str, dict[str, Any]] = {
    "ppo": _case("PPO", ONE, PPO, MLP),
    "ppo lstm": _case("PPO", ONE, PPO, LSTM, {"env_config": {"key": "obs"}}),
    "ppo several": _case("PPO", ONE, PPO, MLP, {"env_config": SEVERAL}),
    "ppo several, in parts": _case("PPO", ONE, PPO, LSTM, {"env_config": IN_PARTS}),
    "ppo epsilon": _case("PPO", ONE, PPO, MLP, {"env_config": IN_PARTS}, _explore("EpsilonGreedy")),
    "ppo random": _case("PPO", ONE, PPO, MLP, _explore("Random", random_timesteps=200)),
    "ppo team": _case("PPO", TWO, PPO, MLP, {"policies": "shared"}),
    "impala": _case("IMPALA", ONE, BATCH, MLP),
    "appo lstm": _case("APPO", ONE, BATCH, LSTM),
    "dqn": _case("DQN", ONE, {**REPLAY, "n_step": 3}, MLP),
    "dqn truncated": _case(
        "DQN", ONE, REPLAY, MLP, {"env_config": {"ends": "truncated", "key": "observations"}}
    ),
    "dqn distributional": _case(
        "DQN", ONE, {**REPLAY, "num_atoms": 11, "v_min": 0.0, "v_max": 8.0, "double_q": True}, MLP
    ),
    "dqn noisy": _case("DQN", ONE, REPLAY, MLP, _explore("ParameterNoise", random_timesteps=100)),
    "dqn boltzmann": _case("DQN", ONE, REPLAY, MLP, _explore("SoftQ")),
    "dqn random": _case("DQN", ONE, REPLAY, MLP, _explore("Random", random_timesteps=200)),
    "dqn lstm": _case("DQN", ONE, REPLAY, LSTM),
    "dqn team": _case("DQN", TWO, REPLAY, MLP, {"policies": "shared"}),
    "sac": _case("SAC", ONE, {**REPLAY, "target_entropy": 1.0}, MLP),
    "sac truncated": _case("SAC", ONE, REPLAY, MLP, {"env_config": {"ends": "truncated"}}),
    "sac lstm": _case("SAC", ONE, {**REPLAY, "target_entropy": 1.0, "burn_in_len": 2}, LSTM),
    "maddpg": _case("MADDPG", TWO, REPLAY, MLP),
    "maddpg lstm": _case("MADDPG", TWO, {**REPLAY, "burn_in_len": 2}, LSTM),
    "matd3 gru": _case(
        "MATD3", TWO, REPLAY, {"model": {**LSTM["model"], "name": "gru"}}, {"env_config": SEVERAL}
    ),
    "maddpg several": _case("MADDPG", TWO, REPLAY, MLP, {"env_config": {**SEVERAL, "ends": "truncated"}}),
    "dron": _case("DRON", TWO, {**REPLAY, "features": ["last_action", "clock"], "history": 2}),
    "dron alone": _case(
        "DRON", ONE, {**REPLAY, "features": ["last_action"], "num_atoms": 11, "v_min": 0.0, "v_max": 8.0}
    ),
    "dron lstm": _case("DRON", TWO, {**REPLAY, "features": ["last_action", "clock"]}, LSTM),
    "dron flat": _case("DRON", ONE, {**REPLAY, "network": "flat", "features": []}),
}


def register() -> None:
    """Make the environments known by name."""
    for name, env in {"masked_alone": Alone, "masked_team": Team}.items():
        registry.register_env(name, env)


def play(name: str, steps: int) -> tuple[Counter[str], dict[str, Any]]:
    """Train a case for so many env steps; return what was counted, and the last result."""
    COUNTS.clear()
    sections = {
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 4, "rollout_fragment_length": 16}
    }
    if CASES[name]["algorithm"] in ("IMPALA", "APPO"):
        sections["learners"] = {"num_learners": 0, "num_aggregator_actors_per_learner": 0}
    case = {**CASES[name], "config": {**CASES[name]["config"], **sections}}
    case |= {
        "name": "masked",
        "seed": 0,
        "stop": {"env_steps": steps},
        "evaluation": {"every": 1, "episodes": 4},
    }
    recipe = Recipe.from_dict(case)
    config = build(recipe)
    check_spaces(config, recipe)
    algorithm = config.build_algo()
    try:
        result: dict[str, Any] = {}
        while COUNTS["steps"] < steps:
            result = algorithm.train()
        return COUNTS, result
    finally:
        algorithm.stop()


def check_env() -> None:
    """Random allowed actions are allowed: the environments count rightly."""
    for env in (Alone(), Alone("several", in_parts=True)):
        seen, _ = env.reset(seed=0)
        for _ in range(LENGTH):
            seen, *_ = env.step(random_action(seen, env.observation_space, env.action_space))
    assert (COUNTS["actions"], COUNTS["illegal"]) == (2 * LENGTH, 0), COUNTS
    env = Alone()
    seen, _ = env.reset(seed=0)
    env.step(int(np.argmin(seen["action_mask"])))
    assert COUNTS["illegal"] == 1


def main() -> int:
    import ray

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--steps", type=int, default=100_000)
    asked = parser.parse_args()
    names = asked.cases or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"unknown cases {unknown}; expected some of {list(CASES)}")
    register()
    check_env()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    total: Counter[str] = Counter()
    for name in names:
        counts, _ = play(name, max(1, asked.steps // len(names)))
        total += counts
        print(
            f"{name:24s} {counts['steps']:8d} env steps {counts['actions']:8d} actions {counts['illegal']:6d} illegal",
            flush=True,
        )
    print(
        f"{'all':24s} {total['steps']:8d} env steps {total['actions']:8d} actions {total['illegal']:6d} illegal"
    )
    return int(total["illegal"] > 0)


if __name__ == "__main__":
    import illegal_actions  # by this name; a class of __main__ is pickled with counters of its own

    sys.exit(illegal_actions.main())
