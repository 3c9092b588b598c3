"""Searches: default spaces, what a searcher hears of, a storage that goes on, the winner trained with new seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

import rlkit
from rlkit.errors import CheckpointError, UsageError
from rlkit.launch.search import searcher
from rlkit.launch.winner import recipe_of
from rlkit.recipe import Recipe, RecipeError, SearchSpace, from_mapping, load, loads
from rlkit.recipe.default_space import DEFAULT_SPACES
from rlkit.report.search_figures import importances, points
from rlkit.runs.run import Best, RunInfo, open_run

BASE: dict[str, Any] = {"name": "s", "algorithm": "DQN", "env": "CartPole-v1", "stop": {"env_steps": 50_000}}
RECIPES = {"PPO": "ppo_cartpole", "DQN": "dqn_cartpole", "SAC": "sac_pendulum", "MADDPG": "maddpg_spread",
           "MATD3": "matd3_spread"}  # fmt: skip


@pytest.mark.parametrize("algorithm", sorted(DEFAULT_SPACES))
def test_a_default_space_fits_its_algorithm(algorithm: str) -> None:
    recipe = load(RECIPES[algorithm], ["tune.search={type: optuna, space: default}"])
    for name, space in DEFAULT_SPACES[algorithm].items():
        assert recipe.config["training"][name] == space
    assert recipe.tune.search == {"type": "optuna"}


def test_a_space_of_ones_own_stays_and_others_are_refused() -> None:
    own = SearchSpace("choice", (0.1, 0.2))
    tune = {"search": {"type": "optuna", "space": "default"}}
    recipe = from_mapping({**BASE, "config": {"training": {"lr": own}}, "tune": tune})
    assert recipe.config["training"]["lr"] == own
    with pytest.raises(RecipeError, match="the only space with a name is `default`"):
        from_mapping({**BASE, "tune": {"search": {"type": "optuna", "space": "big"}}})
    with pytest.raises(RecipeError, match="IMPALA has no default space"):
        from_mapping({**BASE, "algorithm": "IMPALA", "tune": tune})


def a_search(**search: Any) -> Any:
    training = {"lr": SearchSpace("loguniform", (1e-5, 1e-2))}
    values = {**BASE, "config": {"training": training}, "tune": {"search": {"type": "optuna", **search}}}
    return from_mapping(values)


def test_a_result_without_the_metric_does_not_end_a_search() -> None:
    from rlkit.launch.search import param_space

    recipe = a_search()
    found = searcher(recipe)
    found.set_search_properties("score", "max", param_space(recipe)[0])
    assert found.suggest("a")["config"]["training"]["lr"] > 0
    found.on_trial_result("a", {"training_iteration": 1})  # no evaluation yet
    found.on_trial_result("a", {"training_iteration": 2, "score": float("nan")})
    found.on_trial_result("a", {"training_iteration": 3, "score": 5.0})
    found.on_trial_complete("a", {"training_iteration": 3, "score": 5.0})
    (trial,) = found.inner._ot_study.trials
    assert (trial.value, trial.intermediate_values) == (5.0, {3: 5.0})


def test_a_stop_with_a_slash_in_its_name_is_no_part_of_a_search() -> None:
    from ray import tune
    from ray.tune.experiment import Experiment
    from ray.tune.search import SearchGenerator

    from rlkit.launch.search import param_space

    words = ["config.training.lr=!loguniform [1e-5, 1e-2]", "model.hiddens=!choice [[32, 32], [64, 64]]"]
    recipe = load("dqn_cartpole", [*words, "tune.search={type: optuna}"])
    assert "eval/episode_return" in recipe.stop
    space, samples = param_space(recipe)
    found = SearchGenerator(searcher(recipe))
    found.set_search_properties("score", "max", space)
    spec = Experiment("s", run=tune.Trainable, config=space, num_samples=samples)
    found.add_configurations([spec])
    config = found.next_trial().config
    given = recipe.to_dict()
    lr, hiddens = config["config"]["training"].pop("lr"), config["model"].pop("hiddens")
    del given["config"]["training"]["lr"], given["model"]["hiddens"]
    assert 1e-5 <= lr <= 1e-2
    assert hiddens in ([32, 32], [64, 64])
    assert config == {**given, "tune": {}}


def test_a_searcher_takes_no_item_of_a_list() -> None:
    sizes = {"name": "mlp", "hiddens": [SearchSpace("choice", (32, 64)), 64]}
    values = {**BASE, "model": sizes, "tune": {"samples": 2}}
    from_mapping(values)  # a random draw does
    with pytest.raises(RecipeError, match=r"model\.hiddens\[0\]: optuna cannot search one item of a list"):
        from_mapping({**values, "tune": {"search": {"type": "optuna"}}})


def test_a_storage_goes_on_with_the_next_run(tmp_path: Path) -> None:
    from rlkit.launch.search import param_space

    recipe = a_search(storage=str(tmp_path / "study.log"), sampler="random")
    for name in ("a", "b"):
        found = searcher(recipe)
        found.set_search_properties("score", "max", param_space(recipe)[0])
        found.suggest(name)
        found.on_trial_complete(name, {"score": 1.0})
    assert [trial.value for trial in found.inner._ot_study.trials] == [1.0, 1.0]
    with pytest.raises(RecipeError, match="no file of a study"):
        a_search(storage="mysql://host/db")
    with pytest.raises(RecipeError, match="did you mean 'cmaes'"):
        a_search(sampler="cmaess")


def searched(folder: Path) -> Path:
    """A search of four trials: the larger lr, the better; gamma says nothing."""
    run = write_run(folder, lambda seed: [{"iteration": 1, "env_steps": 10}], seeds=(0, 1, 2, 3))
    (run / "recipe.yaml").write_text(
        "name: s\nalgorithm: DQN\nenv: CartPole-v1\nstop: {iterations: 1}\n"
        "config: {training: {lr: !loguniform [1e-5, 1e-1], gamma: !choice [0.9, 0.99]}}\n"
    )
    info = RunInfo.read(run)
    for number, trial in enumerate(open_run(run).trials):
        training = {"lr": 10.0 ** (number - 5), "gamma": (0.9, 0.99)[number % 2]}
        params = {**BASE, "seed": 0, "config": {"training": training}}
        (trial.path / "params.json").write_text(json.dumps(params))
        name = trial.name
        info.trial_best[name] = Best(name, f"{name}/checkpoint_000001", "episode_return", 10.0 * number)
    info.write(run)
    return run


def test_the_winner_is_trained_with_seeds_the_search_did_not_use(tmp_path: Path) -> None:
    run = searched(tmp_path / "s/t")
    recipe = from_mapping(recipe_of(f"{run}:BEST"))
    assert recipe.config["training"] == {"lr": 0.01, "gamma": 0.99}
    assert (recipe.name, recipe.seed, recipe.tune.samples) == ("s_best", 1, 3)
    assert recipe_of(f"{run}:trial_00000")["config"]["training"]["lr"] == 1e-5
    trial = open_run(run).trials[0].path / "params.json"
    params = json.loads(trial.read_text())
    trial.write_text(json.dumps({**params, "tune": [1]}))
    with pytest.raises(CheckpointError, match=r"params\.json: tune: got .*, expected an object"):
        recipe_of(f"{run}:trial_00000")
    for spec, message in ((str(run), "expected RUN:BEST"), (f"{run}:trial_00009", "no trial 'trial_00009'")):
        with pytest.raises(UsageError, match=message):
            recipe_of(spec)


def test_a_search_that_found_nothing_has_no_winner(tmp_path: Path) -> None:
    run = searched(tmp_path / "s/t")
    info = RunInfo.read(run)
    info.trial_best = {}
    info.write(run)
    with pytest.raises(UsageError, match="no trial has a value of episode_return yet"):
        recipe_of(f"{run}:BEST")


def test_importances_name_the_parameter_that_mattered(tmp_path: Path) -> None:
    spaces, found = points(open_run(searched(tmp_path / "s/t")))
    assert set(spaces) == {"config.training.lr", "config.training.gamma"}
    shares = importances(spaces, found * 5, "max")
    assert next(iter(shares)) == "config.training.lr"
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(spaces, found[:2], "max") == {}


@pytest.mark.parametrize("name", [".bash_aliases", ".log", "study", "study.sh"])
def test_a_recipe_adds_no_lines_to_what_a_shell_reads(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"a study's file ends in \.log"):
        a_search(storage=str(tmp_path / name))
    with pytest.raises(RecipeError, match="a study's name is letters"):
        a_search(storage=str(tmp_path / "study.log"), study_name="$(touch x)")


def test_samples_without_a_searcher_are_seeds_also_where_random_is_written() -> None:
    from rlkit.launch.search import param_space

    text = "name: s\nalgorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 1}\n"
    space, samples = param_space(loads(text + "tune: {samples: 3, search: {type: random}}\n"))
    assert (space["seed"], samples) == ({"grid_search": [0, 1, 2]}, 1)


@pytest.mark.parametrize(
    ("metric", "best", "sign"),
    [
        ("episode_length", "eval/episode_return", 1.0),
        ("episode_length", "eval/episode_length", -1.0),
        ("episode_length", "evaluation/env_runners/episode_len_mean", -1.0),
        ("custom/crashes", "custom/crashes", -1.0),
    ],
)
def test_less_is_better_for_checkpoints_where_they_are_chosen_by_the_metric(
    metric: str, best: str, sign: float
) -> None:
    from rlkit.launch.search import param_space

    recipe = loads(
        "name: s\nalgorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 1}\nevaluation: {every: 1}\n"
        f"checkpoint: {{best: {best}}}\ntune: {{metric: {metric}, mode: min}}\n"
    )
    assert recipe.best_sign == sign
    assert Recipe.from_dict(param_space(recipe)[0]).best_sign == sign  # what the trial gets


def test_a_study_that_goes_on_draws_anew(tmp_path: Path) -> None:
    from rlkit.launch.search import param_space

    recipe, drawn = a_search(storage=str(tmp_path / "study.log"), sampler="random"), []
    for name in ("a", "b"):
        found = searcher(recipe)
        found.set_search_properties("score", "max", param_space(recipe)[0])
        drawn.append(found.suggest(name)["config"]["training"]["lr"])
        found.on_trial_complete(name, {"score": 1.0})
    assert drawn[0] != drawn[1]


def test_options_a_searcher_does_not_take_are_named(tmp_path: Path) -> None:
    text = (
        "name: s\nalgorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 1}\n"
        "config: {training: {lr: !loguniform [1e-4, 1e-2]}}\n"
        "tune: {search: {type: optuna, sample: tpe, mode: min, sampler: tpee, storage: no/folder.log}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        loads(text)
    said = str(caught.value)
    for part in ("optuna has no option 'sample'; did you mean 'sampler'", "takes mode from tune.mode",
                 "unknown sampler, got 'tpee'; did you mean 'tpe'", "no file of a study"):  # fmt: skip
        assert part in said, part


@pytest.mark.parametrize("seed", ["a", -1, 2.0, True, 2**31])
def test_a_seed_that_no_sampler_takes_is_refused(seed: Any) -> None:
    with pytest.raises(
        RecipeError, match=r"tune\.search\.seed: a whole number from 0 to 2147483647 is expected"
    ):
        a_search(seed=seed, sampler="qmc")
    assert searcher(a_search(seed=7, storage=None)) is not None


def test_a_storage_is_where_it_was_begun_whatever_folder_a_resume_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    monkeypatch.setattr("rlkit.launch.tune_run.run", given.append)
    rlkit.train(a_search(storage="study.log"), out=tmp_path / "runs")
    assert given[0].recipe.tune.search["storage"] == str(tmp_path / "study.log")
    assert str(tmp_path / "study.log") in next((tmp_path / "runs").glob("*/*/recipe.yaml")).read_text()
