"""Fields of `model:` and arguments of sections that change nothing are refused; the table of them is walked anew."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rlkit
from rlkit.errors import UsageError
from rlkit.launch.spaces import forget_rosters, refuse
from rlkit.recipe import from_mapping
from rlkit.recipe.problems import RecipeError
from rlkit.recipe.without_effect import table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def walker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walk_model", ROOT / "scripts/walk_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_fresh_for_vectors(walker: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole walk takes minutes; here PPO and SAC, whose networks have every kind of field between them."""
    monkeypatch.setattr(walker, "OBSERVATIONS", {"vector": walker.OBSERVATIONS["vector"]})
    monkeypatch.setattr(walker, "ACTIONS", {"Box": walker.ACTIONS["Box"]})
    monkeypatch.setattr(walker, "NETWORKS", ("default",))
    assert table()["needs"] == walker.NEEDS
    for row in walker.table(["PPO", "SAC"]):
        known = next(known for known in table()["families"] if known["algorithms"] == row["algorithms"])
        assert set(row["contexts"]) <= set(known["contexts"])
        for field in {*row["idle"], *known["idle"]}:
            here = [context for context in known["idle"].get(field, []) if context in row["contexts"]]
            assert row["idle"].get(field, []) == here, field


def test_every_algorithm_was_walked(walker: ModuleType) -> None:
    assert [row["algorithms"] for row in table()["families"]] == list(walker.families().values())


def test_the_docs_are_those_of_the_table(walker: ModuleType) -> None:
    assert walker.DOCS.read_text() == walker.markdown(table())


@pytest.mark.parametrize(
    ("algorithm", "section", "argument", "value"),
    [
        ("PPO", "learners", "learner_config_dict", {"mine": 1}),
        ("DQN", "training", "num_epochs", 3),
        ("PPO", "evaluation", "evaluation_sample_timeout_s", 5.0),
    ],
)
def test_arguments_that_nothing_reads_are_refused(
    algorithm: str, section: str, argument: str, value: Any
) -> None:
    with pytest.raises(RecipeError, match=f"nothing reads {section}.{argument}"):
        from_mapping({**recipe(algorithm), "config": {section: {argument: value}}})


def recipe(algorithm: str = "PPO", env: str = "CartPole-v1", **model: Any) -> dict[str, Any]:
    return {"algorithm": algorithm, "env": env, "model": model, "stop": {"env_steps": 100_000}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (recipe(use_lstm=True, lstm_use_prev_action=True), "lstm_use_prev_action, and no network of PPO"),
        (recipe(use_lstm=True, lstm_use_prev_reward=True), "lstm_use_prev_reward, and no network of PPO"),
        (recipe(lstm_cell_size=64), "no effect without use_lstm"),
        (recipe(fcnet_kernel_initializer_kwargs={"std": 1.0}), "no effect without fcnet_kernel_initializer"),
        (recipe(head_fcnet_activation="elu"), "no effect without head_fcnet_hiddens"),
        (recipe(free_log_std=True), "an effect for Box actions alone"),
        (recipe("SAC", "Pendulum-v1", use_lstm=True), "SAC takes no LSTM"),
        (recipe("SAC", "Pendulum-v1", name="mlp", use_lstm=True), "SAC takes no LSTM"),
        (recipe("DQN", vf_share_layers=False), "no network of DQN reads it"),
        (recipe("DQN", fusionnet_hiddens=[32]), "no network of DQN reads it"),
        (recipe("DRON", head_fcnet_hiddens=[32]), "no network of DRON reads it"),
        (recipe(name="mlp", max_seq_len=32), "max_seq_len has no effect without use_lstm"),
        (recipe("SAC", "Pendulum-v1", name="mlp", max_seq_len=32), "no effect without a recurrent model"),
        (recipe("MADDPG", "Pendulum-v1", name="mlp", max_seq_len=32), "no effect without a recurrent model"),
        (
            recipe("SAC", "Pendulum-v1", name="mlp", fusionnet_hiddens=[], fusionnet_activation="relu"),
            "no effect where fusionnet_hiddens is empty",
        ),
    ],
    ids=lambda value: " ".join([value["algorithm"], *value["model"]]) if isinstance(value, dict) else "",
)
def test_fields_without_effect_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        from_mapping(values)
    assert message in str(error.value)
    assert "fix: " in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        recipe(use_lstm=True, lstm_cell_size=64, max_seq_len=10),
        recipe(use_lstm=False, lstm_cell_size=256, vf_share_layers=True),  # defaults are no news
        recipe(fcnet_hiddens=[32], head_fcnet_hiddens=[16], head_fcnet_activation="elu"),
        recipe("PPO", "Pendulum-v1", free_log_std=True),
        recipe("SAC", "Pendulum-v1", name="mlp", fusionnet_hiddens=[32]),
        recipe(name="gru", max_seq_len=32),
        {
            **recipe("SAC", "Pendulum-v1", name="gru", max_seq_len=32),
            "config": {
                "training": {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 5000}}
            },
        },
        recipe("PPO", name="mlp", use_lstm=True, max_seq_len=32),
        recipe("DQN", use_lstm={"grid_search": [True, False]}, lstm_cell_size=64),
    ],
)
def test_fields_that_work_are_taken(values: dict[str, Any]) -> None:
    from_mapping(values)


class Sees(gym.Env):
    action_space = gym.spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...]):
        self.observation_space = gym.spaces.Box(0, 1, shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        ((3,), {"conv_filters": [[4, 4, 2]]}, "model.conv_filters: .*for pictures"),
        ((16, 16, 3), {"fcnet_hiddens": [32]}, "model.fcnet_hiddens: .*for vectors"),
        ((3,), {"fcnet_hiddens": [32]}, None),
        ((16, 16, 3), {"conv_filters": [[4, 4, 2]]}, None),
    ],
)
def test_networks_for_something_else_are_refused_when_spaces_are_known(
    shape: tuple[int, ...], model: dict[str, Any], message: str | None
) -> None:
    rlkit.register_env("sees_some_shape", Sees)
    forget_rosters()
    values = from_mapping({**recipe(env="sees_some_shape", **model), "env_config": {"shape": list(shape)}})
    if message is None:
        refuse(values)
    else:
        with pytest.raises(UsageError, match=re.compile(message)):
            refuse(values)
