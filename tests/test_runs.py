"""Run folders: what a path stands for, what a crash leaves, what another format says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from run_folders import write_checkpoint, write_run

from rlkit.errors import CheckpointError, UsageError
from rlkit.launch.train import summary
from rlkit.recipe import RecipeError
from rlkit.runs import lock
from rlkit.runs.layout import versions
from rlkit.runs.run import Best, RunInfo, find_checkpoint, git_state, new_run_folder, open_run

RECIPE = "name: dqn\nalgorithm: DQN\nenv: CartPole-v1\nstop: {iteration: 10}\n"


def steps(seed: int) -> list[dict[str, float]]:
    return [{"iteration": i, "env_steps": 100 * i, "episode_return": i + seed} for i in (1, 2, 3)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trials; the first has checkpoints 2 and 10 and an unfinished 11, and 2 is the best."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(Path("runs/dqn/2026-01-01_00-00-00"), steps, seeds=(0, 1))
    first, second = folder / "trial_00000_seed=0", folder / "trial_00001_seed=1"
    for number in (2, 10):
        write_checkpoint(first, number)
    write_checkpoint(first, 11, finished=False)
    write_checkpoint(second, 4)
    (first / ".writing_x").mkdir()
    info = RunInfo.read(folder)
    info.best = Best(first.name, f"{first.name}/checkpoint_000002", "episode_return", 9.0)
    info.last_checkpoint = f"{first.name}/checkpoint_000002"
    info.write(folder)
    return folder


def test_a_run_tells_its_trials_metrics_and_checkpoints(run: Path) -> None:
    found = open_run(run)
    assert (found.name, found.status) == ("dqn", "done")
    assert [t.name for t in found.trials] == ["trial_00000_seed=0", "trial_00001_seed=1"]
    assert [c.name for c in found.trials[0].checkpoints] == ["checkpoint_000002", "checkpoint_000010"]
    assert found.trials[1].params["seed"] == 1
    assert "__imports__" not in found.trials[1].params
    assert found.trials[1].last == {"iteration": 3, "env_steps": 300, "episode_return": 4}
    assert found.last_metrics["episode_return"] == 3  # of the best trial
    assert found.metrics.groupby("trial").episode_return.max().tolist() == [3, 4]
    assert "status='done', trials=2" in repr(found)


def test_an_iteration_in_which_no_episode_ended_leaves_the_newest_return(tmp_path: Path) -> None:
    def rows(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": 1, "env_steps": 100, "episode_return": 7.0},
            {"iteration": 2, "env_steps": 200, "episode_return": math.nan},
            {"iteration": 3, "env_steps": 300},
        ]

    found = open_run(write_run(tmp_path / "dqn/t", rows))
    assert found.newest("episode_return") == {"trial_00000_seed=0": 7.0}
    assert found.newest("eval/episode_return") == {}
    assert summary(found)["episode_return"] == 7.0
    assert summary(found)["env_steps"] == 300


def test_words_of_a_resume_belong_to_the_recipe(run: Path) -> None:
    info = RunInfo.read(run)
    info.resumed_with = ["stop.env_steps=200000"]
    info.write(run)
    (run / "recipe.yaml").write_text(RECIPE)
    found = open_run(run)
    assert found.recipe.stop["env_steps"] == 200000
    assert found.trials[0].params["stop"] == {"iteration": 10, "env_steps": 200000}
    for words, message in (
        (["no override"], "KEY=VALUE"),
        ([f"a[{'9' * 5000}]=1"], "not a key"),
        (["stop." + "a." * 5000 + "x=1"], "more than 32 parts"),
        (["callbacks=[{name: gif}]", "callbacks.²=1"], "has no item ²"),
    ):
        info.resumed_with = words
        info.write(run)
        with pytest.raises(CheckpointError, match=rf"run\.json: resumed_with: .*{message}"):
            found.trials[0].params  # noqa: B018


def test_the_best_is_run_jsons_and_the_last_is_the_newest_on_disk(run: Path) -> None:
    first = run / "trial_00000_seed=0"
    assert open_run(run).best_checkpoint == first / "checkpoint_000002"
    assert open_run(run).last_checkpoint == first / "checkpoint_000010"  # run.json is behind after a crash
    (first / "checkpoint_000002/manifest.json").unlink()
    assert open_run(run).best_checkpoint == first / "checkpoint_000010"


@pytest.mark.parametrize(
    ("path", "checkpoint"),
    [
        ("runs/dqn/2026-01-01_00-00-00", "trial_00000_seed=0/checkpoint_000002"),
        ("runs/dqn", "trial_00000_seed=0/checkpoint_000002"),
        ("runs/dqn/2026-01-01_00-00-00/trial_00000_seed=0", "trial_00000_seed=0/checkpoint_000002"),
        ("runs/dqn/2026-01-01_00-00-00/trial_00001_seed=1", "trial_00001_seed=1/checkpoint_000004"),
        (
            "runs/dqn/2026-01-01_00-00-00/trial_00000_seed=0/checkpoint_000010",
            "trial_00000_seed=0/checkpoint_000010",
        ),
    ],
)
def test_a_path_stands_for_a_checkpoint(run: Path, path: str, checkpoint: str) -> None:
    assert find_checkpoint(path) == run / checkpoint
    assert find_checkpoint(Path(path).absolute()).samefile(run / checkpoint)
    assert open_run(path).path.samefile(run)


@pytest.mark.parametrize(
    "path",
    ["../../ppo", "../../ppo/2026-02-02_00-00-00/trial_00000_seed=0", "trial_00000_seed=0/../../../ppo"],
)
def test_dots_in_a_path_lead_to_the_run_behind_them(run: Path, path: str) -> None:
    other = write_run(Path("runs/ppo/2026-02-02_00-00-00"), steps)
    found = open_run(run / path)
    assert (found.name, found.path.samefile(other), found.path.is_absolute()) == ("ppo", True, False)


def test_a_run_that_was_moved_still_finds_its_checkpoints(run: Path, tmp_path: Path) -> None:
    run.rename(tmp_path / "moved")
    assert find_checkpoint("moved") == Path("moved/trial_00000_seed=0/checkpoint_000002")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("runs/dqm", "no such run, trial or checkpoint: runs/dqm; did you mean 'runs/dqn'"),
        ("runs", "runs is not a run folder, nor inside one: no run.json; did you mean 'runs/dqn'"),
        ("rums/dqn", "did you mean 'runs/dqn'"),
        ("nothing", "no such run, trial or checkpoint: nothing; runs here: runs/dqn"),
        ("runs", "runs is not a run folder, nor inside one: no run.json"),
        ("", "got an empty path"),
        ("runs/dqn/2026-01-01_00-00-00/metrics.csv", "neither a trial nor a checkpoint"),
        ("runs/dqn/2026-01-01_00-00-00/trial_00000_seed=0/.writing_x", "neither a trial nor a checkpoint"),
    ],
)
def test_a_wrong_path_is_explained(run: Path, path: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_checkpoint(path)


def test_an_unfinished_checkpoint_is_refused(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a finished checkpoint .* no manifest\.json"):
        find_checkpoint(run / "trial_00000_seed=0/checkpoint_000011")


RECIPE = """
name: dqn
algorithm: DQN
env: mine
stop: {iterations: 3}
config: {training: {lr: !grid [1e-3, 1e-4]}}
callbacks: [{name: NotRegisteredHere}]
"""


def test_recipes_of_a_run_and_of_its_trials(run: Path) -> None:
    (run / "recipe.yaml").write_text(RECIPE)
    recipe = open_run(run).recipe
    assert (recipe.env, recipe.stop, recipe.callbacks[0]["name"]) == (
        "mine",
        {"iteration": 3},
        "NotRegisteredHere",
    )
    assert tuple(recipe.config["training"]["lr"].args) == (1e-3, 1e-4)
    trial = open_run(run).trials[0]
    assert trial.recipe.seed == 0
    (trial.path / "params.json").unlink()
    assert trial.recipe == recipe
    (run / "recipe.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:1"):
        open_run(run).recipe  # noqa: B018


def test_a_trial_whose_name_is_no_text_is_refused_by_name(run: Path) -> None:
    name = os.fsdecode(b"trial_\xff")
    os.rename(run / "trial_00001_seed=1", run / name)
    with pytest.raises(CheckpointError, match=r"trial_\\udcff: got a name that is no UTF-8"):
        _ = open_run(run).trials


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "x/t", lambda seed: [], status="failed")
    with pytest.raises(UsageError, match=r"no finished checkpoint yet \(status: failed\)"):
        find_checkpoint(folder)
    assert open_run(folder).last_metrics == {}
    assert open_run(folder).metrics.empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 7}', r"was written in run folder format 7; this rlkit reads format 1"),
        ("{}", "run folder format None"),
        ("[]", r"run\.json: damaged, got a list, expected an object"),
        ('{"format": 1, "na', r"run\.json: damaged, not JSON"),
    ],
)
def test_another_format_or_a_damaged_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_run(tmp_path)


def test_the_newest_run_of_a_name_by_time_not_by_text(tmp_path: Path) -> None:
    for stamp in ("2026-01-01_00-00-00", "2026-01-01_00-00-00-2", "2026-01-01_00-00-00-10"):
        write_run(tmp_path / "x" / stamp, steps)
    assert open_run(tmp_path / "x").path.name == "2026-01-01_00-00-00-10"


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, "x"), range(24)))
    assert len(set(folders)) == 24
    assert all(f.is_dir() for f in folders)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b"])
def test_a_run_name_is_one_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a folder name"):
        new_run_folder(tmp_path, name)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot create"):
        new_run_folder(tmp_path / "file", "x")
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        new_run_folder(tmp_path, "x")


def test_a_run_whose_process_is_gone_was_interrupted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "x/t", steps, status="running")
    with lock.hold(folder, "train"):
        assert open_run(folder).status == "running"
    assert open_run(folder).status == "interrupted"
    values = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**values, "host": "elsewhere", "later_field": 1}))
    assert open_run(folder).status == "running"  # another machine's processes cannot be seen from here


def test_versions_and_git(tmp_path: Path) -> None:
    assert {"python", "ray", "torch", "gymnasium"} <= set(versions())
    assert git_state(tmp_path) is None
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, env=env)
    clean = git_state(tmp_path)
    assert clean
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**clean, "dirty": True}


def test_reading_runs_stays_light() -> None:
    heavy = ["ray", "torch", "pandas", "numpy", "matplotlib", "gymnasium", "pydantic"]
    code = f"import sys, rlkit.runs.run, rlkit.report; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
