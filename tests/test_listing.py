"""`rlkit runs` and `rlkit runs clean`: what is listed, what is kept, what is left alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from run_folders import write_checkpoint, write_run
from typer.testing import CliRunner

from rlkit.cli import app
from rlkit.errors import UsageError
from rlkit.report.run_table import value
from rlkit.runs import lock
from rlkit.runs.listing import cleanable, find_runs, list_runs
from rlkit.runs.run import Best, RunInfo


def rows(seed: int) -> list[dict[str, float]]:
    return [{"iteration": i, "env_steps": 100.0 * i, "episode_return": float(i)} for i in (1, 2, 3)]


def a_run(folder: Path, status: str = "done") -> Path:
    """Four checkpoints; number 2 is the best."""
    run = write_run(folder, rows, status=status)
    trial = run / "trial_00000_seed=0"
    for number in (1, 2, 3, 4):
        (write_checkpoint(trial, number) / "weights.bin").write_bytes(b"x" * 1000)
    (trial / ".writing_1_x").write_text("half")
    info = RunInfo.read(run)
    entry = Best(trial.name, f"{trial.name}/checkpoint_000002", "episode_return", 9.0)
    info.best, info.trial_best = entry, {trial.name: entry}
    info.write(run)
    return run


def test_runs_are_listed_filtered_and_as_json(tmp_path: Path) -> None:
    a_run(tmp_path / "dqn/t")
    write_run(tmp_path / "ppo/t", rows, status="failed")
    assert {row.name for row in list_runs([tmp_path])} == {"dqn", "ppo"}
    assert [row.name for row in list_runs([tmp_path], "d*")] == ["dqn"]
    assert [row.name for row in list_runs([tmp_path], status="failed")] == ["ppo"]
    with pytest.raises(UsageError, match="did you mean 'failed'"):
        list_runs([tmp_path], status="failedd")
    with pytest.raises(UsageError, match="no such folder"):
        list_runs([tmp_path / "nowhere"])
    found = json.loads(CliRunner().invoke(app, ["runs", "--in", str(tmp_path), "--json"]).stdout)
    best = {row["name"]: (row["status"], row["best"], row["env_steps"]) for row in found}
    assert best == {"dqn": ("done", 9.0, 300), "ppo": ("failed", None, 300)}


def test_a_damaged_run_is_listed_with_what_is_wrong(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x/t", rows)
    (run / "run.json").write_bytes(b"\xff\x00{")
    (row,) = list_runs([tmp_path])
    assert row.status == "damaged"
    assert "run.json" in row.note


def test_escapes_in_a_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "x\x1b[31m/t", rows, name="a")
    result = CliRunner().invoke(app, ["runs", "--in", str(tmp_path)])
    assert "\x1b[31m" not in result.stdout
    assert "\\x1b" in result.stdout.replace("\n", "").replace(" ", "")


def test_clean_keeps_best_and_last_and_asks(tmp_path: Path) -> None:
    run = a_run(tmp_path / "dqn/t")
    trial = run / "trial_00000_seed=0"
    names = {path.name for path in cleanable(run).folders}
    assert names == {"checkpoint_000001", "checkpoint_000003", ".writing_1_x"}
    asked = CliRunner().invoke(app, ["runs", "clean", str(tmp_path)], input="n\n")
    assert asked.exit_code == 1
    assert (trial / "checkpoint_000001").is_dir()
    done = CliRunner().invoke(app, ["runs", "clean", str(tmp_path), "--yes"])
    assert "freed 2.0 kB" in done.stdout
    assert sorted(path.name for path in trial.glob("*")) == [
        "checkpoint_000002",
        "checkpoint_000004",
        "params.json",
    ]
    assert "nothing to remove" in CliRunner().invoke(app, ["runs", "clean", str(tmp_path), "--yes"]).stdout


def test_clean_leaves_a_running_and_a_damaged_run_alone(tmp_path: Path) -> None:
    running = a_run(tmp_path / "a/t", status="running")
    with lock.hold(running, "train"):
        assert cleanable(running).note.startswith(f"in use by process {os.getpid()} on ")
    assert cleanable(running).folders  # whoever trained it is gone
    damaged = a_run(tmp_path / "b/t")
    (damaged / "run.json").write_text("{")
    found = cleanable(damaged)
    assert not found.folders
    assert "run.json" in found.note


def test_clean_follows_no_link(tmp_path: Path) -> None:
    run, other = a_run(tmp_path / "runs/a/t"), tmp_path / "elsewhere"
    write_checkpoint(other, 1)
    (run / "trial_00000_seed=0" / "checkpoint_000009").symlink_to(other / "checkpoint_000001")
    CliRunner().invoke(app, ["runs", "clean", str(tmp_path / "runs"), "--yes"])
    assert (other / "checkpoint_000001").is_dir()


def test_clean_leaves_a_run_alone_whose_best_checkpoint_is_gone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "dqn/t")
    shutil.rmtree(run / "trial_00000_seed=0" / "checkpoint_000002")
    found = cleanable(run)
    assert not found.folders
    assert found.note.startswith("its best checkpoint trial_00000_seed=0/checkpoint_000002 is gone")


def test_clean_takes_each_run_once_and_no_options_of_the_list(tmp_path: Path) -> None:
    run = a_run(tmp_path / "dqn/t")
    assert list(find_runs([tmp_path, run, tmp_path / "dqn"])) == [run]
    with pytest.raises(UsageError, match=f"is inside a run; name the run, {run}"):
        list(find_runs([run / "trial_00000_seed=0"]))
    for words in (["--in", str(tmp_path)], ["--name", "x"], ["--json"]):
        refused = CliRunner().invoke(app, ["runs", *words, "clean", "--yes"])
        assert isinstance(refused.exception, UsageError)
        assert f"{words[0]} is an option of the list" in str(refused.exception)
    assert cleanable(run).folders


def test_a_small_best_value_is_not_shown_as_nothing(tmp_path: Path) -> None:
    assert [value(x) for x in (0.0, 0.0003, -0.0123, 1.25, 1234.56)] == [
        "0.0",
        "0.0003",
        "-0.0123",
        "1.2",
        "1,234.6",
    ]
