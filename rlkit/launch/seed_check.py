"""`rlkit check --seed RECIPE`: does the recipe's seed decide everything? It is trained twice, and compared bit by bit.

Each time a fresh process trains the first iterations, up to one that learns, into a folder of its own. Compared are
the metrics of each iteration, as they stand in metrics.csv with every digit, and then the weights of the last
checkpoint. Clocks are left out.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import RunFailed, UsageError
from rlkit.files import write_atomic

ITERATIONS = 3
MORE, MOST = 4, 192  # so many times the iterations while nothing is learned, and at most so many
# Whole words in names of what measures time: `steps_per_s`, and not `reward_per_step`.
CLOCKS = re.compile(
    r"(?<![a-z0-9])(time_s|per_s|secs?|seconds|durations?|throughputs?|timers?|perf)(?![a-z0-9])"
)


def check_seed(
    recipe: str, overrides: Sequence[str] = (), imports: Sequence[str] = (), iterations: int = ITERATIONS
) -> str:
    """Train a recipe's first iterations twice; return one line that says what is equal.

    Args:
        recipe: a file, or the name of a shipped one.
        overrides: `config.training.lr=1e-3`. imports: modules that register names.
        iterations: to train, each time; more where they do not reach the first update.

    Raises:
        RecipeError: the recipe is wrong.
        UsageError: it has no seed.
        RunFailed: something differs, or a training failed, or nothing was learned; names the first difference.
    """
    from rlkit import recipe as recipes
    from rlkit import registry
    from rlkit.launch.rehearsal import first_trial
    from rlkit.runs.metrics_csv import read_metrics
    from rlkit.runs.run import open_run

    registry.begin(imports)
    loaded = recipes.load(recipe, overrides)
    if loaded.seed is None:
        raise UsageError(f"{recipe}: seed is null, so no two runs are alike; write seed: 0")
    with tempfile.TemporaryDirectory(prefix="rlkit-seed-") as folder:
        file = Path(folder, "recipe.yaml")

        def train(count: int, name: str = "first") -> Path:
            short = _short(first_trial(loaded).to_dict(), count)
            write_atomic(file, recipes.dump(recipes.Recipe.from_dict(short)))
            return _train(file, Path(folder, f"{name}_{count}"), imports)

        iterations, first = _to_an_update(train, iterations)
        runs = [first, train(iterations, "second")]
        trials = [open_run(run).trials[0] for run in runs]
        tables = [read_metrics(run / "metrics.csv")[1] for run in runs]
        compared = _compare_metrics(*tables)
        weights = [_weights(trial.checkpoints[-1]) for trial in trials]
        for name in weights[0]:
            if weights[0][name] != weights[1].get(name):
                raise RunFailed(f"{loaded.name}: all metrics are equal, the weights of {name} differ")
        steps = int(float(tables[0][-1]["env_steps"]))
    return (
        f"{loaded.name}: seed {loaded.seed}, {iterations} iterations, {steps:,} env steps, trained twice: "
        f"{compared} metrics and {len(weights[0])} arrays of weights are equal bit by bit"
    )


def _to_an_update(train: Callable[[int], Path], iterations: int) -> tuple[int, Path]:
    """Train so many iterations, then ever more, until the learner has made an update; return how many, and the run.

    Raises:
        RunFailed: there is still none: the weights that would be compared are those the run began with.
    """
    from rlkit.runs.metrics_csv import read_metrics

    while True:
        run = train(iterations)
        rows = read_metrics(run / "metrics.csv")[1]
        if any(_learned(row) for row in rows):
            return iterations, run
        if iterations * MORE > MOST:
            steps = int(float(rows[-1]["env_steps"])) if rows else 0
            raise RunFailed(
                f"no update in {iterations} iterations ({steps:,} env steps), so nothing that is learned can be "
                "compared; let it learn sooner: config.training.num_steps_sampled_before_learning_starts=…, or sample "
                "more: config.reporting.min_sample_timesteps_per_iteration=…"
            )
        iterations *= MORE


def _learned(row: Mapping[str, str]) -> bool:
    """Whether a row of metrics.csv comes after an update; RLlib's own algorithms report losses alone."""
    if row.get("updates"):
        return float(row["updates"]) > 0
    return any(value for name, value in row.items() if name.startswith("loss/"))


def _short(recipe: dict[str, Any], iterations: int) -> dict[str, Any]:
    """Return the recipe with another end, for which nothing is tracked or recorded; the last iteration evaluates.

    A curriculum goes on by the env steps of the whole run.
    """
    steps = recipe["stop"].get("env_steps")
    if recipe.get("curriculum") is not None and steps:
        recipe = {**recipe, "curriculum": {"total_steps": int(steps), **recipe["curriculum"]}}
    recipe = {**recipe, "stop": {"iteration": iterations}, "tune": {}, "track": []}
    config = {**recipe["config"]}
    if "offline_data" in config:
        kept = {key: value for key, value in config["offline_data"].items() if not key.startswith("output")}
        recipe["config"] = {**config, "offline_data": kept}
    if recipe.get("evaluation"):
        recipe["evaluation"] = {**recipe["evaluation"], "every": iterations}
    return recipe


def _train(file: Path, out: Path, imports: Sequence[str]) -> Path:
    words = [sys.executable, "-m", "rlkit", "train", str(file), "--out", str(out), "--quiet"]
    words += [word for name in imports for word in ("--import", name)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["nothing was said"]
        raise RunFailed(f"the training ended with {done.returncode}: {said[-1].removeprefix('error: ')}")
    return next(out.glob("*/*/run.json")).parent


def _compare_metrics(first: list[dict[str, str]], second: list[dict[str, str]]) -> int:
    """Return how many numbers are equal.

    Raises:
        RunFailed: the first that is not, in the order of iterations and columns.
    """
    if len(first) != len(second):
        raise RunFailed(f"one training has {len(first)} rows of metrics, the other {len(second)}")
    count = 0
    for row, other in zip(first, second, strict=True):
        for name in [*row, *(name for name in other if name not in row)]:
            if CLOCKS.search(name):
                continue
            if row.get(name) != other.get(name):
                raise RunFailed(
                    f"iteration {row['iteration']}: {name} differs first: {row.get(name)} and {other.get(name)}. Look "
                    "for an environment that ignores reset(seed=…), remote runners or learners whose order is not "
                    "fixed, and random numbers drawn outside of rlkit's streams (docs/decisions.md, seeds)"
                )
            count += 1
    return count


def _weights(checkpoint: Path) -> dict[str, bytes]:
    """Return the bytes of each array of each module, by name. The checkpoint was written by this process's child."""
    found: dict[str, bytes] = {}
    for file in sorted(checkpoint.rglob("module_state.pkl")):
        state = pickle.loads(file.read_bytes())
        for name, array in state.items():
            found[f"{file.parent.name}/{name}"] = array.tobytes()
    return found
