"""The short form of `make faults`: locks, readers, damage, malformed folders, disks, signals, trials side by side."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import corruption
import disks
import kills
import malformed
import reader
import reliability
import signals
import trials

import rlkit
from rlkit.errors import CheckpointError, RunFailed, UsageError
from rlkit.launch import processes
from rlkit.runs import lock, manifest
from rlkit.runs.metrics_csv import MetricsWriter, last_rows
from rlkit.runs.reading import open_regular, parse_object
from rlkit.runs.run import RunInfo

RECIPE: dict[str, Any] = {
    **kills.recipe("PPO"),
    "name": "faults",
    "stop": {"iterations": 2},
    "checkpoint": {"every": 1},
}
RECIPE["config"]["env_runners"]["num_env_runners"] = 0


@pytest.fixture(scope="module")
def trained(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rlkit.train(RECIPE, out=tmp_path_factory.mktemp("runs")).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "faults" / trained.name))


# -- one writer --


def test_a_run_in_use_is_not_resumed_nor_cleaned_and_the_holder_is_named(run: Path) -> None:
    before = {path: path.stat().st_mtime for path in run.rglob("*") if path.name != lock.NAME}
    who = rf"is in use by process {os.getpid()} on \S+, since 20"
    with lock.hold(run, "train"):
        with pytest.raises(UsageError, match=rf"--resume: .*{who}"):
            rlkit.resume(run, ["stop.iterations=3"])
        assert malformed.call("runs", "--in", run)[0] == 0  # reading goes on
    assert {path: path.stat().st_mtime for path in run.rglob("*") if path.name != lock.NAME} == before


def test_the_lock_of_a_process_that_was_killed_is_free(run: Path) -> None:
    hold = f"with lock.hold({str(run)!r}, 'x'):\n    print('held', flush=True)\n    input()"
    code = f"from rlkit.runs import lock\n{hold}"
    held = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    assert f"process {held.pid} on" in str(lock.holder(run))
    held.kill()
    held.communicate()
    assert lock.holder(run) is None
    with lock.hold(run, "x"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    (run / lock.NAME).unlink()
    (run / lock.NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"cannot write .*run\.lock"), lock.hold(run, "train"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_is_read_while_it_writes_checkpoints(tmp_path: Path) -> None:
    assert reader.attempt("PPO", tmp_path, rounds=4) == (12, [])


# -- one of several trials --


def test_a_trial_that_its_environment_ends_changes_nothing_in_the_others(
    ray_local: None, tmp_path: Path
) -> None:
    alone = trials.Alone(tmp_path / "alone", iterations=6)
    with pytest.raises(RunFailed, match=r"\(1 of 3 trials failed\): its process ended without an exception"):
        rlkit.train(trials.recipe("poisoned", 6), out=tmp_path / "three", imports=[str(trials.MODULE)])
    (run,) = tmp_path.glob("three/*/*")
    assert not trials.compare(run, "poisoned", alone)


# -- what strangers write --


def test_commands_over_malformed_run_folders_end_with_a_message(trained: Path, tmp_path: Path) -> None:
    tried, bad = malformed.try_all(trained, tmp_path / "work", lambda number: number % 41 == 0)
    assert not bad
    assert tried > 30


def test_a_trial_named_with_an_escape_is_shown_without_it(run: Path) -> None:
    trial = next(run.glob("trial_*"))
    trial.rename(trial.with_name("trial_00000_\x1b[31m"))
    code, wrote = malformed.call("evaluate", run, "--episodes", 1)
    assert code == 0, wrote
    assert "trial_00000_\\x1b[31m/checkpoint_" in wrote
    assert "\x1b" not in wrote


def test_a_checkpoint_whose_recipe_names_no_environment_is_refused(run: Path) -> None:
    for checkpoint in run.glob("trial_*/checkpoint_*"):
        (checkpoint / manifest.NAME).unlink()
        manifest.write(checkpoint, recipe={"name": "x"}, iteration=1, env_steps=1)
    code, wrote = malformed.call("evaluate", run, "--episodes", 1)
    assert "its recipe names no environment, got env: None" in wrote
    assert code == 2


@pytest.mark.parametrize("name", ["a pipe", "a folder", "a link out", "a link to a device"])
def test_only_regular_files_are_opened(name: str, tmp_path: Path) -> None:
    malformed.FILES[name](tmp_path / "run.json")
    with pytest.raises(
        CheckpointError, match=r"run\.json: got a (pipe|folder|link), expected a regular file"
    ):
        open_regular(tmp_path / "run.json")


def test_a_key_of_another_type_is_named_with_what_was_got(run: Path) -> None:
    malformed._key("seed", "\x1b[31m")(run / "run.json")
    with pytest.raises(
        CheckpointError, match=r"run\.json: seed: input should be a valid integer, got text '\\x1b"
    ):
        rlkit.open_run(run)


def test_json_nested_too_deep_is_said() -> None:
    for text in ('{"a":' * 70 + "1" + "}" * 70, malformed.DEEP):
        with pytest.raises(CheckpointError, match="nested deeper than 64 levels"):
            parse_object(text, "x.json")


def test_a_count_that_cannot_be_is_named_with_its_trial(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("trial,iteration,env_steps,loss\na,1,2,nan\na,2,1e308,inf\n")
    with pytest.raises(CheckpointError, match=r"metrics\.csv: env_steps of a is '1e308', expected a count"):
        last_rows(path)
    path.write_text("trial,iteration,env_steps,loss\na,1,2,nan\na,2,3,inf\n")
    assert last_rows(path)["a"]["loss"] == float("inf")


# -- damage --


def test_damage_is_refused_before_anything_is_unpickled(trained: Path, tmp_path: Path) -> None:
    tried, bad = corruption.matrix(max(trained.glob("trial_*/checkpoint_*")), tmp_path, manifest.verify)
    assert not bad
    assert tried > 100


def test_a_resume_falls_back_past_the_damage(run: Path) -> None:
    lost, bad = corruption.resume_past(max(run.glob("trial_*/checkpoint_*")))
    assert not bad
    assert lost == 1


def test_a_trial_that_died_while_it_saved_does_not_stop_at_the_first_checkpoint_of_the_resume(
    run: Path,
) -> None:
    """Tune keeps the decision to stop it in its state."""
    path = max(run.glob("experiment_state-*.json"))
    tune_state = json.loads(path.read_text())
    (trial, _), *_ = tune_state["trial_data"]
    trial_id = json.loads(trial)["trial_id"]
    tune_state["runner_data"]["_cached_trial_decisions"] = {trial_id: "STOP"}
    path.write_text(json.dumps(tune_state))
    again = rlkit.resume(run, ["stop.iterations=5"], trust=True)
    assert list(again.metrics["iteration"]) == [1, 2, 3, 4, 5]


def test_force_is_suggested_only_to_who_has_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = max(trained.glob("trial_*/checkpoint_*"))
    monkeypatch.setattr(manifest, "versions", lambda: {"python": "3.99", "ray": "9.9", "rlkit": "9"})
    with pytest.raises(CheckpointError, match="was written with python") as caught:
        manifest.verify(checkpoint)
    assert "--force" not in str(caught.value)
    with pytest.raises(CheckpointError, match="--force"):
        rlkit.load(checkpoint)


# -- disks --


def test_a_disk_full_in_a_checkpoint_names_path_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_000001"
    path.mkdir()
    (path / "half.pkl").write_bytes(b"x" * 1000)
    error = OSError(errno.ENOSPC, "No space left on device", str(path / "half.pkl"))
    said = manifest.cannot_write(error, path)
    assert said.startswith(
        f"cannot write {path / 'half.pkl'}: No space left on device (1,000 bytes needed so far, "
    )
    assert said.endswith(" free)")


def test_a_disk_full_in_the_driver_ends_the_run_as_failed(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written any more but run.json, and that only into the space the lock gives up."""
    full, write = False, RunInfo.write

    def table(self: MetricsWriter, trial: str, row: object) -> None:
        nonlocal full
        full = True
        raise OSError(errno.ENOSPC, "No space left on device")

    def info(self: RunInfo, folder: Path) -> None:
        if full and (Path(folder) / lock.NAME).stat().st_size > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, folder)

    monkeypatch.setattr(MetricsWriter, "write", table)
    monkeypatch.setattr(RunInfo, "write", info)
    with pytest.raises(
        RunFailed, match=r"cannot write .*faults.*: No space left on device \([\d,]+ bytes free\)"
    ):
        rlkit.train(RECIPE, out=tmp_path)
    (folder,) = tmp_path.glob("faults/*")
    assert rlkit.open_run(folder).info.status == "failed"


@pytest.mark.slow
@pytest.mark.skipif(not disks.possible(), reason="needs a mount namespace of its own")
@pytest.mark.parametrize("kind", disks.KINDS)
def test_a_file_system_that_gives_out_leaves_a_run_that_goes_on(kind: str) -> None:
    assert not disks.attempt("PPO", kind, 0.5)


# -- processes --


def test_processes_of_the_user_are_not_taken_for_rays() -> None:
    own = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert own.pid not in processes.of_ray()
    finally:
        own.communicate(b"\n")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.rglob(lock.NAME):
        assert lock.holder(path.parent) is None


@pytest.mark.parametrize(
    "name", ["SIGTERM while it starts", "SIGHUP", "SIGTERM twice", "SIGTERM while Ray shuts down"]
)
def test_signals_end_a_run_as_they_should(name: str, folder: Path) -> None:
    case = signals.CASES[name]
    ended = signals.send(
        signals.start(signals.recipe(folder), folder),
        folder,
        case.numbers,
        while_starting=case.starting,
        late=case.late,
    )
    assert not signals.problems(case, ended)


@pytest.mark.slow
@pytest.mark.parametrize("victim", kills.VICTIMS)
def test_a_kill_loses_at_most_one_interval(victim: str, tmp_path: Path) -> None:
    assert not kills.try_one(victim, "PPO", tmp_path / victim, random.Random(0)).problems


# -- the page --


def test_the_page_is_made_of_the_tries() -> None:
    said = "write it anew: python tests/faults --rows ''"
    assert reliability.page() == reliability.PAGE.read_text(), said


def test_a_try_is_stamped_and_its_day_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"row": "F1", "what": "runner, PPO", "tries": 1, "held": 1, "problems": []}
    monkeypatch.setattr(reliability, "LOG", tmp_path / "tries.jsonl")
    reliability.LOG.write_text(json.dumps(old) + "\n")
    assert "| runner | 1 | 1 | – | – | – |" in reliability.page()
    reliability.note(old)
    stamped = json.loads(reliability.LOG.read_text().splitlines()[-1])
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", stamped["date"])
    assert re.fullmatch(r"[0-9a-f]{10}\+?|", stamped["commit"])
    assert f"| runner | 2 | 2 | – | – | {stamped['date']} |" in reliability.page()
