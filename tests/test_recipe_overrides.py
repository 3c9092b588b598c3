"""Overrides: the same strictness as the file, and errors that name the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlkit import recipe as recipes
from rlkit.recipe import RecipeError, SearchSpace

GOOD = Path(__file__).parent / "recipes" / "good"
DQN = GOOD / "dqn_cartpole.yaml"


def problems(path: Path, overrides: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipes.load(path, overrides)
    return [str(p) for p in caught.value.problems]


def test_words() -> None:
    recipe = recipes.load(
        DQN,
        [
            "config.training.lr=3e-4",
            "seed=7",
            "model.hiddens=[64, 32]",
            "model.hiddens[1]=16",
            "callbacks.0.seconds=60",
            "tune.samples=4",
            "config.learners.num_learners=1",
            "config.training.gamma=!uniform [0.9, 0.99]",
            "stop={env_steps: 1e5}",
            "name='010'",
        ],
    )
    assert recipe.config["training"]["lr"] == 3e-4
    assert recipe.seed == 7
    assert recipe.model == {"name": "mlp", "hiddens": [64, 16], "activation": "relu"}
    assert recipe.callbacks[0] == {"name": "TimeLimit", "seconds": 60}
    assert recipe.tune.samples == 4
    assert recipe.config["learners"] == {"num_learners": 1}
    assert recipe.config["training"]["gamma"] == SearchSpace("uniform", (0.9, 0.99))
    assert recipe.stop == {"env_steps": 100000}
    assert recipe.name == "010"


def test_mapping() -> None:
    recipe = recipes.load(
        DQN,
        {
            "seed": np.int64(3),
            "config.training.lr": np.float32(0.5),
            "model": {"name": "mlp", "hiddens": (8, 8)},
            "env_config.sutton_barto_reward": np.bool_(True),
            "config.training.gamma": SearchSpace("grid", (0.9, 0.99)),
        },
    )
    assert recipe.seed == 3
    assert recipe.config["training"]["lr"] == 0.5
    assert recipe.model == {"name": "mlp", "hiddens": [8, 8]}
    assert recipe.env_config == {"sutton_barto_reward": True}
    assert recipe.config["training"]["gamma"] == SearchSpace("grid", (0.9, 0.99))


def test_null_removes_a_section_and_is_a_value_elsewhere() -> None:
    recipe = recipes.load(
        DQN, ["model=null", "checkpoint.best=eval/episode_length", "checkpoint.keep=null", "seed=null"]
    )
    assert recipe.model is None
    assert recipe.checkpoint.keep is None
    assert recipe.seed is None
    recipe = recipes.load(DQN, {"callbacks": None, "config.env_runners": None})
    assert recipe.callbacks == []
    assert "env_runners" not in recipe.config


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "config.training.lrr=1",
            "command line: config.training.lrr: DQN's training has no argument 'lrr'; did you mean 'lr'?",
        ),
        (
            "config.training.lr=-1",
            "command line: config.training.lr: lr is out of range: must be above 0, got -1",
        ),
        ("seed=no", "command line: seed: YAML readers disagree"),
        ("seed=1:30", "command line: seed: 1:30 is a number in base 60"),
        (
            "seed=#3",
            "command line: seed: the value is a comment of YAML, so nothing stands behind the =, got '#3'",
        ),
        ("seed", "command line: an override is KEY=VALUE, got 'seed'"),
        ("=3", "command line: not a key"),
        ("a..b=3", "command line: not a key, got 'a..b'"),
        ("seed=[1", "command line: seed: the value cannot be read"),
        (
            "seed=!!python/name:os.system",
            "command line: seed: the tag !!python/name:os.system would run code",
        ),
        (
            "callbacks[5].name=x",
            "command line: callbacks[5].name: callbacks has no item 5; fix: items are 0 to 1",
        ),
        ("seed.x=1", "command line: seed.x: seed is the value '0'; it has no x"),
        ("modell.hiddens=[1]", "command line: modell: unknown key 'modell'; did you mean 'model'?"),
        (
            "env=CartPol-v1",
            "command line: env: there is no environment 'CartPol-v1'; did you mean 'CartPole-v1'?",
        ),
    ],
)
def test_errors_name_the_command_line(word: str, expected: str) -> None:
    assert any(text.startswith(expected) for text in problems(DQN, [word])), problems(DQN, [word])


def test_mapping_errors() -> None:
    assert any(
        "overrides: config.training.lr: .nan is not a finite number" in t
        for t in problems(DQN, {"config.training.lr": float("nan")})
    )
    assert any("object is not plain data" in text for text in problems(DQN, {"config.training.lr": object()}))
    assert any("a key must be text" in text for text in problems(DQN, {"model": {1: 2}}))


def test_problems_of_file_and_command_line_come_together(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("algorithm: PPO\nenv: CartPole-v1\nsed: 3\nstop: {iterations: 3}\n")
    found = problems(path, ["config.training.gamma=2"])
    assert len(found) == 2
    assert any(f"{path}:3:1: sed: unknown key 'sed'; did you mean 'seed'?" in text for text in found)


def test_an_override_below_an_alias_leaves_the_anchor(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "algorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 3}\n"
        "model: {fcnet_hiddens: &h [64, 64], head_fcnet_hiddens: *h}\n"
    )
    recipe = recipes.load(path, ["model.head_fcnet_hiddens[0]=8"])
    assert recipe.model == {"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": [8, 64]}


def test_an_override_inside_a_list_leaves_the_other_alias(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "algorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 3}\n"
        "callbacks: [&c {name: StopOnPlateau, metric: episode_return, patience: 3}, *c]\n"
    )
    recipe = recipes.load(path, ["callbacks[1].patience=9"])
    assert [callback["patience"] for callback in recipe.callbacks] == [3, 9]
