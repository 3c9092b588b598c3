"""`track` with the packages themselves: what a short training wrote is read back with each tracker's own reader.

`make trackers` installs the packages and runs this; elsewhere a tracker that is not installed is skipped.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rlkit

pytestmark = pytest.mark.slow

RECIPE = """\
name: short
algorithm: PPO
env: CartPole-v1
seed: 3
config:
  training: {lr: 0.00123, train_batch_size_per_learner: 128, minibatch_size: 64, num_epochs: 1}
  env_runners: {num_env_runners: 0, num_envs_per_env_runner: 4}
model: {name: mlp, hiddens: [16]}
callbacks: [{name: EpisodeGif, every: 1, max_steps: 20}]
stop: {iterations: 2}
evaluation: {every: 1, episodes: 2}
checkpoint: {best: eval/episode_return}
"""
BLOCK = 32_768
METRICS = ("env_steps", "episode_return", "eval/episode_return", "loss/default_policy/total_loss")


@dataclass
class Done:
    """A training that has ended: its run and what it said."""

    run: rlkit.Run
    said: str

    @property
    def best(self) -> str:
        """The path of the best checkpoint, as trackers are told it."""
        found = self.run.info.best
        assert found is not None
        return str((self.run.path / found.checkpoint).resolve())

    def column(self, name: str) -> list[float]:
        values: list[float] = self.run.metrics[name].tolist()
        return values


def train(folder: Path, tracker: str, **variables: str) -> Done:
    """Train RECIPE in a process of its own, with a tracker."""
    (folder / "short.yaml").write_text(f"{RECIPE}track: [{tracker}]\n")
    return called(folder, ["short.yaml"], 2, **variables)


def resume(folder: Path, *words: str) -> Done:
    """Go on with the training, to three iterations."""
    return called(folder, ["--resume", str(rlkit.open_run(folder / "runs" / "short").path), *words], 3)


def called(folder: Path, words: list[str], rows: int, **variables: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", "train", *words],
        cwd=folder,
        env={**os.environ, "RAY_ADDRESS": "", **variables},
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    run = rlkit.open_run(folder / "runs" / "short")
    assert run.status == "done"
    assert len(run.metrics) == rows
    return Done(run, said)


def records_of(file: Path) -> list[Any]:
    """The records of an offline run of W&B, which has no public reader of its own files (0.31).

    They are a log of LevelDB: a head of 7 bytes, then blocks of 32 KiB with chunks of a head (checksum, length, kind)
    and data; a chunk is a whole record (1), or its first (2), middle (3) or last part (4).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, found, whole = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too little for a head: the block ends
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(Record.FromString(whole))
            whole = b""
    return found


def items(updates: Any) -> dict[str, Any]:
    """Keys and values of W&B's list of updates; of a nested key its parts joined by a slash."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = train(tmp_path, "wandb", WANDB_MODE="offline")
    assert "goes on without it" not in done.said
    (file,) = (tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb")
    records = records_of(file)
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.project, run.run_group) == ("short", done.run.path.name)
    assert run.display_name == f"{done.run.path.name}/{done.run.trials[0].name}"
    config = items(run.config.update)
    for record in records:
        config |= items(record.config.update) if record.HasField("config") else {}
    assert config["config"]["training"]["lr"] == 0.00123
    assert config["seed"] == 3
    assert config["best_checkpoint"] == done.best
    rows = [items(record.history.item) for record in records if record.HasField("history")]
    for name in METRICS:
        assert [row[name] for row in rows if name in row and "iteration" in row] == done.column(name), name
    axes = {
        record.metric.glob_name: record.metric.step_metric for record in records if record.HasField("metric")
    }
    assert axes["*"] == "env_steps"
    assert not any("training_iteration" in row for row in rows)
    ((video, steps),) = [(row["video/path"], row["env_steps"]) for row in rows if "video/path" in row]
    assert steps == done.column("env_steps")[-1]
    assert (file.parent / "files" / video).read_bytes().startswith(b"GIF8")


def test_mlflow_in_its_own_store(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    done = train(tmp_path, "mlflow")
    assert "goes on without it" not in done.said
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("short").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["config/training/lr"] == "0.00123"
    assert run.data.params["seed"] == "3"
    for name in METRICS:
        points = client.get_metric_history(run.info.run_id, name)
        assert [point.value for point in points] == done.column(name), name
        assert [point.step for point in points] == done.column("env_steps"), name
    assert run.data.tags["best_checkpoint"] == done.best
    (film,) = client.list_artifacts(run.info.run_id)
    assert film.path == "iteration_000002.gif"
    files = list((tmp_path / "runs" / "mlflow-files").rglob(film.path))
    assert [file.read_bytes()[:4] for file in files] == [b"GIF8"]


def test_a_resumed_trial_goes_on_in_its_run_of_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    train(tmp_path, "mlflow")
    done = resume(tmp_path, "stop.iteration=3")
    assert "goes on without it" not in done.said
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("short").experiment_id])
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "episode_return")
    assert [point.step for point in points] == done.column("env_steps")


def test_trackio_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    pytest.importorskip("trackio")
    done = train(tmp_path, "trackio")
    assert "goes on without it" not in done.said
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("short")
    assert name == f"{done.run.path.name}/{done.run.trials[0].name}"
    config = SQLiteStorage.get_run_config("short", name)
    assert config["config/training/lr"] == 0.00123
    assert config["seed"] == 3
    rows = SQLiteStorage.get_logs("short", name)
    for metric in METRICS:
        assert [row[metric] for row in rows if metric in row] == done.column(metric), metric
    assert [row["step"] for row in rows if "env_steps" in row] == done.column("env_steps")
    assert [row["best_checkpoint"] for row in rows if "best_checkpoint" in row] == [done.best]
    (video,) = [row["video"] for row in rows if "video" in row]
    assert list((tmp_path / "trackio").rglob("*.gif")), video


def test_a_server_that_is_not_there_is_told_of_once_and_the_training_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    done = train(tmp_path, "mlflow", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    words = " ".join(done.said.split())
    assert words.count("mlflow: ") == words.count("; the training goes on without it") == 1, done.said
    assert "127.0.0.1" in words


def test_wandb_s_server_that_is_not_there_is_told_of_once_and_the_training_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = train(
        tmp_path,
        "wandb",
        WANDB_MODE="online",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY="0123456789" * 4,
        WANDB_INIT_TIMEOUT="5",
    )
    words = " ".join(done.said.split())
    assert words.count("wandb: ") == words.count("; the training goes on without it") == 1, done.said
