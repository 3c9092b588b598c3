"""The errors a user sees: one message, one exit code each, no traceback.

`rlkit.cli.process` is the funnel: it prints the message of an `RlkitError` to stderr and leaves with its `exit_code`;
anything else is a bug and leaves with 3 and a log file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlkitError(Exception):
    """Base of every error rlkit raises on purpose. The message says what was got, what was expected, and the fix."""

    exit_code = 1


class UsageError(RlkitError):
    """A wrong argument, path or name given on the command line or to a Python function."""

    exit_code = 2


class RunFailed(RlkitError):
    """A run that started and could not finish."""

    exit_code = 1


class EnvRunnerError(RunFailed):
    """A remote env runner that raised, or died more often than is allowed."""


class CheckpointError(RlkitError):
    """A checkpoint or run folder that is missing, damaged, of another version, or not trusted."""

    exit_code = 2


class EnvError(RlkitError):
    """An environment that breaks its contract: names the agent, the step, the field, got and expected."""

    exit_code = 1


def printable(text: object) -> str:
    r"""Return text without control characters, terminal escapes and direction marks: each is shown as `\x1b`."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)
    )


FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the begin of one


def csv_cell(value: object) -> object:
    """Return a CSV cell that no spreadsheet takes for a formula; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, or an empty string."""
    names = sorted({str(name) for name in known})
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
