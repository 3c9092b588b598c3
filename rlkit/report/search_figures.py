"""A search in pictures: which parameter mattered, and each parameter against the result."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Any

from rlkit.recipe.spaces import LISTS, SearchSpace, spaces_in
from rlkit.report.curves import COLORS, plain
from rlkit.report.groups import value_of
from rlkit.report.ranking import Ranking
from rlkit.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 9  # parameters drawn
LEAST_TRIALS = 4  # with fewer, an importance says nothing
MISSING = object()


def searched(run: Run) -> list[tuple[tuple[str | int, ...], SearchSpace]]:
    """The search spaces of a run's trials; those in `tune` are of its scheduler or searcher."""
    return [(path, space) for path, space in spaces_in(run.recipe.to_dict()) if path[0] != "tune"]


def points(run: Run) -> tuple[dict[str, SearchSpace], list[tuple[dict[str, Any], float]]]:
    """Return the search spaces by dotted key, and (values, result) of every trial that has a result."""
    spaces = {".".join(map(str, path)): space for path, space in searched(run)}
    params = {trial.name: trial.params for trial in run.trials}
    found = []
    for trial in Ranking.of(run).trials:
        values = {key: value_of(params[trial.trial], key, MISSING) for key in spaces}
        if trial.value is not None and math.isfinite(trial.value) and MISSING not in values.values():
            found.append((values, trial.value))
    return spaces, found


def importances(
    spaces: dict[str, SearchSpace], found: list[tuple[dict[str, Any], float]], mode: str
) -> dict[str, float]:
    """Return each parameter's share, the largest first (PED-ANOVA, arXiv 2304.10255, as Optuna computes it).

    {} where Optuna is not installed or there are too few trials.
    """
    if len(found) < LEAST_TRIALS or importlib.util.find_spec("optuna") is None:
        return {}
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    distributions = {
        key: _distribution(space, [values[key] for values, _ in found]) for key, space in spaces.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for values, result in found:
            plain = {key: _choice(space, values[key]) for key, space in spaces.items()}
            trial = optuna.trial.create_trial(params=plain, distributions=distributions, value=result)
            study.add_trial(trial)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distribution(space: SearchSpace, values: list[Any]) -> Any:
    """Optuna's form of a space, as wide as the trials' values: a mutation may start from one outside."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if space.kind in LISTS:
        return CategoricalDistribution(list(dict.fromkeys(map(str, [*space.args, *values]))))
    if space.kind == "randint":
        return IntDistribution(min(space.args[0], *values), max(space.args[1] - 1, *values))
    low, high = min(space.args[0], *values), max(space.args[1], *values)
    return FloatDistribution(low, high, log=space.kind == "loguniform")


def _choice(space: SearchSpace, value: Any) -> Any:
    return str(value) if space.kind in LISTS else value


def importance_figure(shares: dict[str, float]) -> Figure:
    """Bars, the most important parameter on top."""
    from matplotlib.figure import Figure

    keys = list(shares)[:MOST][::-1]
    figure = Figure(figsize=(5.2, 0.9 + 0.32 * len(keys)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([plain(key) for key in keys], [shares[key] for key in keys], color=COLORS[0], height=0.6)
    axes.set_xlabel("importance (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def slice_figure(
    spaces: dict[str, SearchSpace], found: list[tuple[dict[str, Any], float]], metric: str
) -> Figure:
    """One pair of axes per parameter: its value against the result of each trial."""
    from matplotlib.figure import Figure

    keys = list(spaces)[:MOST]
    columns = min(len(keys), 3)
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(1.2 + 2.0 * columns, 0.6 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(keys):
            axes.set_visible(False)
            continue
        key, space = keys[number], spaces[keys[number]]
        x = [values[key] for values, _ in found]
        if space.kind in LISTS:
            x = [plain(str(value)) for value in x]
        axes.plot(
            x, [result for _, result in found], "o", color=COLORS[0], ms=4, alpha=0.7, mec="black", mew=0.3
        )
        if space.kind == "loguniform":
            axes.set_xscale("log")
        axes.set_title(plain(key.rpartition(".")[2]), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel(plain(f"best {metric}"), fontsize=9)
    return figure
