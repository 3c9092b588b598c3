"""One Ray instance for the whole test session; torch on one thread; no dashboard."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit import registry

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15, workers starve beside any busy process
CPUS = 8
# Ray's workers import the test modules that define environments and callbacks
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")])
)
# Checkpoints of the tests are signed with a key of their own, not with the user's.
os.environ.setdefault("RLKIT_KEY", str(Path(tempfile.mkdtemp(prefix="rlkit-tests-"), "signing.key")))


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray, started once, with more logical CPUs than cores so that runners and trials fit."""
    import ray

    ray.init(
        address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def no_actor_is_left() -> Iterator[None]:
    """A file that leaves env runners or trials behind starves the tests after it: it fails here, by name."""
    yield
    if "ray" not in sys.modules:
        return
    import ray

    if not ray.is_initialized():
        return
    deadline = time.monotonic() + 30  # Ray frees the CPUs of an ended actor a moment later
    while (free := ray.available_resources().get("CPU", 0.0)) < CPUS and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.1)
    assert free == CPUS, f"{CPUS - free:g} of Ray's {CPUS} logical CPUs are still taken: stop the algorithm"


@pytest.fixture(autouse=True)
def names_are_forgotten() -> Iterator[None]:
    """What a test registers or imports by `--import` is gone after it, so that the order of tests is free."""
    tables = {kind: dict(table) for kind, table in registry.TABLES.items()}
    imported, modules = dict(registry._IMPORTED), set(sys.modules)
    yield
    for kind, table in tables.items():
        registry.TABLES[kind].clear()
        registry.TABLES[kind].update(table)
    for module in set(registry._IMPORTED) - modules:
        sys.modules.pop(module, None)
    registry._IMPORTED.clear()
    registry._IMPORTED.update(imported)
    registry._GIVEN.clear()  # an algorithm that a later file builds would load what it names


# The files that take minutes come first, so that no process is left with one of them at the end.
LONG = (
    "test_schedulers",
    "test_contributing",
    "test_runner_faults",
    "test_launch",
    "test_faults",
    "test_offline",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; slow tests have half an hour each, the others the limit in pyproject.toml."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))
