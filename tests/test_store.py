"""Runs in object storage: what is copied when, what a crash or a stranger leaves, and a run trained and read there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from run_folders import write_checkpoint, write_run
from test_launch import TINY
from typer.testing import CliRunner

import rlkit
from rlkit.cli import app
from rlkit.errors import CheckpointError, UsageError
from rlkit.launch.initial import sources
from rlkit.launch.mirror import Away, Mirror
from rlkit.report.groups import read_trials
from rlkit.runs import listing, lock, seal, store
from rlkit.runs.listing import find_runs, list_runs
from rlkit.runs.run import RunInfo, find_checkpoint, new_run_folder, open_run
from rlkit.runs.store import Store

MOTO = shutil.which("moto_server")


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RLKIT_STORES", str(tmp_path / "here"))
    return f"file://{tmp_path}/bucket"


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go on as another machine, whose staging folders are empty."""
    monkeypatch.setenv("RLKIT_STORES", str(tmp_path / "there"))


def made(bucket: str) -> tuple[Path, RunInfo]:
    """A run of one trial in its staging folder, with a state of Tune that run.json knows."""
    folder = new_run_folder(f"{bucket}/runs", "my")
    folder.rmdir()
    write_run(folder, lambda seed: [{"iteration": 1.0}], status="running")
    info = RunInfo.read(folder)
    state(folder, info, "one")
    return folder, info


def state(folder: Path, info: RunInfo, content: str) -> None:
    staging = folder.parent / "tune"
    staging.mkdir(exist_ok=True)
    (staging / "experiment_state-1.json").write_text(content)
    seal.put(folder, info, staging)
    shutil.rmtree(staging)


def copied(mirror: Mirror) -> None:
    mirror.sync()
    mirror.wait()


def test_runs_in_object_storage_are_compared(bucket: str, tmp_path: Path) -> None:
    folder, info = made(bucket)
    copied(Mirror(folder, info))
    shutil.rmtree(folder)
    for place in (f"{bucket}/runs/my", f"{bucket}/runs/my/{folder.name}"):
        (trial,) = read_trials([place], [])
        assert trial.path.parent == folder


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/runs/my", "s3/bucket/runs/my"),
        ("s3:/bucket/runs", "s3/bucket/runs"),  # what pathlib leaves
        ("gs://bucket/a b", "gs/bucket/a b"),
        ("file:///tmp/x", "file/tmp/x"),
        ("s3://bucket/x?region=eu-1&scheme=http", "s3%3Fregion%3Deu-1%26scheme%3Dhttp/bucket/x"),
    ],
)
def test_a_uri_has_one_staging_folder_and_back(uri: str, path: str, tmp_path: Path) -> None:
    folder = store.staging(uri)
    assert folder == tmp_path / "here" / path
    assert store.place_of(folder) == uri.replace("s3:/b", "s3://b").replace(" ", "%20")
    assert (
        store.place_of(folder / "trial_0").partition("?")[0]
        == f"{store.place_of(folder).partition('?')[0]}/trial_0"
    )


def test_a_folder_of_a_file_system_is_no_store(tmp_path: Path) -> None:
    assert sources("s3://b/runs/x#prey") == {"*": "s3://b/runs/x#prey"}
    assert not any(map(store.is_uri, ["runs", "/tmp/runs", "C:/runs", "./s3:/x", Path("runs"), "a b://c"]))
    assert store.place_of(tmp_path) == str(tmp_path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "expected s3://BUCKET/FOLDER"),
        ("s3://b/../c", "expected s3://BUCKET/FOLDER"),
        ("s3://key:word@b/runs", "keys by the environment"),
        ("s3://b/runs?secret_key=abc", "keys by the environment"),
        ("s3://AKIAX:abc%2Fdef@b/runs", "keys by the environment"),
        ("s3://AKIAX:abc/def@b/runs", "keys by the environment"),
        ("nope://b/runs", "cannot open nope://b/runs"),
    ],
)
def test_a_uri_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Store(uri)
    assert "word" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_run_is_copied_and_checkpoints_come_and_go_by_their_manifest(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    trial = open_run(folder).trials[0].path
    first = write_checkpoint(trial, 1)
    write_checkpoint(trial, 2, finished=False)
    (folder / "run.lock").write_text("")
    (trial / ".writing_x").write_text("half")
    order: list[str] = []
    put = Store.put_file
    monkeypatch.setattr(
        Store, "put_file", lambda self, name, path: (order.append(name), put(self, name, path))
    )
    mirror = Mirror(folder, info)
    mirror.begin()
    there = Store(store.place_of(folder))
    assert sorted(there.listing()) == [
        "experiment_state-1.json", "metrics.csv", "run.json", f"{trial.name}/checkpoint_000001/manifest.json",
        f"{trial.name}/checkpoint_000001/rllib_checkpoint.json", f"{trial.name}/params.json",
    ]  # fmt: skip
    assert order[1] == f"{trial.name}/checkpoint_000001/manifest.json"
    order.clear()
    shutil.rmtree(first)
    write_checkpoint(trial, 3)
    with (folder / "metrics.csv").open("a") as file:
        file.write("more\n")
    copied(mirror)
    assert order == [
        f"{trial.name}/checkpoint_000003/{name}" for name in ("rllib_checkpoint.json", "manifest.json")
    ] + ["metrics.csv"]
    assert not any("checkpoint_000001" in name for name in there.listing())
    assert mirror.close() is None


def test_files_that_callbacks_write_below_a_trial_are_copied(bucket: str) -> None:
    folder, info = made(bucket)
    trial = open_run(folder).trials[0].path
    mirror = Mirror(folder, info)
    mirror.begin()
    for name in (
        "gifs/1.gif",
        "kept/learner/state.pkl",
        ".kept.new/half",
        "gifs/.half",
        "checkpoint_000009/half",
    ):
        (trial / name).parent.mkdir(exist_ok=True, parents=True)
        (trial / name).write_text("x")
    (trial / "gifs" / "link").symlink_to("/etc/hostname")
    copied(mirror)
    there = {name.partition("/")[2] for name in Store(store.place_of(folder)).listing() if "/" in name}
    assert there == {"params.json", "gifs/1.gif", "kept/learner/state.pkl"}
    shutil.rmtree(trial / "gifs")
    copied(mirror)
    assert mirror.trouble is None


def test_a_plain_folder_is_not_copied(tmp_path: Path) -> None:
    write_run(tmp_path / "x" / "1", lambda seed: [])
    mirror = Mirror(tmp_path / "x" / "1", RunInfo(name="x"))
    mirror.begin()
    mirror.tick(at_once=True)
    assert mirror.close() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_a_copy_that_breaks_off_leaves_a_run_that_verifies(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    mirror = Mirror(folder, info)
    mirror.begin()
    for content in ("two", "three"):  # two writes between two copies
        state(folder, info, content)
    put = Store.put

    def broken(self: Store, name: str, content: bytes) -> None:
        if name.startswith("experiment_state"):
            raise UsageError("cannot write it: the line is cut")
        put(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", broken)
        copied(mirror)
        assert mirror.trouble == "cannot write it: the line is cut"
        assert mirror.close() == f"cannot write it: the line is cut; the run is whole in {folder}"
        elsewhere(patch, tmp_path)
        fetched = open_run(f"{bucket}/runs/my").path
        assert (fetched / "experiment_state-1.json").read_text() == "one"
        assert seal.verify(fetched).name == "my"
    copied(mirror)
    assert mirror.trouble is None
    elsewhere(monkeypatch, tmp_path)
    fetched = open_run(f"{bucket}/runs/my").path
    assert (fetched / "experiment_state-1.json").read_text() == "three"
    assert seal.verify(fetched).name == "my"


def test_what_is_newer_here_stays_and_a_run_that_trains_here_is_not_touched(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    Mirror(folder, info).begin()
    uri = store.place_of(folder)
    elsewhere(monkeypatch, tmp_path)
    table = open_run(uri).path / "metrics.csv"
    content = table.read_text()
    table.write_text("newer")
    os.utime(table, (time.time() + 60, time.time() + 60))
    assert open_run(uri).path == table.parent
    assert table.read_text() == "newer"
    os.utime(table, (1, 1))
    open_run(uri)
    assert table.read_text() == content
    with lock.hold(table.parent, "train"):
        os.utime(table, (1, 1))
        table.write_text("older?")
        os.utime(table, (1, 1))
        open_run(uri)
        assert table.read_text() == "older?"


def test_a_run_a_trial_and_a_checkpoint_are_found_by_their_uri(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    trial = open_run(folder).trials[0].path
    write_checkpoint(trial, 1)
    write_checkpoint(trial, 2)
    Mirror(folder, info).begin()
    elsewhere(monkeypatch, tmp_path)
    run = f"{bucket}/runs/my/{folder.name}"
    for place in (f"{bucket}/runs/my", run, f"{run}/{trial.name}"):
        assert store.place_of(find_checkpoint(place)) == f"{run}/{trial.name}/checkpoint_000002"
    one = find_checkpoint(f"{run}/{trial.name}/checkpoint_000001")
    assert store.place_of(one) == f"{run}/{trial.name}/checkpoint_000001"
    for nothing in (f"{bucket}/runs/your", f"{run}/trial_9", f"{bucket}/runs"):
        with pytest.raises(UsageError, match="no such run, trial or checkpoint: file://"):
            find_checkpoint(nothing)


def test_runs_of_a_store_are_listed_without_their_checkpoints(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    trial = open_run(folder).trials[0].path
    write_checkpoint(trial, 1)
    Mirror(folder, info).begin()
    uri = store.place_of(folder)
    elsewhere(monkeypatch, tmp_path)
    for place in (bucket, f"{bucket}/runs/my", uri, Path(uri)):
        (row,) = list_runs([place], "*/my/*")
        assert (row.place, row.name, row.status, row.trials) == (uri, "my", open_run(row.path).status, 1)
        assert row.size == listing.size_of(tmp_path / "bucket" / "runs" / "my" / folder.name)
        assert row.age_s < 600
    elsewhere(monkeypatch, tmp_path / "again")
    (row,) = list_runs([bucket])
    assert {path.name for path in row.path.rglob("*") if path.is_file()} == {
        "run.json",
        "metrics.csv",
        "params.json",
    }
    result = CliRunner().invoke(app, ["runs", "--in", bucket, "--json"])
    assert [found["path"] for found in json.loads(result.stdout)] == [uri]
    with pytest.raises(UsageError, match="no such folder: file://"):
        list_runs([f"{bucket}/nowhere"])
    there = tmp_path / "bucket" / "runs"
    (there / "loop").symlink_to(there)
    shutil.copytree(there / "my", there / "our old runs, 50 %")
    names = sorted(row.place for row in list_runs([bucket]))
    assert names == sorted([uri, uri.replace("/my/", "/our%20old%20runs,%2050%20%25/")])
    assert open_run(names[1]).name == "my"
    assert store.uri_of(store.staging(names[1])) == names[1]
    (there / os.fsdecode(b"bad\xff")).mkdir()
    (there / os.fsdecode(b"bad\xff") / "run.json").touch()
    with pytest.raises(UsageError, match=r"cannot read file://.*surrogates"):
        list_runs([bucket])
    with pytest.raises(UsageError, match="expected file://BUCKET/FOLDER"):
        store.staging(f"{bucket}/%2e%2e/elsewhere")
    with pytest.raises(UsageError, match="cleaned in folders of this machine"):
        list(find_runs([bucket]))


def test_a_name_that_leads_out_of_the_run_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    Mirror(folder, info).begin()
    uri = store.place_of(folder)
    elsewhere(monkeypatch, tmp_path)
    listing = Store.listing
    evil = {"../../evil": store.Found(1, 1.0)}
    monkeypatch.setattr(Store, "listing", lambda self, below="": {**listing(self, below), **evil})
    with pytest.raises(CheckpointError, match=r"holds '\.\./\.\./evil', expected names inside"):
        open_run(uri)


def test_a_trial_on_another_node_sends_its_checkpoints_and_gets_them_back(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    mirror = Mirror(folder, info)
    mirror.begin()
    name = open_run(folder).trials[0].name
    remote = tmp_path / "node" / name
    away = Away({"uri": store.place_of(folder), "node": "x"}, remote)
    away.send(write_checkpoint(remote, 1))
    assert not list(remote.iterdir())
    mirror.fetch((folder / name).resolve() / "checkpoint_000001")
    assert (folder / name / "checkpoint_000001" / "manifest.json").is_file()
    copied(mirror)
    away.fetch(remote)
    assert (remote / "checkpoint_000001" / "rllib_checkpoint.json").is_file()


def test_a_run_that_trains_on_another_machine_is_not_resumed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, info = made(bucket)
    monkeypatch.setattr(socket, "gethostname", lambda: "far")
    Mirror(folder, info).begin()
    monkeypatch.undo()
    elsewhere(monkeypatch, tmp_path)
    with pytest.raises(
        UsageError, match=rf"is in use by process {os.getpid()} on far, which wrote \d+ s ago"
    ):
        rlkit.resume(f"{bucket}/runs/my")


def test_a_store_that_cannot_be_written_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot write file:///.*/bucket/runs/tiny"):
        rlkit.train(TINY, out=f"file://{tmp_path}/bucket/runs")


def trained_and_read(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rlkit.train({**TINY, "checkpoint": {"every": 1, "keep": 1}}, out=uri)
    assert run.status == "done"
    mine = rlkit.evaluate(run.path, episodes=2)
    assert mine.checkpoint.startswith(uri.partition("?")[0])
    elsewhere(monkeypatch, tmp_path)
    theirs = rlkit.evaluate(mine.checkpoint, episodes=2)
    assert theirs.to_json() == mine.to_json()
    again = rlkit.resume(mine.checkpoint, ["stop.iterations=4"])
    assert list(again.metrics["iteration"]) == [1, 2, 3, 4]
    shutil.rmtree(tmp_path / "there")
    last = open_run(store.join(uri, "tiny"))
    assert list(last.metrics["iteration"]) == [1, 2, 3, 4]
    assert [path.name for path in last.trials[0].checkpoints] == ["checkpoint_000004"]
    assert json.loads((last.path / "run.json").read_text())["status"] == "done"


def test_a_run_trained_here_goes_on_elsewhere(
    ray_local: None, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_and_read(f"{bucket}/runs", tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(MOTO is None, reason="needs moto_server: pip install 'moto[s3,server]'")
def test_the_same_against_a_server_that_speaks_s3(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [str(MOTO), "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL, env=own
    )
    try:
        options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        wait_for(port)
        from pyarrow import fs

        files, _ = fs.FileSystem.from_uri(f"s3://bucket?{options}&allow_bucket_creation=true")
        files.create_dir("bucket")
        trained_and_read(f"s3://bucket/runs?{options}", tmp_path, monkeypatch)
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("moto_server does not answer")
