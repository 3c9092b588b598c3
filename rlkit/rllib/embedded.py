"""Ray inside a run: where it listens, which of its processes start, how they end. And what torch imports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def loopback_only(wanted: bool) -> Iterator[None]:
    """Let a Ray that is started inside the block listen on the loopback address alone, where that is `wanted`.

    With any other address of the node its GCS, raylet and workers listen on all interfaces, and 127.0.0.1 given as
    `_node_ip_address` is replaced by the machine's own (`resolve_ip_for_localhost`, 2.60, _private/services.py). A Ray
    that is told it is no part of a cluster, as on macOS, takes the loopback address by itself. Its other processes read
    the variable, this one has read it already.
    """
    if not wanted:
        yield
        return
    from ray._private import ray_constants

    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    given = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if given is None:
            del os.environ[name]
        else:
            os.environ[name] = given


@contextmanager
def few_processes(wanted: bool, log_monitor: bool) -> Iterator[None]:
    """Let a Ray that is started inside the block leave out what nobody asks in a run, where that is `wanted`.

    `ray.init` starts the autoscaler's monitor and the dashboard's server even with `include_dashboard=False`, and has
    no argument against the log monitor, which prints what workers print (2.60, `Node.start_head_processes`). Each is a
    Python that imports Ray, while the driver and the trial import RLlib.
    """
    if not wanted:
        yield
        return
    from ray._private.node import Node

    names = ["start_monitor", "start_api_server"] + ([] if log_monitor else ["start_log_monitor"])
    before = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda self, *args, **options: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


@contextmanager
def trials_in_waiting_workers(wanted: bool) -> Iterator[None]:
    """Let trials of a `tune.run` inside the block begin in the workers that Ray has started ahead, where `wanted`.

    Tune starts every trial with environment variables of the driver and one for PyTorch Lightning (2.60,
    `class_cache`), for which Ray starts a new Python that imports Ray twice. Workers of an embedded Ray inherit the
    driver's environment anyway.
    """
    from ray.tune.execution import class_cache

    given = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    if wanted:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = given


def end_at_once(end: Callable[[], None]) -> None:
    """Let `ray.shutdown` end the processes of the Ray that this process started by `end`, and then only ask for them.

    It sends SIGTERM to one after the other and waits a second for each before SIGKILL (2.60,
    `Node._kill_process_impl`). Where SIGTERM is blocked, as in a run, that is a second each, and SIGKILL after all.
    """
    from ray._private import worker

    node = worker._global_node
    if node is None:
        return
    rest = node.kill_all_processes

    def kill_all_processes(**options: Any) -> None:
        end()
        rest(**{**options, "allow_graceful": False})

    node.kill_all_processes = kill_all_processes


def import_less_of_torch() -> None:
    """Keep torch's compiler (`torch._dynamo`, sympy: a second of CPU) out of processes that compile nothing.

    RLlib's `set_torch_seed` calls `torch.use_deterministic_algorithms`, which imports it to set an option of it; on
    CPUs `set_deterministic_debug_mode` does the same for everything else. Optimizers import it to exempt methods from
    compilation (torch 2.13, `torch._compile._disable_dynamo`): one that says it is its own exempt form is called as it
    is. Does nothing where torch is another, or has the compiler loaded.
    """
    import torch
    from ray.rllib.utils.debug import deterministic

    if "torch._dynamo" in sys.modules or torch.version.cuda is not None:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            method.__dynamo_disable = method
    given = deterministic.set_torch_seed
    if given.__module__ == __name__:
        return

    def set_torch_seed(seed: int | None = None) -> None:
        if "torch._dynamo" in sys.modules:
            given(seed)
        elif seed is not None:
            torch.manual_seed(seed)
            torch.set_deterministic_debug_mode("error")
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False

    deterministic.set_torch_seed = set_torch_seed
