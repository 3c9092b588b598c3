"""Every model in every algorithm with every kind of space: one training iteration, or a reason before it begins."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit import registry
from rlkit.errors import UsageError
from rlkit.launch.build import build
from rlkit.launch.spaces import check_spaces
from rlkit.recipe import Recipe

pytestmark = pytest.mark.usefixtures("ray_local")

VECTOR, IMAGE = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
OBSERVES: dict[str, gym.Space] = {
    "vector": VECTOR,
    "image": IMAGE,
    "one of five": gym.spaces.Discrete(5),
    "dict": gym.spaces.Dict({"a": VECTOR, "b": gym.spaces.Discrete(3)}),
    "entities": gym.spaces.Box(-1.0, 1.0, (4, 3)),
    "masked": gym.spaces.Dict({"observation": VECTOR, "action_mask": gym.spaces.Box(0, 1, (4,), np.int8)}),
}
ACTS: dict[str, gym.Space] = {"Discrete": gym.spaces.Discrete(4), "Box": gym.spaces.Box(-1.0, 1.0, (2,))}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hiddens": [8]},
    "cnn": {"filters": [[4, 3, 2]], "hidden": 8},
    "lstm": {"cell": 4, "hiddens": [8]},
    "gru": {"cell": 4, "hiddens": [8]},
    "attention": {"window": 3, "size": 4, "heads": 2, "hiddens": [8]},
    "multi_input": {"hiddens": [8], "fuse": [8]},
    "entities": {"size": 4, "heads": 2, "hiddens": [8]},
}
ON = {"train_batch_size_per_learner": 64}
OFF = {
    "train_batch_size_per_learner": 16, "num_steps_sampled_before_learning_starts": 16, "training_intensity": 1,
    "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 500},
}  # fmt: skip
# offline algorithms read recorded episodes (tests/test_offline.py)
ALGORITHMS: dict[str, dict[str, Any]] = {
    "PPO": {**ON, "minibatch_size": 32, "num_epochs": 1},
    "APPO": ON, "IMPALA": ON, "DQN": OFF, "SAC": OFF, "TQC": OFF, "MADDPG": OFF, "MATD3": OFF,
    "DRON": {**OFF, "network": "flat", "features": []},
}  # fmt: skip
OFFLINE = ("BC", "MARWIL", "CQL", "IQL")
NO_MODEL = ("DreamerV3",)
SEQUENCE = {"max_seq_len": 4}


class Game:
    """Episodes of five steps; the reward is 1 for the first action, or for large Box actions."""

    def __init__(self, observes: str, acts: str):
        self.space, self.actions = OBSERVES[observes], ACTS[acts]
        self.rng = np.random.default_rng(0)
        self.space.seed(0)

    def seen(self) -> Any:
        found = self.space.sample()
        if isinstance(found, Mapping) and "action_mask" in found:
            found["action_mask"] = np.array([1, 0, 1, 1], np.int8)
        return found

    def pay(self, action: Any) -> float:
        if isinstance(self.space, gym.spaces.Dict) and "action_mask" in self.space.spaces:
            assert int(action) != 1, "an action that the mask does not allow"
        return float(np.mean(action) > 0.5)


class Alone(gym.Env):
    def __init__(self, observes: str, acts: str):
        self.game = Game(observes, acts)
        self.observation_space, self.action_space = self.game.space, self.game.actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.time = 0
        return self.game.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        return self.game.seen(), self.game.pay(action), self.time == 5, False, {}


class Team(MultiAgentEnv):
    def __init__(self, observes: str, acts: str):
        super().__init__()
        self.games = {agent: Game(observes, acts) for agent in ("a", "b")}
        self.agents = self.possible_agents = list(self.games)
        self.observation_spaces = {a: g.space for a, g in self.games.items()}
        self.action_spaces = {a: g.actions for a, g in self.games.items()}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.time = 0
        return {a: g.seen() for a, g in self.games.items()}, {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self.time += 1
        over = {"__all__": self.time == 5}
        rewards = {a: self.games[a].pay(action) for a, action in action_dict.items()}
        return {a: g.seen() for a, g in self.games.items()}, rewards, over, {"__all__": False}, {}


@pytest.fixture(autouse=True)
def games() -> Any:
    """The environments by name, and gone after the tests."""
    for name, env in {"alone": Alone, "team": Team}.items():
        registry.register_env(f"every_{name}", env)
    yield
    for name in ("alone", "team"):
        registry.TABLES["envs"].pop(f"every_{name}", None)


def reason(algorithm: str, model: str, observes: str, acts: str) -> str | None:
    """What a combination is refused for, a pattern; None where it trains."""
    if algorithm in ("DQN", "DRON") and acts == "Box":
        return "needs discrete actions|action_mask" if observes == "masked" else "needs discrete actions"
    if algorithm == "TQC" and acts == "Discrete":
        return "TQC"
    if observes == "masked" and acts == "Box":
        return "action_mask"
    if algorithm == "TQC" and observes == "dict":
        return "TQC reads one array|takes an image|entities|takes no recurrent model"
    if algorithm == "DRON" and observes not in ("vector", "masked"):
        return "DRON"
    sees = "vector" if observes == "masked" else observes
    if model == "cnn" and sees != "image":
        return "takes an image"
    if model == "multi_input" and sees != "dict":
        return "takes a Dict or Tuple"
    if model == "entities" and sees != "entities":
        return "entities"
    if algorithm == "TQC" and model in ("lstm", "gru", "attention"):
        return "takes no recurrent model"
    return None


def train(algorithm: str, model: str, observes: str, acts: str) -> None:
    team = algorithm in ("MADDPG", "MATD3")
    options = MODELS[model] | (SEQUENCE if model in ("lstm", "gru", "attention") else {})
    sections: dict[str, Any] = {
        "training": ALGORITHMS[algorithm],
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 2, "rollout_fragment_length": 16},
        "reporting": {"min_sample_timesteps_per_iteration": 32, "min_time_s_per_iteration": 0},
    }
    if algorithm in ("IMPALA", "APPO"):
        sections["learners"] = {"num_learners": 0, "num_aggregator_actors_per_learner": 0}
    recipe = Recipe.from_dict(
        {
            "name": "every", "algorithm": algorithm, "seed": 0, "stop": {"env_steps": 32}, "config": sections,
            "env": "every_team" if team else "every_alone", "env_config": {"observes": observes, "acts": acts},
            "model": {"name": model, **options},
        }
    )  # fmt: skip
    config = build(recipe)
    check_spaces(config, recipe)
    trained = config.build_algo()
    try:
        learners: dict[str, Any] = {}
        # IMPALA and APPO learn beside the sampling: the first results may hold no loss yet.
        for _ in range(50):
            learners = learners or trained.train().get("learners", {})
    finally:
        trained.stop()
    losses = [v for found in learners.values() for name, v in found.items() if name.endswith("loss")]
    assert losses
    assert np.isfinite(losses).all()


def one(algorithm: str, model: str, observes: str, acts: str) -> None:
    expected = reason(algorithm, model, observes, acts)
    if expected is None:
        train(algorithm, model, observes, acts)
        return
    with pytest.raises(UsageError, match=expected):
        train(algorithm, model, observes, acts)


def test_every_registered_name_is_here() -> None:
    ours = {name for name in registry.TABLES["algorithms"] if not name.startswith("rllib/")}
    assert {*ALGORITHMS, *OFFLINE, *NO_MODEL} >= ours
    assert set(MODELS) == {
        name for name, e in registry.TABLES["models"].items() if e.module.startswith("rlkit.")
    }


@pytest.mark.parametrize(
    ("algorithm", "model", "observes", "acts"),
    [
        ("SAC", "attention", "dict", "Box"),
        ("MATD3", "lstm", "image", "Box"),
        ("DRON", "gru", "masked", "Discrete"),
        ("DQN", "entities", "entities", "Discrete"),
        ("TQC", "gru", "vector", "Box"),
        ("TQC", "mlp", "vector", "Discrete"),
        ("TQC", "multi_input", "dict", "Box"),
        ("SAC", "mlp", "image", "Discrete"),
        ("DRON", "cnn", "image", "Discrete"),
    ],
)
def test_a_sample_trains_or_is_refused(algorithm: str, model: str, observes: str, acts: str) -> None:
    one(algorithm, model, observes, acts)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "model"), itertools.product(ALGORITHMS, MODELS))
def test_all_train_or_are_refused(algorithm: str, model: str) -> None:
    failed = []
    for observes, acts in itertools.product(OBSERVES, ACTS):
        try:
            one(algorithm, model, observes, acts)
        except (Exception, pytest.fail.Exception) as error:
            failed.append(f"{observes}, {acts}: {type(error).__name__}: {str(error)[:300]}")
    assert not failed, "\n".join(failed)
