"""Learning curves with characters: a Braille cell holds 2 x 4 dots, so 72 x 16 cells are 144 x 64 points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlkit.errors import UsageError, printable
from rlkit.metrics import label
from rlkit.report.curves import legend, middle, scaled_label, title
from rlkit.report.groups import TrialGroup

# Bit of each dot in a Braille character (U+2800 + bits), by row and column.
BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
KEYS = "abcdefghijklmnopqrstuvwxyz"


def sketch(groups: Sequence[TrialGroup], metric: str, x: str, width: int = 72, height: int = 16) -> str:
    """Return the IQM curve of each group over its seeds as lines of text, with the axes' ends and units.

    With several groups a letter stands at the end of each curve and in the key below.
    """
    lines = []
    for group in groups:
        curves = group.curves(metric, x)
        if found := middle(curves):
            lines.append((printable(legend(group, curves)), found[0], found[1]))
    if not lines:
        raise UsageError(f"no {x} is common to the seeds of any group; plot them by themselves")
    left, right = min(g[0] for _, g, _ in lines), max(g[-1] for _, g, _ in lines)
    finite = np.concatenate([y[np.isfinite(y)] for _, _, y in lines] or [np.zeros(1)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span_x, span_y = (right - left) or 1.0, (high - low) or 1.0

    cells = np.zeros((height, width), dtype=int)
    marks: dict[tuple[int, int], str] = {}
    for number, (_, xs, ys) in enumerate(lines):
        columns = np.arange(2 * width)
        at = left + span_x * columns / (2 * width - 1)
        inside = (at >= xs[0]) & (at <= xs[-1] + span_x / (2 * width))
        values = np.interp(at[inside], xs, ys)
        rows = np.round((high - values) / span_y * (4 * height - 1))
        previous = None
        for column, row in zip(columns[inside], rows, strict=True):
            if np.isnan(row):
                previous = None
                continue
            top, bottom = sorted((int(row), int(row) if previous is None else previous))
            for dot in range(top, bottom + 1):  # upright strokes join neighbouring columns
                cells[dot // 4, column // 2] |= BITS[dot % 4, column % 2]
            previous = int(row)
        if len(lines) > 1 and previous is not None:
            marks[previous // 4, int(columns[inside][-1]) // 2] = KEYS[number % len(KEYS)]

    ticks = {0: f"{high:.4g}", height // 2: f"{(low + high) / 2:.4g}", height - 1: f"{low:.4g}"}
    margin = max(map(len, ticks.values()))
    picture = [printable(f"{title(groups)}: {scaled_label(groups, metric)}".removeprefix(": "))]
    for row in range(height):
        text = "".join(marks.get((row, c)) or chr(0x2800 + int(cells[row, c])) for c in range(width))
        picture.append(
            f"{ticks.get(row, ''):>{margin}} {'┤' if row in ticks else '│'}{text}".rstrip("\u2800")
        )
    ends = f"{thousands(left)}{thousands(right):>{width - len(thousands(left))}}"
    picture += [f"{'':>{margin}} └{'─' * width}", f"{'':>{margin}}  {ends}  {label(x)}"]
    for number, (name, _, ys) in enumerate(lines):
        key = f"{KEYS[number % len(KEYS)]}  " if len(lines) > 1 else ""
        picture.append(f"{'':>{margin}}  {key}{name}: last {ys[-1]:.4g}, highest {np.nanmax(ys):.4g}")
    return "\n".join(picture)


def thousands(value: float) -> str:
    """`41600` as `41.6k`, `1250000` as `1.25M`; below 10,000 only round thousands are shortened."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}".rstrip("0").rstrip(".") + "M"
    if abs(value) >= 1e4 or (value and value % 1000 == 0):
        return f"{value / 1e3:.1f}".rstrip("0").rstrip(".") + "k"
    return f"{value:.4g}"
