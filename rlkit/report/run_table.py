"""`rlkit runs` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlkit.errors import printable
from rlkit.report.terminal import thousands
from rlkit.runs.listing import RunRow

if TYPE_CHECKING:
    from rich.table import Table


def run_table(rows: Sequence[RunRow]) -> Table:
    """Return a table with a line per run; its path is a word that can be copied."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=24)
    for name in ("status", "trials", "best", "steps", "age", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        best = "–" if row.best is None else value(row.best)
        steps = "–" if row.env_steps is None else thousands(row.env_steps)
        words = (row.place, row.status, str(row.trials), best, steps, age(row.age_s), amount(row.size))
        table.add_row(*(Text(printable(word)) for word in words))
    return table


def value(number: float) -> str:
    """`1,234.5`, `0.0003`: one decimal, or three digits below 1."""
    return f"{number:,.1f}" if abs(number) >= 1 or number == 0 else f"{number:.3g}"


def age(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 d`."""
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def amount(size: float) -> str:
    """`812 B`, `3.4 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
