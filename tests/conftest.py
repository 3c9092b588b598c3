"""One Ray instance for the whole test session; torch on one thread; no dashboard."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15, workers starve beside any busy process
# Ray's workers import the test modules that define environments and callbacks
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
# Checkpoints of the tests are signed with a key of their own, not with the user's.
os.environ.setdefault("RLKIT_KEY", str(Path(tempfile.mkdtemp(prefix="rlkit-tests-"), "signing.key")))


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray, started once, with more logical CPUs than cores so that runners and trials fit."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
