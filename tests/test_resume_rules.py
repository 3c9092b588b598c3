"""What `--resume` goes on with: which trials, and which modules. Nothing trains here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from run_folders import write_run

from rlkit import registry
from rlkit.errors import UsageError
from rlkit.files import sha256
from rlkit.launch import train
from rlkit.launch.experiment import Experiment
from rlkit.runs import seal
from rlkit.runs.run import RunInfo, Status

RECIPE = "name: a\nalgorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 10}\n"


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """What would train."""
    found: list[Experiment] = []
    monkeypatch.setattr(train.tune_run, "run", found.append)
    return found


def run_of(folder: Path, status: Status, imports: list[str] | None = None) -> Path:
    write_run(folder, lambda seed: [{"iteration": 1.0}])
    (folder / "recipe.yaml").write_text(RECIPE)
    info = RunInfo(
        name="a", status=status, imports=imports or [], recipe_sha256=sha256(folder / "recipe.yaml")
    )
    staging = folder.parent / "tune"
    staging.mkdir()
    (staging / "experiment_state-1.json").write_text("{}")
    seal.put(folder, info, staging)
    shutil.rmtree(staging)
    return folder


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([], "unfinished"),
        (["tune.max_failures=3"], "unfinished"),
        (["stop.iterations=20"], "finished"),
        (["tune.max_failures=3", "stop={iterations: 20}"], "finished"),
    ],
)
def test_finished_trials_go_on_to_a_new_limit_alone(
    tmp_path: Path, begun: list[Experiment], words: list[str], mode: str
) -> None:
    train.resume(run_of(tmp_path / "a/t", "failed"), words)
    assert [experiment.resume for experiment in begun] == [mode]


def test_a_new_limit_holds_until_tune_has_saved_it(tmp_path: Path, begun: list[Experiment]) -> None:
    """A resume that ends while it starts leaves finished trials in Tune's state; the next one lets them go on."""
    run = run_of(tmp_path / "a/t", "done")
    train.resume(run, ["stop.iterations=20"])
    info = begun[-1].info
    info.status = "interrupted"
    info.write(run)
    train.resume(run)
    assert [experiment.resume for experiment in begun] == ["finished", "finished"]
    info, staging = begun[-1].info, tmp_path / "tune"
    staging.mkdir()
    (staging / "experiment_state-1.json").write_text('{"saved": 1}')
    seal.put(run, info, staging)
    info.status = "interrupted"
    info.write(run)
    train.resume(run)
    assert begun[-1].resume == "unfinished"


def test_an_address_where_nothing_answers_is_not_kept(tmp_path: Path, begun: list[Experiment]) -> None:
    run = run_of(tmp_path / "a/t", "interrupted")
    with pytest.raises(UsageError, match=r"nothing answers there .* --resume RUN --address local"):
        train.resume(run, address="127.0.0.1:1")
    info = RunInfo.read(run)
    assert (info.status, info.address) == ("interrupted", None)
    info.address = "127.0.0.1:1"  # of a cluster that has gone
    info.write(run)
    train.resume(run, address="local")
    assert begun[0].info.address is None


def test_a_lock_that_is_a_pipe_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a/t", "interrupted")
    os.mkfifo(run / "run.lock")
    with pytest.raises(UsageError, match=r"run\.lock: got a pipe or device, expected a regular file"):
        train.resume(run)


def test_a_finished_run_needs_a_new_limit(tmp_path: Path, begun: list[Experiment]) -> None:
    run = run_of(tmp_path / "a/t", "done")
    with pytest.raises(UsageError, match=r"is finished; to go on give a new limit"):
        train.resume(run, ["tune.max_failures=3"])
    assert not begun
    train.resume(run, ["tune.max_failures=3", "stop.iterations=20"])
    assert begun[0].recipe.tune.max_failures == 3


def test_a_module_that_was_moved_is_given_anew(tmp_path: Path, begun: list[Experiment]) -> None:
    here = tmp_path / "new" / "moved_parts.py"
    here.parent.mkdir()
    here.write_text("")
    run = run_of(tmp_path / "a/t", "interrupted", ["/gone/moved_parts.py", "json"])
    with pytest.raises(UsageError, match=r"--import /gone/moved_parts.py: no such file"):
        train.resume(run)
    train.resume(run, imports=[str(here)])
    assert begun[0].info.imports == ["json", str(here)]
    assert registry.imports() == ["json", str(here)]
