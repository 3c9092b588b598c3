"""Curricula from recipes: checked with lines, built, evaluated on their tasks, and read back from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.curriculum import TYPES, active
from rlkit.curriculum.randomise import DomainRandomisation
from rlkit.curriculum.schema import SPECS
from rlkit.envs.gridworld import GridWorld
from rlkit.launch.build import build
from rlkit.metrics import tidy
from rlkit.play.evaluation import make_checked

DOCS = (Path(__file__).parents[1] / "docs" / "curriculum.md").read_text()

RECIPE = """
name: kit
algorithm: PPO
env: grid_world
env_config: {size: 3}
seed: 0
config:
  training: {train_batch_size_per_learner: 60, minibatch_size: 60, num_epochs: 1}
  env_runners: {num_env_runners: 0, num_envs_per_env_runner: 2}
model: {fcnet_hiddens: [4]}
curriculum:
  type: lessons
  success: {info: success}
  evaluate_on: each
  lessons:
    - {name: near, task: {distance: 1}, until: {measure: steps, threshold: 100}}
    - {name: far, task: {distance: 4}}
stop: {env_steps: 200}
evaluation: {every: 1, episodes: 6}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("threshold: 100", "treshold: 100", 16, "did you mean 'threshold'"),
        ("distance: 4", "distance: {uniform: [4, 2]}", 17, "lo 4 > hi 2"),
        (
            "{name: far, task: {distance: 4}}",
            "{name: far, task: {}, until: {measure: steps, threshold: 1}}",
            17,
            "is the last one",
        ),
        ("measure: steps", "measure: stpes", 16, "did you mean 'steps'"),
        ("type: lessons", "type: lesons", 12, "did you mean 'lessons'"),
        ("evaluate_on: each", "evaluate_on: evry", 14, "expected one of"),
    ],
)  # fmt: skip
def test_mistakes_are_shown_with_their_line(old, new, line, message, tmp_path):
    assert old in RECIPE
    problems = [str(p) for p in recipes.check([write(tmp_path, RECIPE.replace(old, new))])]
    assert all(f":{line}:" in text for text in problems), problems
    assert any(message in text for text in problems), problems


def test_a_right_recipe_has_no_problems(tmp_path):
    assert recipes.check([write(tmp_path, RECIPE)]) == []


def test_progress_takes_the_run_s_env_steps_from_stop(tmp_path):
    text = RECIPE.replace("measure: steps, threshold: 100", "measure: progress, threshold: 0.5")
    assert recipes.check([write(tmp_path, text)]) == []
    config = build(recipes.load(write(tmp_path, text)))
    assert config.callbacks_class[-1].options["total_steps"] == 200
    without = text.replace("stop: {env_steps: 200}", "stop: {iterations: 5}")
    assert any("env steps of the run" in str(p) for p in recipes.check([write(tmp_path, without)]))


def test_a_recipe_trains_through_its_lessons_and_is_evaluated_on_each(tmp_path, ray_local):
    algorithm = build(recipes.load(write(tmp_path, RECIPE))).build_algo()
    try:
        rows = [tidy(algorithm.train()) for _ in range(3)]
        assert [row["curriculum/lesson"] for row in rows] == [0, 0, 1]
        assert {"curriculum/eval/near", "curriculum/eval/far"} <= set(rows[0])
        # Greedy episodes of exact evaluation: the same weights give the same mean over the six of them.
        each = (rows[0]["curriculum/eval/near"] + rows[0]["curriculum/eval/far"]) / 2
        assert rows[0]["eval/episode_return"] == pytest.approx(each)
        assert rows[1]["curriculum/task/distance"] == 1.0
        checkpoint = algorithm.save_to_path(tmp_path / "checkpoint")
    finally:
        algorithm.stop()
    _evaluation_env_of(checkpoint)


def _evaluation_env_of(checkpoint: Any) -> None:
    from rlkit.curriculum.evaluation_env import prepared_from
    from rlkit.envs.gridworld import GridWorld

    section = {**recipes.load(_again(checkpoint)).curriculum, "evaluate_on": "current"}
    env = prepared_from(section, checkpoint, lambda task: GridWorld(size=3, **task))
    env.reset(seed=5)
    assert env.unwrapped.distance == 4


def test_an_evaluation_of_a_checkpoint_knows_how_long_its_run_is(tmp_path: Path) -> None:
    progress = RECIPE.replace("measure: steps, threshold: 100", "measure: progress, threshold: 0.5")
    recipe = recipes.load(write(tmp_path, progress)).to_dict()
    manifest = SimpleNamespace(recipe=recipe, path=tmp_path)
    agent = SimpleNamespace(manifest=manifest, policy=SimpleNamespace(multi_agent=False))
    known = GridWorld(size=3)
    agent.observation_space, agent.action_space = known.observation_space, known.action_space
    env = make_checked(agent, "grid_world", {"size": 3}, render=False)
    env.reset(seed=0)
    assert env.unwrapped.distance == 1


def _again(checkpoint: Any) -> Path:
    return write(Path(checkpoint).parent, RECIPE)


def test_a_registered_curriculum_of_one_s_own(tmp_path, ray_local, monkeypatch):
    class Ring(DomainRandomisation):
        """Every cell at one distance."""

        def __init__(self, radius: int):
            super().__init__({"distance": radius})

    monkeypatch.setitem(registry.TABLES["curricula"], "ring", registry.Entry("ring", Ring))
    section = RECIPE[RECIPE.index("  type: lessons") : RECIPE.index("stop:")]
    text = RECIPE.replace(section, "  type: ring\n  radius: 2\n").replace(
        "evaluation: {every: 1, episodes: 6}", ""
    )
    algorithm = build(recipes.load(write(tmp_path, text))).build_algo()
    try:
        assert isinstance(active(algorithm).curriculum, Ring)
        assert algorithm.train()["curriculum"]["task"] == {"distance": 2.0}
    finally:
        algorithm.stop()


def test_the_registry_the_schema_and_the_documentation_name_the_same_types():
    shipped = {name for name, entry in registry.TABLES["curricula"].items() if entry.target in TYPES.values()}
    assert shipped == set(TYPES) == set(SPECS)
    for name in TYPES:
        assert f"`{name}`" in DOCS or name == "lessons"


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_every_option_is_documented(kind):
    for option in SPECS[kind].model_fields:
        assert option in DOCS, option


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_schema_and_the_class_take_the_same_options(kind):
    import importlib
    import inspect

    from rlkit.curriculum.schema import COMMON

    module, _, name = TYPES[kind].partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert set(parameters) == set(SPECS[kind].model_fields) - COMMON
    for option, parameter in parameters.items():
        field = SPECS[kind].model_fields[option]
        if not field.is_required():
            assert field.default == parameter.default, option
