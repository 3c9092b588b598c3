"""The command line as a process: one funnel for errors, and how it ends.

Exit codes: 0 done, 1 run failed, 2 recipe or usage error, 130 interrupted, 143 terminated, 3 a bug (log file named).
"""

from __future__ import annotations

import atexit
import io
import os
import select
import shlex
import sys
import tempfile
import threading

from rlkit.cli import app
from rlkit.errors import RlkitError, printable


def main() -> None:
    """Entry point: one funnel for errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")  # the lines of a table are no ASCII
    try:
        app(standalone_mode=True)
    except SystemExit as left:  # typer makes one of a KeyboardInterrupt
        stopped = getattr(left.__context__, "__cause__", None)
        if isinstance(stopped, KeyboardInterrupt):
            code = getattr(stopped, "exit_code", 130)
            print("interrupted" if code == 130 else "terminated", file=sys.stderr)
            _leave(code)
        if isinstance(left.__context__, BrokenPipeError) and _reader_left():  # typer makes a 1 of it
            _print_nowhere()
            raise SystemExit(0) from None
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            _print_nowhere()
        raise
    except RlkitError as error:
        for problem in getattr(error, "problems", [error]):
            print(f"error: {_shown(problem)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        _print_nowhere()
        raise SystemExit(0) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {_shown(where + (error.strerror or str(error)))}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        print(
            f"error: this is a bug in rlkit ({type(error).__name__}: {_shown(error)}); log: {_log()}",
            file=sys.stderr,
        )
        raise SystemExit(3) from None


def program() -> None:
    """`main` as a process of its own, which ends without taking torch and RLlib apart again (half a second)."""
    try:
        main()
    except SystemExit as left:
        others = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        if others or "torch" not in sys.modules or not isinstance(left.code, int | None):
            raise
        atexit._run_exitfuncs()
        _leave(left.code or 0)


def _reader_left() -> bool:
    """Whether the reader of stdout or stderr has gone, as `head` does; a pipe to another program may break too."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _print_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _shown(message: object) -> str:
    """Return a message whose lines hold nothing that a terminal would obey; it may quote a stranger's file."""
    return "\n".join(printable(line.expandtabs(4)) for line in str(message).split("\n"))


def _leave(code: int) -> None:
    """End at once. Ray's processes have ended, or end with this one (PDEATHSIG), so nothing is waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _log() -> str:
    import traceback

    # arguments may be bytes that are no UTF-8
    with tempfile.NamedTemporaryFile(
        "w", prefix="rlkit-bug-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(f"{shlex.join(sys.argv)}\n\n{traceback.format_exc()}")
    return file.name
