"""`rlkit check --seed`: what differs first is named, clocks are left out, and equal runs are said to be equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlkit.cli import app
from rlkit.errors import RunFailed, UsageError
from rlkit.launch import seed_check
from rlkit.launch.rehearsal import first_trial
from rlkit.recipe import Recipe, check, dump, load, loads
from rlkit.recipe.shipped import shipped

ROW = {"iteration": "1", "env_steps": "128", "time_s": "0.5", "loss/p/total_loss": "0.25"}


def test_clocks_may_differ_and_everything_else_is_counted() -> None:
    assert seed_check._compare_metrics([ROW], [{**ROW, "time_s": "0.7", "steps_per_s": "9"}]) == 3
    with pytest.raises(RunFailed, match="1 rows of metrics, the other 2"):
        seed_check._compare_metrics([ROW], [ROW, ROW])


@pytest.mark.parametrize(
    "name",
    [
        "custom/reward_per_step",
        "custom/performance",
        "custom/time_step",
        "loss/p/second_order",
        "custom/section",
    ],
)
def test_a_name_that_only_holds_a_clock_s_word_is_compared(name: str) -> None:
    with pytest.raises(RunFailed, match=f"{name} differs first"):
        seed_check._compare_metrics([{**ROW, name: "1"}], [{**ROW, name: "2"}])


@pytest.mark.parametrize(
    "name", ["algorithm/throughput/learning_s", "custom/episode_duration_sec_mean", "custom/timers/x"]
)
def test_what_measures_time_is_not_compared(name: str) -> None:
    assert seed_check._compare_metrics([{**ROW, name: "1"}], [{**ROW, name: "2"}]) == 3


@pytest.mark.parametrize("other", [{"loss/p/total_loss": "0.25000000000000006"}, {"new": "1"}])
def test_the_first_difference_is_named_with_its_iteration_and_both_values(other: dict[str, str]) -> None:
    second = {**ROW, "iteration": "2"}
    name, value = next(iter(other.items()))
    with pytest.raises(RunFailed, match=rf"iteration 2: {name} differs first: {ROW.get(name)} and {value}\."):
        seed_check._compare_metrics([ROW, second], [ROW, {**second, **other}])


def test_a_recipe_without_a_seed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("{algorithm: DQN, env: CartPole-v1, seed: null, stop: {env_steps: 5000}}")
    with pytest.raises(UsageError, match="seed is null"):
        seed_check.check_seed(str(file))


@pytest.mark.slow
def test_a_recipe_is_trained_twice_and_found_equal() -> None:
    words = ["check", "--seed", "dqn_cartpole", "config.reporting.min_sample_timesteps_per_iteration=200"]
    words += ["config.training.num_steps_sampled_before_learning_starts=300"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "3 iterations" in done.output
    assert "trained twice" in done.output
    assert "equal bit by bit" in done.output


def trained(folder: Path, rows: list[dict[str, str]]) -> Path:
    folder.mkdir()
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [["trial", *names], *(["trial_00000", *(row.get(name, "") for name in names)] for row in rows)]
    (folder / "metrics.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("late", "early"),
    [({"updates": "0.0"}, {"updates": "64.0"}), ({}, {"loss/p/total_loss": "0.5"}), ({}, {"updates": "1"})],
)
def test_iterations_are_added_until_one_learns(
    tmp_path: Path, late: dict[str, str], early: dict[str, str]
) -> None:
    asked: list[int] = []

    def train(iterations: int) -> Path:  # learns from the 16th on
        asked.append(iterations)
        rows = [{"iteration": str(i), "env_steps": str(100 * i), **(early if i > 15 else late)} for i in
                range(1, iterations + 1)]  # fmt: skip
        return trained(tmp_path / str(iterations), rows)

    assert seed_check._to_an_update(train, 3) == (48, tmp_path / "48")
    assert asked == [3, 12, 48]


def test_a_training_that_learns_nothing_is_no_pass(tmp_path: Path) -> None:
    def train(iterations: int) -> Path:
        return trained(
            tmp_path / str(iterations), [{"iteration": "1", "env_steps": "300.0", "updates": "0.0"}]
        )

    with pytest.raises(RunFailed, match=r"no update in 192 iterations \(300 env steps\)"):
        seed_check._to_an_update(train, 3)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_recipe_stays_right_when_it_is_shortened(name: str) -> None:
    if check(shipped()[name]):
        pytest.skip("its packages are not installed")
    short = seed_check._short(first_trial(load(name)).to_dict(), 3)
    assert loads(dump(Recipe.from_dict(short))).stop == {"iteration": 3}


def test_the_two_trainings_are_neither_tracked_nor_recorded() -> None:
    data = {"output": "rec", "output_write_episodes": True, "shuffle": True}
    short = seed_check._short({"track": ["wandb"], "config": {"offline_data": data}, "stop": {}}, 2)
    assert (short["track"], short["config"]) == ([], {"offline_data": {"shuffle": True}})
