"""What ^C, SIGTERM and SIGHUP do to a run: before trials train, it ends; then the first asks for a checkpoint.

A second one ends at once, whatever is going on; those that follow it are ignored while that happens. Where SIGHUP is
ignored (nohup) it stays so.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rlkit.runs.run import Run, Status

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEAF_S = 2.0  # ending Ray's processes and writing run.json takes a fraction of a second


class Stopped(KeyboardInterrupt):
    """A signal that ends, or has ended, a run.

    Attributes:
        run: what was trained until then, when it is written down; None for a run that ends now.
        exit_code: that of the command.
    """

    def __init__(self, number: int, run: Run | None = None):
        super().__init__(signal.Signals(number).name)
        self.run = run
        self.status = status_of(number)
        self.exit_code = 130 if self.status == "interrupted" else 143


def status_of(number: int) -> Status:
    """The status of a run that a signal ended."""
    return "interrupted" if number == signal.SIGINT else "terminated"


class Interrupt:
    """Handles the signals while it is entered, in the main thread; elsewhere it does nothing.

    Attributes:
        signal: the first one that came while trials could be saved; None so far.
        since: when it came, by `time.monotonic`.
        stopped: what was raised to end the run at once; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.stopped: Stopped | None = None
        self.since = math.inf
        self._ended = -math.inf  # when `stopped` was raised
        self._graceful = False
        self._previous: dict[int, Any] = {}
        # A handler runs inside whatever the main thread is doing, printing or importing included, so another
        # thread does the printing. SimpleQueue.put is safe in a handler.
        self._messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def over(self) -> None:
        """From now on signals are ignored: what is left to do is written down in a moment."""
        for number in self._previous:
            signal.signal(number, lambda number, frame: None)

    def again(self) -> None:
        """Take the signals back. Ray's handler goes before ours, prints a stack and aborts at the second SIGTERM."""
        for number in self._previous:
            signal.signal(number, self._handle)

    @contextmanager
    def saving(self, announce: Callable[[str], None]) -> Iterator[None]:
        """Within this block the first signal asks for checkpoints, and `announce` prints that.

        Enter it once Ray is up (see `again`).

        Raises:
            Stopped: one that was raised before, in a place where Python or a library drops exceptions.
        """
        self.again()
        if self.stopped is not None:
            raise self.stopped

        def tell() -> None:
            while (message := self._messages.get()) is not None:
                announce(message)

        announcer = threading.Thread(target=tell, daemon=True)
        announcer.start()
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False
            self._messages.put(None)
            announcer.join(timeout=1.0)

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        if time.monotonic() - self._ended < DEAF_S:
            return
        if self.signal is not None or not self._graceful:
            self.stopped, self._ended = Stopped(self.signal or number), time.monotonic()
            raise self.stopped
        self.signal, self.since = number, time.monotonic()
        self._messages.put("stopping: writing a checkpoint (again to stop at once)")


def leave_terminal() -> None:
    """Write nothing more to a terminal that is gone: it would fail in the middle of a checkpoint."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed and os.isatty(stream.fileno()):
            os.dup2(null, stream.fileno())
    os.close(null)
