"""Starting and stopping Ray for one run, and keeping its routine messages off the terminal.

Embedded Ray starts while the driver imports RLlib. Importing RLlib in a worker ahead of the trial only costs: Ray 2.60
gives an actor the worker that has been idle longest, never the one that has just run a task.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rlkit import registry, rllib
from rlkit.errors import UsageError
from rlkit.launch import processes
from rlkit.launch.cluster import JOIN_S, answers, code_to_send, prepare_embedded, prepare_to_join, refused
from rlkit.recipe.signatures import Config

if TYPE_CHECKING:
    from rlkit.recipe import Recipe

WATCH_S = 1.0  # between two looks at Ray's processes, or at the cluster's head
# Of Ray's library, in seconds, with a control store that does not answer; then it ends this process.
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
LAST_WORDS_S = 5.0  # so long before that
HANDLER_S = 0.01  # between two looks at the handler of SIGTERM while Ray shuts down
QUIET_ENV = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # rlkit adds the loggers it wants
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # rlkit saves a checkpoint first
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",  # a killed driver loses at most this much of Tune's own notes
    "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning,ignore::UserWarning",
    "SDL_VIDEODRIVER": "dummy",  # pygame in a worker must not look for a screen
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}


def set_quiet(verbose: bool) -> None:
    """Filter the warnings RLlib and Ray print in every process on every start (see docs/decisions.md)."""
    for key, value in QUIET_ENV.items():
        if verbose and key in ("PYTHONWARNINGS", "RAY_DEDUP_LOGS"):
            continue
        os.environ.setdefault(key, value)
    # Ray starts workers at niceness 15, which made a trial start take 150 s instead of 7 beside busy processes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not verbose:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        quiet_loggers()


def quiet_loggers() -> None:
    """Silence Ray's loggers. `import ray.rllib` sets its own level again, so this is called after it too."""
    for name in ("ray", "ray.rllib", "ray.tune", "ray.train", "ray.util"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class RaySession:
    """Ray for one run: `start()` returns at once, `wait()` when Ray is up, leaving the block stops what it started.

    Args:
        address: a running cluster to join; None starts Ray inside this process, dashboard off, loopback only.
        num_cpus: logical CPUs of embedded Ray, at least what one trial asks for.
        verbose: print what workers print.
        on_loss: hears, in another thread, that Ray's control store or raylet ended, or that the cluster's head is
            gone; this process may end soon then.
    """

    def __init__(
        self, address: str | None, num_cpus: int, verbose: bool, on_loss: Callable[[str], None] = print
    ):
        self.address = address
        self.embedded = False  # whether this run started Ray itself
        self.num_cpus = num_cpus
        self.verbose = verbose
        self.on_loss = on_loss
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._up, self._over, self._left = threading.Event(), threading.Event(), threading.Event()
        self._heir: processes.Heir | None = None
        self._patience = False  # whether this run has set PATIENCE

    def __enter__(self) -> RaySession:
        import ray

        while _leaving:
            _leaving.pop().join()
        if ray.is_initialized():
            if self.address:
                raise UsageError(f"--address {self.address}: this process already uses a Ray instance")
            registry.send_by_value()
            return self
        self._thread = threading.Thread(target=self._start, name="rlkit-ray-start", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        if self._patience:
            os.environ.pop(PATIENCE, None)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._over.set()
            processes.end(processes.of_ray())
            leave_behind()
            return
        import ray

        if not self._up.wait(JOIN_S if self.address else None):
            return  # a cluster that never answered: Ray goes on trying in a daemon thread
        self._over.set()
        try:
            shut_down(ray.shutdown)
        except KeyboardInterrupt:
            # A second signal: agents of a raylet that was killed would live on for a minute.
            processes.end(processes.of_ray())
            leave_behind()
            raise
        if self._heir is not None:
            self._heir.dismiss()
        self._left.set()
        self._thread.join()

    def wait(self) -> None:
        """Return once Ray is up.

        Raises:
            UsageError: the cluster at `address` cannot be reached.
        """
        if self._thread is not None and not self._up.wait(JOIN_S if self.address else None):
            raise UsageError(refused(str(self.address), f"no answer in {JOIN_S:.0f} s"))
        if isinstance(self._error, UsageError):
            raise self._error
        if self._error is not None and self.address:
            raise UsageError(refused(self.address, self._error)) from self._error
        if self._error is not None:
            raise UsageError(f"starting Ray: {type(self._error).__name__}: {self._error}") from self._error

    def _start(self) -> None:
        """Start Ray, then stay: its processes end with the thread that started them (PR_SET_PDEATHSIG)."""
        try:
            import ray

            rllib.print_to_stderr()
            if self.address:
                prepare_to_join(self.address)
            else:
                prepare_embedded()
            # Ray's processes inherit the mask: a SIGTERM to the whole process group (timeout, Slurm, systemd) must
            # leave them alive until the checkpoint is written. Ray ends them with SIGKILL where SIGTERM does not.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
            options: dict[str, Any] = {
                "logging_level": logging.INFO if self.verbose else logging.CRITICAL,
                "log_to_driver": self.verbose,
            }
            if self.address:
                self._have_patience(30)  # Ray's own 60 s are long for a head that is gone
                options.update(address=self.address, runtime_env=code_to_send(registry.imports()))
            else:
                # RLlib's multi-agent episodes (2.60) iterate over sets of agent ids: with another order in every
                # process the same seed gave other noise and other batches.
                os.environ.setdefault("PYTHONHASHSEED", "0")
                options.update(address="local", num_cpus=self.num_cpus, include_dashboard=False)
                # The control store is a process beside this one: where it is gone it does not come back.
                self._have_patience(10)
            embedded = self.embedded = not self.address
            with rllib.loopback_only(embedded), rllib.few_processes(embedded, log_monitor=self.verbose):
                ray.init(**options)
            if embedded:
                rllib.end_at_once(lambda: processes.end(processes.of_ray()))
                agents = {
                    pid: args
                    for pid, args in processes.of_ray().items()
                    if any(a in args for a in processes.AGENTS)
                }
                self._heir = processes.Heir(agents)
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()
        if self._heir is not None:
            self._watch()
        elif self.address and self._error is None:
            self._watch_head(
                ray.get_runtime_context().gcs_address, float(os.environ[PATIENCE]) - LAST_WORDS_S
            )
        self._left.wait()

    def _have_patience(self, seconds: int) -> None:
        """Say how long Ray waits for its control store, for this run and unless the user has said so."""
        self._patience = PATIENCE not in os.environ
        os.environ.setdefault(PATIENCE, str(seconds))

    def _watch(self) -> None:
        """Tell `on_loss` when Ray's own processes end before the run does."""
        control = {pid: a for pid, a in processes.of_ray().items() if any(w in a for w in processes.CONTROL)}
        while not self._over.wait(WATCH_S):
            gone = [args for pid, args in control.items() if not processes.lives(pid)]
            if gone and not self._over.is_set():
                name = Path(gone[0].split()[0]).name
                self.on_loss(f"Ray's {name} ended: it was killed, or the machine ran out of memory")
                return

    def _watch_head(self, address: str, patience_s: float) -> None:
        """Tell `on_loss` when the cluster's control store has not answered for so long."""
        answered = time.monotonic()
        while not self._over.wait(WATCH_S):
            if answers(address):
                answered = time.monotonic()
            elif time.monotonic() - answered > patience_s and not self._over.is_set():
                self.on_loss(
                    f"the control store (GCS) of the cluster at {address} has not answered for {patience_s:.0f} s: its "
                    "head node ended, or the network between is down"
                )
                return


_leaving: list[threading.Thread] = []


def leave_behind() -> None:
    """Disconnect this process from a Ray whose processes were killed, without waiting for it: that takes 6 s.

    Ray's library would end the process after `PATIENCE`, and a Python session that goes on would find Ray initialised.
    """
    import ray

    if ray.is_initialized():
        thread = threading.Thread(target=ray.shutdown, name="rlkit-ray-shutdown", daemon=True)
        thread.start()
        _leaving.append(thread)
        atexit.register(thread.join)  # before Ray's own


def shut_down(work: Callable[[], None]) -> None:
    """Call `ray.shutdown` in another thread, with this thread's handler of SIGTERM in force meanwhile.

    Its core worker resets SIGTERM to the default, behind Python's back (2.60, `RayLog::UninstallSignalAction`): a
    second SIGTERM would end this process with nothing said. Signals are handled here, while Ray is inside C++ too.
    """
    handler = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread() and handler is not None
    thread = threading.Thread(target=work, name="rlkit-ray-shutdown", daemon=True)
    thread.start()
    while thread.is_alive():
        if main:
            signal.signal(signal.SIGTERM, handler)
        thread.join(HANDLER_S if main else None)
    if main:
        signal.signal(signal.SIGTERM, handler)


def demand(recipe: Recipe) -> int:
    """Return the logical CPUs one trial asks for, at least the machine's cores.

    Where the recipe is silent RLlib's own default counts (PPO: two env runners). Resources are logical: with fewer
    than a trial asks for, Tune would wait for ever.
    """

    signatures = Config(recipe.algorithm)

    def largest(method: str, key: str) -> float:
        default = signatures.default(method, key)
        value = recipe.config.get(method, {}).get(key, default)
        if isinstance(value, Mapping):
            value = value.get("grid_search")
        values: Any = getattr(value, "args", value)
        listed = values if isinstance(values, list | tuple) else [values]
        return max((v for v in listed if isinstance(v, int | float)), default=0)

    runners = largest("env_runners", "num_env_runners")
    learners = largest("learners", "num_learners")
    evaluators = largest("evaluation", "evaluation_num_env_runners")
    per_runner = largest("env_runners", "num_cpus_per_env_runner")
    # RLlib's "auto" is one CPU where there is no GPU
    auto = 0 if largest("learners", "num_gpus_per_learner") else 1
    per_learner = largest("learners", "num_cpus_per_learner") or auto
    own = max(1.0, largest("resources", "num_cpus_for_main_process"), 0 if learners else per_learner)
    aggregators = largest("learners", "num_aggregator_actors_per_learner") * max(1.0, learners)
    asked = own + (runners + evaluators) * per_runner + learners * per_learner + aggregators
    return max(os.cpu_count() or 1, math.ceil(asked))


def require(request: Any) -> None:
    """Check that the cluster can ever start one trial.

    Raises:
        UsageError: names what a trial needs and what there is.
    """
    import ray

    have = ray.cluster_resources()
    for resource, need in request.required_resources.items():
        if need > have.get(resource, 0):
            raise UsageError(
                f"one trial needs {need:g} {resource}, Ray has {have.get(resource, 0):g}; lower num_env_runners or "
                "num_learners, or join a larger cluster with --address"
            )
