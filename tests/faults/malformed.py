"""Run folders from strangers: every file replaced by what it must not be, every key by a value of another type.

Whatever lies there, a command ends within seconds with 0, 1 or 2, never as a bug, and lets no control character through
to the terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.cli import process

LIMIT_S = 60
ESCAPES = "\x1b[31mred\x1b]0;title\x07"
DEEP = "[" * 100_000 + "]" * 100_000
VALUES: tuple[Any, ...] = (
    None, True, -1, 3, 1e308, float("nan"), "", "x", ESCAPES, "../../etc", "\ud800", "=1+1", [], [1], {}, {"a": 1},
    {"a": {"b": [None]}}, [[[[]]]],
)  # fmt: skip

Change = Callable[[Path], None]


def _content(data: bytes) -> Change:
    def change(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    return change


def _other(make: Callable[[Path], object]) -> Change:
    def change(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return change


FILES: dict[str, Change] = {
    "empty": _content(b""),
    "binary": _content(bytes(range(256)) * 20),
    "text": _content(b"hello\nworld\n"),
    "a list": _content(b"[]"),
    "null": _content(b"null"),
    "a number": _content(b"1e999"),
    "deep": _content(DEEP.encode()),
    "deep in an object": _content(
        b'{"format": 1, "name": "x", "deep": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}"
    ),
    "huge": _content(b'{"name": "' + b"x" * (20 << 20) + b'"}'),
    "not UTF-8": _content(b'{"name": "\xff\xfe"}'),
    "NUL": _content(b"trial,iteration\n\x00,1\n"),
    "many digits": _content(b'{"format": ' + b"9" * 5000 + b"}"),
    "a pipe": _other(os.mkfifo),
    "a folder": _other(Path.mkdir),
    "a link out": _other(lambda path: path.symlink_to("/etc/passwd")),
    "a link to a device": _other(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": _other(lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to itself": _other(lambda path: path.symlink_to(path.name)),
    "gone": lambda path: path.unlink(),
}

TABLES = {
    "text in numbers": "trial,iteration,env_steps,episode_return\ntrial_00000,1,many,good\n",
    "beyond floats": "trial,iteration,env_steps,episode_return\ntrial_00000,1e308,1e308,1\ntrial_00000,2,inf,-inf\n",
    "rows of other lengths": "trial,iteration,env_steps,episode_return\ntrial_00000,1,2,3,4,5,6\ntrial_00000\n,,,\n",
    "a column twice": "trial,iteration,iteration,env_steps,episode_return\ntrial_00000,1,2,3,4\n",
    "another first column": "step,trial\n1,x\n",
    "escapes": f"trial,iteration,env_steps,episode_return,{ESCAPES}\n{ESCAPES},1,2,3,4\n",
    "a formula": "trial,iteration,env_steps,episode_return,=cmd|'/c calc'!A0\n=1+1,1,2,3,4\n",
    "an open quote": 'trial,iteration,env_steps,episode_return\n"trial_00000,1,2,3\n',
    "a long cell": "trial,iteration,env_steps,episode_return\ntrial_00000,1,2," + "9" * 200_000 + "\n",
    "negative counts": "trial,iteration,env_steps,episode_return\ntrial_00000,-5,-7,3\n",
}


@dataclass(frozen=True)
class Case:
    """A file of the run and what becomes of it."""

    name: str
    file: str
    change: Change


def _key(key: str, value: object) -> Change:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


def cases(run: Path) -> Iterator[Case]:
    """Yield every case for a finished run with one trial."""
    trial = next(run.glob("trial_*"))
    checkpoint = max(trial.glob("checkpoint_*"))
    files = [run / "run.json", run / "recipe.yaml", run / "metrics.csv", run / "run.lock", trial / "params.json",
             trial / "result.json", checkpoint / "manifest.json"]  # fmt: skip
    for path in files:
        for name, change in FILES.items():
            yield Case(f"{path.name}: {name}", str(path.relative_to(run)), change)
    for name, text in TABLES.items():
        yield Case(f"metrics.csv: {name}", "metrics.csv", _content(text.encode("utf-8", "replace")))
    for path in (run / "run.json", trial / "params.json", checkpoint / "manifest.json"):
        for key in json.loads(path.read_text()):
            for value in VALUES:
                yield Case(f"{path.name}: {key} is {value!r}", str(path.relative_to(run)), _key(key, value))
    best = json.loads((run / "run.json").read_text())["best"]
    for key in best:
        for value in VALUES:
            yield Case(f"run.json: best.{key} is {value!r}", "run.json", _key("best", {**best, key: value}))


class TooLong(BaseException):
    """A command did not end."""


def call(*words: object) -> tuple[int, str]:
    """Run a command of rlkit in this process: exit code, and all that it wrote."""

    def stop(number: int, frame: object) -> None:
        raise TooLong

    wrote = io.StringIO()
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    argv, sys.argv = sys.argv, ["rlkit", *map(str, words)]
    try:
        with contextlib.redirect_stdout(wrote), contextlib.redirect_stderr(wrote):
            process.main()
        return 0, wrote.getvalue()
    except SystemExit as left:
        return int(left.code or 0), wrote.getvalue()
    except TooLong:
        return -1, wrote.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        sys.argv = argv


def commands(case: Case, run: Path, work: Path) -> list[list[object]]:
    """The commands that read the file of a case."""
    every: list[list[object]] = [["runs", "--in", run.parent], ["plot", run, "--text"]]
    if case.file in ("run.json", "recipe.yaml"):
        every += [["train", "--resume", run]]
    if "best." in case.name or " is " not in case.name or "manifest" in case.file or "params" in case.file:
        every += [["evaluate", run, "--episodes", 1], ["compare", run, "--format", "csv"]]
    if " is " not in case.name:
        every += [
            ["report", run, "--no-videos", "-o", work / "page.html"],
            ["export", run, "-o", work / "policy"],
        ]
        every += [["runs", "clean", run, "--yes"]]
    return every


def try_all(
    run: Path, work: Path, chosen: Callable[[int], bool] = lambda number: True
) -> tuple[int, list[str]]:
    """Try the cases whose number is chosen on copies of a run.

    Returns:
        How many commands were tried, and which did not end as they should.
    """
    tried, bad = 0, []
    for number, case in enumerate(cases(run)):
        if not chosen(number):
            continue
        place = work / "runs" / run.name
        for words in commands(case, place, work):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(run, place)
            case.change(place / case.file)
            code, wrote = call(*words)
            tried += 1
            strange = [c for c in wrote if not c.isprintable() and c != "\n"]
            if code not in (0, 1, 2) or "Traceback" in wrote or strange:
                bad.append(f"{case.name}: {words[0]}: exit {code}, {strange[:3]}: {wrote[-300:]}")
                print(bad[-1], file=sys.stderr)
    return tried, bad
