"""Embedded Ray is embedded and listens on loopback alone; `--address` uses the user's token, or ends soon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import clusters

from rlkit import registry
from rlkit.errors import UsageError
from rlkit.launch import cluster
from rlkit.launch.session import RaySession

EMBEDDED = """
import os, time
import ray
from rlkit.launch.session import RaySession, set_quiet

set_quiet(False)
with RaySession(None, 2, False) as session:
    session.wait()
    worker = ray.remote(num_cpus=1)(lambda: os.getpid())
    ray.get(worker.remote())
    print(int(ray.cluster_resources()["CPU"]), flush=True)
    input()
"""
# 127.0.0.1 (of IPv4, and mapped into IPv6) and ::1, as /proc writes them
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


# A method of each gRPC service of Ray: GCS, raylet, object manager, driver and workers.
ASKED = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Push",
    "CoreWorkerService/GetCoreWorkerStats",
)


def listening(ancestor: int) -> list[tuple[str, int]]:
    """Address, as /proc/net/tcp writes it, and port of each socket on which a process and its descendants listen."""
    parents, sockets = {}, set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = [ancestor]
    for process in family:
        family += [child for child, parent in parents.items() if parent == process]
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(handle))
    rows = [
        row.split()
        for name in ("tcp", "tcp6")
        for row in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    mine = [row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return [(address, int(port, 16)) for address, port in mine]


def answers_without_token(port: int) -> list[str]:
    """What a port says to a client that has no token: gRPC's status for each of ASKED, and HTTP's."""
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in ASKED:
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=10)
                found.append(f"{method} answered")
            except grpc.RpcError as error:
                found.append(error.code().name)
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
        found.append("HTTP answered")
    except urllib.error.HTTPError as error:
        found.append(str(error.code))
    except (OSError, http.client.HTTPException):
        pass  # it speaks gRPC alone
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the sockets from /proc")
def test_embedded_ray_joins_nobody_listens_on_loopback_alone_and_asks_each_client_for_the_token(
    tmp_path: Path,
) -> None:
    """Beside a RAY_ADDRESS where nobody answers, and with a home in which Ray cannot write a token."""
    env = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "HOME": "/dev/null"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", EMBEDDED], env=env, cwd=tmp_path, **pipes) as own:
        assert own.stdout.readline() == "2\n"
        found = listening(own.pid)
        said = {port: answers_without_token(port) for _, port in found}
        own.communicate("\n", timeout=60)
    assert own.returncode == 0
    assert len(found) >= 5, "GCS, raylet, agent, driver and worker listen"
    assert {address for address, _ in found} <= LOOPBACK
    for port, words in said.items():
        assert {"UNAUTHENTICATED", "401"} & set(words), (port, words)
        assert set(words) <= {"UNAUTHENTICATED", "401", "UNIMPLEMENTED", "UNAVAILABLE"}, (port, words)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", r"nothing answers there .*ray start --head"),
        ("local", r"leave --address out to run embedded"),
        ("ray://127.0.0.1:10001", r"expected HOST:PORT of a cluster's GCS"),
        ("10.0.0.5", r"write HOST:PORT"),
        ("10.0.0.5:99999", r"write HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_is_ends_with_its_reason(address: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cluster.prepare_to_join(address)


def test_a_cluster_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    session = RaySession("10.0.0.5:6379", 1, False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("rlkit.launch.session.prepare_to_join", lambda address: signal.pause())
    monkeypatch.setattr("rlkit.launch.session.JOIN_S", 0.1)
    with session, pytest.raises(UsageError, match=r"no answer in 0 s.*RAY_AUTH_TOKEN"):
        session.wait()


def test_the_message_names_the_token_that_was_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (cluster.MODE, cluster.TOKEN, cluster.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no token was found" in cluster.refused("a:1", "refused")
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("x")
    assert f"the token of {file} was sent" in cluster.refused("a:1", "refused")
    monkeypatch.setenv(cluster.TOKEN, "y")
    assert f"the token of the variable {cluster.TOKEN} was sent" in cluster.refused("a:1", "refused")
    monkeypatch.setenv(cluster.MODE, "disabled")
    assert "RAY_AUTH_MODE is 'disabled', so no token was sent" in cluster.refused("a:1", "refused")


def test_a_cluster_is_sent_rlkit_and_what_was_imported_but_nothing_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "games_sent" / "tall"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (tmp_path / "walls_sent.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    given = ["games_sent.tall", str(tmp_path / "walls_sent.py"), "gymnasium.spaces"]
    for name in given:
        monkeypatch.setenv("PYTHONPATH", "")
        registry.import_module(name)
    sent = cluster.code_to_send([*given, "games_sent"])["py_modules"]
    rlkit_itself = Path(__file__).parents[1] / "rlkit"
    assert [Path(path) for path in sent] == [rlkit_itself, package.parent, tmp_path / "walls_sent.py"]


def test_where_an_imported_file_is_not_its_module_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_away.py").write_text(
        "import rlkit\nrlkit.register_env('far_away', lambda config: None)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(registry, "_GIVEN", [])
    registry.Names(("/on/the/driver/far_away.py",)).load()
    assert registry.TABLES["envs"].pop("far_away").module == "far_away"


def test_a_head_that_is_gone_is_said_and_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's library ends the driver without a word of rlkit's: it has to come before."""
    monkeypatch.setattr("rlkit.launch.session.WATCH_S", 0.01)
    said: list[str] = []
    looked = threading.Semaphore(0)
    answers = cluster.answers

    def counted(address: str) -> bool:
        found = answers(address)
        looked.release()
        return found

    monkeypatch.setattr("rlkit.launch.session.answers", counted)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        session = RaySession(address, 1, False, on_loss=said.append)
        watch = threading.Thread(target=session._watch_head, args=(address, 0.05))
        watch.start()
        for _ in range(10):
            assert looked.acquire(timeout=10)
        assert not said
    watch.join(10)
    assert len(said) == 1
    assert f"the cluster at {address} has not answered" in said[0]


@pytest.mark.slow
def test_a_run_joins_a_cluster_of_plain_ray_start(tmp_path: Path) -> None:
    """The nodes have another rlkit, which cannot be imported: the driver's goes along."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # the paths of Ray's sockets have to be short
    words = [
        "--block",
        "--head",
        f"--port={port}",
        f"--temp-dir={folder}",
        "--num-cpus=2",
        "--include-dashboard=false",
    ]
    ray = Path(sys.executable).with_name("ray")
    env = {k: v for k, v in os.environ.items() if k != cluster.MODE}
    (tmp_path / "other" / "rlkit").mkdir(parents=True)
    (tmp_path / "other" / "rlkit" / "__init__.py").write_text("raise ImportError('another rlkit')\n")
    head = subprocess.Popen(
        [ray, "start", *words],
        env={**env, "PYTHONPATH": str(tmp_path / "other")},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while not (folder / "ray_current_cluster").exists() and time.monotonic() < until:
            time.sleep(0.2)
        recipe = Path(__file__).parents[1] / "configs" / "dqn_cartpole.yaml"
        train = [
            sys.executable,
            "-m",
            "rlkit",
            "train",
            str(recipe),
            "stop.iterations=1",
            "--out",
            str(tmp_path / "runs"),
        ]
        done = subprocess.run(
            [*train, "--address", f"127.0.0.1:{port}"], env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        wrong = {**env, cluster.TOKEN: "0" * 64}
        done = subprocess.run(
            [*train, "--address", f"127.0.0.1:{port}"], env=wrong, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "the token of the variable RAY_AUTH_TOKEN was sent" in done.stderr
        beside = {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        done = subprocess.run(
            [*train, "name=beside"], env=beside, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        (facts,) = (tmp_path / "runs" / "beside").glob("*/run.json")
        assert json.loads(facts.read_text())["address"] is None
    finally:
        head.terminate()  # with --block it ends what it started
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(60)
        if head.poll() is None:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", clusters.KINDS)
def test_a_run_outlives_its_nodes(kind: str, tmp_path: Path) -> None:
    """Runners, learner or trial on a node that is lost, a node that joins late, another head."""
    assert not clusters.attempt(kind, tmp_path / kind).problems


@pytest.mark.slow
def test_a_trial_on_a_lost_node_goes_on_from_its_store_and_so_does_another_machine(tmp_path: Path) -> None:
    file = Path(__file__).parent / "faults" / "away_trial.py"
    done = subprocess.run([sys.executable, file, tmp_path], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["resumed"] == list(range(1, len(found["iterations"]) + 5))
    assert found["after"] >= 3
    assert found["checkpoints"]
