"""What the check lets pass, RLlib accepts: every good recipe becomes a valid AlgorithmConfig."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit import recipe as recipes

GOOD = sorted((Path(__file__).parent / "recipes" / "good").glob("*.yaml"))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_recipe_builds(path: Path) -> None:
    from rlkit.launch.build import build
    from rlkit.launch.search import first_value

    recipe = recipes.load(path)
    one_trial = recipes.Recipe.from_dict({**first_value(recipe.to_dict()), "tune": {}})
    config = build(one_trial)
    training = one_trial.config.get("training", {})
    assert {
        name: getattr(config, name) for name in training if name in ("lr", "gamma", "n_step", "num_epochs")
    } == {name: value for name, value in training.items() if name in ("lr", "gamma", "n_step", "num_epochs")}
