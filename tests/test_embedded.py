"""What a run starts, imports and waits for beside its training: `rlkit.rllib.embedded`."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray._private import worker
from ray._private.node import Node
from ray.tune.execution import class_cache

from rlkit import rllib

TRAINS = """
import sys, torch
from rlkit import recipe
from rlkit.launch.build import build
values = {"algorithm": sys.argv[1], "env": sys.argv[2], "seed": 0, "stop": {"iterations": 1}}
algorithm = build(recipe.from_mapping(values)).build_algo()
algorithm.train()
algorithm.save_to_path(sys.argv[3])
print(torch.are_deterministic_algorithms_enabled(), "torch._dynamo" in sys.modules)
"""

GOES_ON = """
import os, ray
from rlkit.launch.session import PATIENCE, RaySession
for again in (False, True):
    try:
        with RaySession(None, 2, False) as session:
            session.wait()
            print(int(ray.cluster_resources()["CPU"]), os.environ[PATIENCE])
            if not again:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
print(ray.is_initialized(), PATIENCE in os.environ)
"""


@pytest.mark.parametrize(("algorithm", "env"), [("PPO", "CartPole-v1"), ("SAC", "Pendulum-v1")])
def test_training_imports_no_compiler(algorithm: str, env: str, tmp_path: object) -> None:
    command = [sys.executable, "-c", TRAINS, algorithm, env, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["True False"], done.stderr[-2000:]


def test_processes_that_nobody_asks_are_not_started() -> None:
    names = ("start_monitor", "start_api_server", "start_log_monitor")
    before = [getattr(Node, name) for name in names]
    with rllib.few_processes(True, log_monitor=True):
        now = [getattr(Node, name) for name in names]
        assert [a is b for a, b in zip(now, before, strict=True)] == [False, False, True]
    with rllib.few_processes(True, log_monitor=False):
        assert Node.start_log_monitor is not before[2]
    with rllib.few_processes(False, log_monitor=False):
        assert [getattr(Node, name) for name in names] == before
    assert [getattr(Node, name) for name in names] == before


def test_processes_end_before_ray_waits_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    node = SimpleNamespace(kill_all_processes=lambda **options: said.append(options))
    monkeypatch.setattr(worker, "_global_node", node)
    rllib.end_at_once(lambda: said.append("ended"))
    node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)
    assert said == ["ended", {"check_alive": False, "allow_graceful": False, "wait": True}]


def test_a_trial_of_an_embedded_ray_needs_no_environment_of_its_own() -> None:
    given = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    with rllib.trials_in_waiting_workers(True):
        made = class_cache._ActorClassCache().get(type("Trial", (), {}))
        assert not made._default_options["runtime_env"].get("env_vars")
    assert given == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)


def test_a_python_session_goes_on_with_another_ray_after_a_signal_has_ended_one() -> None:
    done = subprocess.run([sys.executable, "-c", GOES_ON], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["2 10", "2 10", "False False"], done.stderr[-2000:]
