"""metrics.csv of a run: one row per trial and iteration, under tidy names (see `rlkit.metrics`)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlkit.errors import CheckpointError
from rlkit.files import write_atomic
from rlkit.metrics import order


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
        kept = [r for r in rows if r["trial"] != trial or float(r.get("iteration") or -1) <= after_iteration]
        if len(kept) < len(rows):
            self._rewrite(kept)
            self._note(kept)
        return len(rows) - len(kept)

    def _note(self, rows: list[dict[str, str]]) -> None:
        self.last = {row["trial"]: float(row["iteration"]) for row in rows if row.get("iteration")}

    def _rewrite(self, rows: Iterable[Mapping[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["trial", *self.columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())

    def _repair(self) -> None:
        """Cut off what follows the last line end: a row is one `write` that ends with it."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            write_atomic(self.path, data[: data.rfind(b"\n") + 1])


def read_metrics(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a metrics.csv as text: its columns (without `trial`) and its rows, absent values left out.

    Raises:
        CheckpointError: the first column is not `trial`.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if columns and columns[0] != "trial":
            raise CheckpointError(
                f"{path}: not a metrics.csv of rlkit: the first column is {columns[0]!r}, expected 'trial'"
            )
        rows = [{name: cell for name, cell in row.items() if name and cell} for row in reader]
    return columns[1:], [row for row in rows if "trial" in row]


def _cell(value: float) -> str:
    """Whole numbers without a point, everything else with the digits that give the same float back."""
    return repr(float(value)).removesuffix(".0")
