"""`rlkit train --trial RUN:BEST`: the recipe of one trial of a search, to be trained with new seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.errors import CheckpointError, UsageError, did_you_mean
from rlkit.report.ranking import Ranking
from rlkit.runs.reading import shown
from rlkit.runs.run import open_run
from rlkit.runs.statistics import MIN_SEEDS

BEST = "BEST"


def recipe_of(spec: str) -> dict[str, Any]:
    """Return a recipe as plain data: the trial's values, seeds that the search did not use, `tune.samples` of them.

    Args:
        spec: `RUN:BEST` for the trial that the ranking has first, or `RUN:TRIAL`.

    Raises:
        UsageError: another form, no such run or trial, or a search in which no trial has a value.
        CheckpointError: the run is damaged.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path or not name:
        raise UsageError(f"--trial {spec}: expected RUN:BEST or RUN:TRIAL, such as runs/my_search:BEST")
    run = open_run(path)
    trials = {trial.name: trial for trial in run.trials}
    if name == BEST:
        ranked = [trial for trial in Ranking.of(run).trials if trial.value is not None]
        if not ranked:
            raise UsageError(
                f"{run.path}: no trial has a value of {run.recipe.checkpoint.best} yet, so none is the best; name one: "
                f"--trial {path}:{next(iter(trials), 'TRIAL')}"
            )
        name = ranked[0].trial
    elif name not in trials:
        short = [trial for trial in trials if trial.startswith(f"{name}_")]
        if len(short) != 1:
            raise UsageError(f"{run.path} has no trial {name!r}{did_you_mean(name, trials)}")
        name = short[0]
    values = trials[name].params
    if not values:
        raise UsageError(f"{trials[name].path}: Tune has not written its params.json yet")
    tune = values.get("tune") or {}
    if not isinstance(tune, Mapping):
        raise CheckpointError(
            f"{trials[name].path / 'params.json'}: tune: got {shown(tune)}, expected an object"
        )
    seeds = [seed for trial in trials.values() if isinstance(seed := trial.params.get("seed"), int)]
    recipe = {key: value for key, value in values.items() if key != "tune"}
    recipe["name"] = f"{str(values.get('name', run.name))[:90]}_best"
    recipe["seed"] = max(seeds, default=-1) + 1
    recipe["tune"] = {**tune, "samples": MIN_SEEDS}
    return recipe
