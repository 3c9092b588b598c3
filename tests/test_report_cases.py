"""Reports and pictures of runs with something missing, alike or strange in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import write_checkpoint, write_run

from rlkit.errors import UsageError
from rlkit.recipe.spaces import SearchSpace
from rlkit.report import compare, page, plot, report, search_figures
from rlkit.report.curves import lesson_borders
from rlkit.report.facts import warnings
from rlkit.report.films import Film, Played
from rlkit.report.groups import load_groups
from rlkit.runs.run import Best, RunInfo, open_run

RECIPE = "name: a\nalgorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 10}\n"


def line(slope: float, **more: Any) -> Any:
    """Rows of a straight line; `more` are further metrics, functions of iteration and seed."""

    def rows(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": i, "env_steps": 1000.0 * i, "time_s": 2.0 * i, "episode_return": slope * i + seed}
            | {name: f(i, seed) for name, f in more.items() if f(i, seed) is not None}
            for i in range(1, 11)
        ]

    return rows


def searched(run: Path, tune: str) -> Path:
    """A run of four trials with learning rates of their own, whose recipe.yaml has a section `tune`."""
    write_run(run, line(1), seeds=(0, 1, 2, 3), algorithm="PPO")
    (run / "recipe.yaml").write_text(f"{RECIPE}{tune}\n")
    info = RunInfo.read(run)
    for number, trial in enumerate(sorted(p for p in run.iterdir() if p.is_dir())):
        trial.joinpath("params.json").write_text(f'{{"config": {{"training": {{"lr": 0.{number + 1}}}}}}}')
        info.trial_best[trial.name] = Best(
            trial.name, f"{trial.name}/checkpoint_000001", "episode_return", number
        )
    info.write(run)
    return run


def test_recipes_that_differ_in_an_empty_section_are_numbered(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a/t", line(1), name="r", env_config={})
    b = write_run(tmp_path / "b/t", line(30), name="r")
    table = compare([a, b])
    assert [(row.name, row.mean) for row in table.rows] == [("r (default)", 10.0), ("r (default) #2", 300.0)]
    assert (table.improvements[0].a, table.improvements[0].probability) == ("r (default)", 0.0)


@pytest.mark.parametrize("form", [{"text": True}, {"profile": True}, {}])
def test_a_trial_without_the_metric_is_not_drawn_from_another_s(
    tmp_path: Path, form: dict[str, bool]
) -> None:
    run = write_run(
        tmp_path / "a/t", line(1, **{"custom/x": lambda i, seed: 1.0 if seed else None}), seeds=(0, 1)
    )
    with pytest.raises(UsageError, match=r"no run here has reported 'custom/x' together with env_steps"):
        plot(run / "trial_00000_seed=0", metric="custom/x", out=None, **form)
    assert not (run / "plot.png").exists()


@pytest.mark.parametrize("recipe", [None, "name: [\n"])
def test_a_page_is_written_where_a_recipe_cannot_be_read(tmp_path: Path, recipe: str | None) -> None:
    run = write_run(tmp_path / "a/t", line(1))
    trial = "trial_00000_seed=0"
    write_checkpoint(run / trial, 1)
    info = RunInfo.read(run)
    info.trial_best = {trial: Best(trial, f"{trial}/checkpoint_000001", "episode_return", 3.0)}
    info.write(run)
    if recipe:
        (run / "recipe.yaml").write_text(recipe)
    notes = report(run, tmp_path / "x.html")
    assert (tmp_path / "x.html").stat().st_size > 10_000
    assert any(note.startswith("a: not played, ") and "recipe.yaml" in note for note in notes)


def test_mutations_of_a_population_are_no_search(tmp_path: Path) -> None:
    tune = "tune: {samples: 4, scheduler: {type: pbt, mutations: {config.training.lr: !loguniform [1e-5, 1e-2]}}}"
    notes = report(searched(tmp_path / "a/t", tune), tmp_path / "x.html", videos=False)
    assert not [note for note in notes if "search" in note]


@pytest.mark.parametrize(("metric", "mode"), [("time_s", "max"), ("episode_return", "min")])
def test_importances_are_of_the_values_that_trials_are_ranked_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, mode: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(search_figures, "importances", lambda spaces, found, mode: asked.append(mode) or {})
    space = "config: {training: {lr: !uniform [0.1, 0.9]}}"
    tune = f"{space}\ncheckpoint: {{best: episode_return}}\ntune: {{samples: 4, metric: {metric}, mode: min}}"
    report(searched(tmp_path / "a/t", tune), tmp_path / "x.html", videos=False)
    assert asked == [mode]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_lesson_s_number_may_be_any(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    numbers = {1: 0.0, 2: 1e9, 3: 1e300}
    run = write_run(
        tmp_path / "a/t", line(1, **{"curriculum/lesson": lambda i, seed: numbers.get(i)}), seeds=seeds,
        curriculum={"lessons": [{"name": "first"}, {"name": "second"}]},
    )  # fmt: skip
    found = lesson_borders(load_groups(run, "episode_return")[0], "env_steps")
    assert [begin for begin, _ in found] == [0, 2000, 3000]
    assert [name[:19] for _, name in found] == ["first", "lesson 1000000000", "lesson 100000000000"]


def test_notes_of_a_page_come_once_when_its_films_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "a/t", line(1))
    film = Film("median", b"x" * 3_000_000, b"y")
    monkeypatch.setattr(
        page, "play_best", lambda *_, **__: Played("a", "c", [["return"] + ["1"] * 6], [film])
    )
    notes = report(run, tmp_path / "x.html")
    assert "films left out: with them the page would be larger than 3 MB" in notes
    assert [note for note in notes if "recipe.yaml" in note] == [f"{run / 'recipe.yaml'}: missing"]
    assert len(notes) == len(set(notes))


@pytest.mark.parametrize("space", ["hiddens: [!choice [64, 128], 64]", "hiddens: !choice [[64], null]"])
def test_trials_with_a_space_in_a_list_or_a_null_are_searched(tmp_path: Path, space: str) -> None:
    run = searched(tmp_path / "a/t", f"model: {{name: mlp, {space}}}\ntune: {{samples: 4}}")
    for number, trial in enumerate(sorted(p for p in run.iterdir() if p.is_dir())):
        value = "[64, 64]" if number % 2 else "[128, 64]" if "64, 128" in space else "null"
        (trial / "params.json").write_text(f'{{"model": {{"hiddens": {value}}}}}')
    spaces, found = search_figures.points(open_run(run))
    assert len(found) == 4
    assert (
        {str(values[key]) for values, _ in found for key in spaces} > {"64"} if "64, 128" in space else True
    )
    assert set(search_figures.importances(spaces, found, "max")) == set(spaces)


def test_importances_of_a_value_that_a_mutation_took_out_of_its_space() -> None:
    spaces = {"lr": SearchSpace("loguniform", (1e-5, 1e-2)), "n": SearchSpace("randint", (1, 4))}
    found = [({"lr": lr, "n": n}, n + lr) for lr, n in ((1e-4, 1), (1e-3, 2), (0.012, 7), (1e-2, 3))]
    assert set(search_figures.importances(spaces, found, "max")) == {"lr", "n"}


def test_trials_without_a_seed_are_not_said_to_share_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", lambda seed: line(1)(0), seeds=(None, None, None), name="a")
    notes: list[str] = []
    groups = load_groups([run], "episode_return", notes=notes)
    assert not [note for note in [*notes, *warnings(groups, "episode_return")] if "independent" in note]


def test_an_interval_needs_three_seeds_of_each_environment(tmp_path: Path) -> None:
    envs = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
    runs = [write_run(tmp_path / f"{env}/t", line(1), name="a", env=env) for env in envs]
    scale = {env: (0.0, 1.0) for env in envs}
    (row,) = compare(runs, by=["name"], scale=scale).rows
    assert (row.seeds, row.ci95) == (3, None)
