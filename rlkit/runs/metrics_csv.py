"""metrics.csv of a run: one row per trial and iteration, under tidy names (see `rlkit.metrics`)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlkit.errors import CheckpointError
from rlkit.files import write_atomic
from rlkit.metrics import order
from rlkit.runs.reading import LARGEST_TABLE, open_regular, read_bytes, shown

COUNTS = ("iteration", "env_steps", "agent_steps", "time_s")  # 0 to 2^63 in every row


class MetricsWriter:
    """metrics.csv of a run: one row per trial and iteration, complete whatever column appears when.

    Columns are `trial`, then tidy names; an empty cell means that the iteration did not report it. A new
    column rewrites the file under the union of the headers. An existing file is continued; a last line that a
    crash cut off is dropped. Within a trial `iteration` is strictly increasing: a row that goes back (Tune
    restarted the trial from a checkpoint) replaces the rows from there on.

    Raises:
        CheckpointError: the file is there and is not a metrics.csv.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.columns: list[str] = []
        self.last: dict[str, float] = {}  # trial -> iteration of its last row
        if self.path.exists():
            self._repair()
            self.columns, rows = read_metrics(self.path)
            self._note(rows)

    def write(self, trial: str, row: Mapping[str, float]) -> None:
        """Append one row. Values are written with full precision; NaN as `nan`."""
        iteration = row.get("iteration")
        if iteration is not None and iteration <= self.last.get(trial, -math.inf):
            self.truncate(trial, after_iteration=math.ceil(iteration) - 1)
        cells = {"trial": trial, **{name: _cell(value) for name, value in row.items()}}
        if new := [name for name in row if name not in self.columns]:
            _, rows = read_metrics(self.path) if self.columns else ([], [])
            self.columns = order([*self.columns, *new])
            self._rewrite([*rows, cells])
        else:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, ["trial", *self.columns], restval="", lineterminator="\n").writerow(
                    cells
                )
        if iteration is not None:
            self.last[trial] = iteration

    def truncate(self, trial: str, after_iteration: int) -> int:
        """Drop the rows of a trial beyond an iteration, and return how many there were."""
        if not self.columns:
            return 0
        _, rows = read_metrics(self.path)
        kept = [r for r in rows if r["trial"] != trial or self._iteration(r) <= after_iteration]
        if len(kept) < len(rows):
            self._rewrite(kept)
            self._note(kept)
        return len(rows) - len(kept)

    def _note(self, rows: list[dict[str, str]]) -> None:
        self.last = {row["trial"]: self._iteration(row) for row in rows if row.get("iteration")}

    def _iteration(self, row: Mapping[str, str]) -> float:
        return number(self.path, row["trial"], "iteration", row.get("iteration") or "-1")

    def _rewrite(self, rows: Iterable[Mapping[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["trial", *self.columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())

    def _repair(self) -> None:
        """Cut off what follows the last line end: a row is one `write` that ends with it."""
        data = read_bytes(self.path, LARGEST_TABLE)
        if data and not data.endswith(b"\n"):
            write_atomic(self.path, data[: data.rfind(b"\n") + 1])


def read_metrics(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a metrics.csv as text: its columns (without `trial`) and its rows, absent values left out.

    Raises:
        CheckpointError: not a metrics.csv, or one larger than 512 MB.
    """
    with _table(path) as (columns, lines):
        rows = [{name: cell for name, cell in zip(columns, line, strict=False) if cell} for line in lines]
    return columns[1:], [row for row in rows if "trial" in row]


def last_rows(path: Path) -> dict[str, dict[str, float]]:
    """Return each trial's newest row of a metrics.csv as numbers, absent values left out; {} where there is no file.

    Raises:
        CheckpointError: not a metrics.csv, or one larger than 512 MB; a cell that is no number.
    """
    last: dict[str, list[str]] = {}
    try:
        with _table(path) as (columns, lines):
            for line in lines:
                if line:
                    last[line[0]] = line
    except FileNotFoundError:
        return {}
    return {
        trial: {
            name: number(path, trial, name, cell)
            for name, cell in zip(columns[1:], line[1:], strict=False)
            if cell
        }
        for trial, line in last.items()
    }


def newest(path: Path, metric: str) -> dict[str, float]:
    """Return each trial's newest finite value of a metric in a metrics.csv; {} without the file or the column.

    Raises:
        CheckpointError: as `last_rows`.
    """
    found: dict[str, float] = {}
    try:
        with _table(path) as (columns, lines):
            at = columns.index(metric) if metric in columns else len(columns)
            for line in lines:
                cell = line[at] if at < len(line) else ""
                if cell and math.isfinite(value := number(path, line[0], metric, cell)):
                    found[line[0]] = value
    except FileNotFoundError:
        return {}
    return found


def number(path: Path, trial: str, column: str, cell: str) -> float:
    """Return a cell of a metrics.csv as a number.

    Raises:
        CheckpointError: it is none, or a count that cannot be.
    """
    try:
        value = float(cell)
        if column not in COUNTS or -1 <= value < 2**63:
            return value
    except ValueError:
        pass
    expected = "a count" if column in COUNTS else "a number"
    raise CheckpointError(
        f"{shown(path)}: {shown(column)[:80]} of {shown(trial)[:80]} is {shown(cell)[:40]!r}, expected {expected}"
    )


@contextmanager
def _table(path: Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Give the header of a metrics.csv and its lines as cells; what is wrong with the file is a CheckpointError."""
    try:
        with (
            open_regular(path, LARGEST_TABLE) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            reader = csv.reader(text)
            columns = next(reader, [])
            if columns and columns[0] != "trial":
                raise CheckpointError(
                    f"{shown(path)}: not a metrics.csv of rlkit: the first column is {shown(columns[0])[:80]!r}, "
                    "expected 'trial'"
                )
            yield columns, reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{shown(path)}: not a table of metrics ({shown(error)})") from None


def _cell(value: float) -> str:
    """Whole numbers without a point, everything else with the digits that give the same float back."""
    return repr(float(value)).removesuffix(".0")
