"""Every shipped recipe: it checks, reads back the same, states a measured result, and trains an iteration."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.launch.build import build
from rlkit.metrics import tidy

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
IMPORTS = {"custom_model.yaml": [str(ROOT / "examples" / "my_model.py")]}

# One iteration of each, small: what is checked is that it starts, samples, learns and reports.
SMALL = {
    "config.reporting.min_sample_timesteps_per_iteration": 64,
    "config.reporting.min_time_s_per_iteration": 0,
}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    registry.load_plugins(IMPORTS.get(request.param.name, ()))
    return request.param


def test_a_shipped_recipe_checks_and_round_trips(path: Path, tmp_path: Path) -> None:
    assert [str(problem) for problem in recipes.check([path])] == []
    first = recipes.load(path)
    again = tmp_path / "again.yaml"
    again.write_text(recipes.dump(first))
    assert recipes.load(again) == first


def test_a_shipped_recipe_states_its_measured_result(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True)[:14] if line.startswith("#"))
    assert "measured" in header.lower() or "result" in header.lower(), header


def test_a_shipped_recipe_stands_in_the_page_of_recipes(path: Path) -> None:
    rows = [line for line in (ROOT / "docs" / "recipes.md").read_text().splitlines() if line.startswith("|")]
    assert any(f"`{path.name}`" in row for row in rows), path.name


def test_the_page_of_recipes_names_no_other() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert set(re.findall(r"`(\w+\.yaml)`", page)) <= {path.name for path in CONFIGS}


def test_a_shipped_recipe_trains_an_iteration(path: Path, ray_local: None) -> None:
    from rlkit.launch.search import first_value

    offline = "data:" in path.read_text()
    recipe = recipes.load(path, {k: v for k, v in SMALL.items() if not (offline and "sample" in k)})
    values = first_value(recipe.to_dict())
    if offline:
        values["evaluation"] = {"every": 10, "episodes": 1}  # nothing else is played
    else:
        values.pop("evaluation", None)
    values["checkpoint"] = {}
    values["tune"] = {}
    training = values["config"].get("training", {})
    if "num_steps_sampled_before_learning_starts" in training:
        training["num_steps_sampled_before_learning_starts"] = 64
    algorithm = build(recipes.Recipe.from_dict(values)).build_algo()
    try:
        row = tidy(algorithm.train())
    finally:
        algorithm.stop()
    assert row["env_steps"] >= 64
    assert all(math.isfinite(value) for name, value in row.items() if name.startswith("loss/"))
