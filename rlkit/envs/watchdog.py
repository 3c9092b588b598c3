"""A watchdog for environments: a constructor or method of theirs that does not return ends with one message.

A thread of each process that has environments looks at them once a second. A call that has gone on for a minute is
told to the driver (`rllib.tell_driver`). After `limit_s` an exception is raised inside it, so that the traceback shows
where it was. A call in native code that no exception reaches ends its process, after its stack has been told. Native
code that never lets go of Python's lock stops the watchdog too: the silence of a remote runner is noticed all the same
(`sample_timeout_s`), that of a local environment is not.

The thread counts its own rounds, so a process that was stopped for an hour has not blocked for an hour. A call costs
three assignments.
"""

from __future__ import annotations

import ctypes
import linecache
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rlkit import rllib
from rlkit.errors import EnvError

ENV_TIMEOUT_S = 300.0  # where a recipe says nothing
WARN_S = 60.0
GRACE_S = 10.0  # for an exception to reach a call, before the process ends
SIGNAL = signal.SIGUSR2  # interrupts what the main thread waits in


class Blocked(BaseException):
    """Raised inside the call: no environment takes it for an error of its own."""


class Watched:
    """One environment and the call it is in.

    Args:
        name: of the environment, for messages.
        limit_s: seconds that one call may take.
    """

    def __init__(self, name: str, limit_s: float):
        self.name = name
        self.limit_s = limit_s
        self.busy = ""  # the method that is running
        self.calls = 0  # begun so far, so that one long call is told from many short ones
        self.where = ""  # step and episode
        self.thread = threading.get_ident()
        self.waited, self._seen, self._asked = 0.0, -1, 0.0
        self.blocked, self._said = False, ""

    def here(self, where: str) -> None:
        """Note the thread that plays, and the episode for messages."""
        self.where, self.thread = where, threading.get_ident()

    def look(self, seconds: float) -> None:
        """Count `seconds` more for the call that was running in the last round too, and act on it."""
        if not self.busy or self._seen != self.calls:
            self.waited, self._asked, self._seen = 0.0, 0.0, self.calls
            return
        before, self.waited = self.waited, self.waited + seconds
        warn = min(WARN_S, self.limit_s / 2)
        if before < warn <= self.waited:
            rllib.tell_driver(self.message(self.waited))
        if self.waited < self.limit_s:
            return
        self._asked += seconds
        if not self.blocked:
            self.blocked = True
            self.raise_inside()
        elif self._asked > GRACE_S:
            frame = sys._current_frames().get(self.thread)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            text = f"{self.message(self.waited)}. No exception reaches it, so its process ends:\n{stack}"
            rllib.tell_driver(text)
            print(text, file=sys.stderr, flush=True)
            os._exit(1)

    def message(self, seconds: float) -> str:
        """Return what is blocked, for how long and in which line."""
        at = self._line()
        return f"{self.name}: {self.busy}(){self.where} has not returned for {seconds:.0f} s{at}"

    def error(self) -> EnvError:
        """Return the error of a call that was blocked and is over."""
        self.blocked = False
        return EnvError(
            f"{self._said}. Fix: the environment, or a larger env_timeout_s (now {self.limit_s:g}) if that is how long "
            "a call takes"
        )

    def raise_inside(self) -> None:
        """Raise `Blocked` in the thread of the call: by a signal in the main thread, where it ends waiting too."""
        self._said = self.message(self.waited)
        if self.thread == threading.main_thread().ident and signal.getsignal(SIGNAL) is _on_signal:
            signal.pthread_kill(self.thread, SIGNAL)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Blocked))

    def _line(self) -> str:
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame.f_code.co_filename.startswith("<"):
            frame = frame.f_back
        if frame is None:
            return ""
        code = frame.f_code
        source = linecache.getline(code.co_filename, frame.f_lineno).strip()
        return f"; it is in {code.co_filename}:{frame.f_lineno} ({code.co_name}: {source})"


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def watch(watched: Watched) -> Watched:
    """Have an environment watched for as long as it exists."""
    global _thread
    with _lock:
        _watched.add(watched)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_rounds, name="rlkit-env-watchdog", daemon=True)
            _thread.start()
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(SIGNAL) is signal.SIG_DFL:
        signal.signal(SIGNAL, _on_signal)
    return watched


@contextmanager
def watching(name: str, limit_s: float | None, method: str = "__init__") -> Iterator[None]:
    """Watch the block, which makes an environment; without a limit nothing is watched.

    Raises:
        EnvError: the block was still running after `limit_s` seconds.
    """
    if limit_s is None:
        yield
        return
    watched = watch(Watched(name, limit_s))
    watched.busy = method
    try:
        yield
    except Blocked as blocked:
        raise watched.error() from blocked
    finally:
        watched.busy = ""
        with _lock:
            _watched.discard(watched)


def close(env: Any, name: str, limit_s: float | None) -> None:
    """Close an environment.

    Raises:
        EnvError: its `close` raised, or went on for `limit_s` seconds.
    """
    with watching(name, limit_s, "close"), naming_close(name):
        env.close()


@contextmanager
def naming_close(name: str) -> Iterator[None]:
    """Say which environment it was whose `close` raised: `EnvError`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise EnvError(f"{name}: close() raised {type(error).__name__}: {error}") from error


def _on_signal(number: int, frame: FrameType | None) -> Any:
    with _lock:
        late = any(w.blocked and w.busy and w.thread == threading.get_ident() for w in _watched)
    if late:
        raise Blocked


def _rounds() -> None:
    while True:
        with _lock:
            shortest = min((w.limit_s for w in _watched), default=WARN_S)
        pause = min(1.0, shortest / 10)
        time.sleep(pause)
        with _lock:
            now = list(_watched)
        for watched in now:
            watched.look(pause)
