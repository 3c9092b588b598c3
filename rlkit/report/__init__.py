"""Pictures and tables of runs: `plot` learning curves, `compare` recipes over their seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlkit.report.comparison import Comparison
    from rlkit.report.groups import Runs

__all__ = ["compare", "plot"]


def plot(
    runs: Runs,
    metric: str = "episode_return",
    x: str = "env_steps",
    out: str | Path | None = None,
    text: bool = False,
) -> str:
    """Draw the learning curves of runs; return the picture's path, or with `text=True` the drawing itself.

    Runs whose recipes differ only in the seed are one group: its seeds thin, their mean bold, and from three
    seeds on a bootstrap 95 % band of the mean, over the part of the x axis that every seed has reached. A
    dashed line is the mean of the evaluations. Lessons of a curriculum are bands behind the curve.

    Args:
        runs: run folders, trials, `runs/<name>` (its newest run) or `Run`s; one of them or several.
        metric: tidy name on the vertical axis.
        x: tidy name on the horizontal axis: env_steps, time_s, iteration.
        out: `.png`, `.svg` or `.pdf`; default `plot.png` in the run, in the working folder for several runs.
        text: draw with characters, for a terminal.

    Raises:
        UsageError: not a run, a metric that none of them reported, or another suffix.
    """
    from rlkit.report.curves import draw, picture_path
    from rlkit.report.groups import as_list, load_groups
    from rlkit.report.terminal import sketch

    path = None if text else picture_path(as_list(runs), out)
    groups = load_groups(runs, metric, x)
    if path is None:
        return sketch(groups, metric, x)
    draw(groups, metric, x, path)
    return str(path)


def compare(runs: Runs, metric: str = "episode_return") -> Comparison:
    """Compare recipes over their seeds: final and best values, IQM, bootstrap interval, steps and time.

    Raises:
        UsageError: not a run, or a metric that none of them reported.
    """
    from rlkit.report.comparison import Comparison
    from rlkit.report.groups import load_groups

    return Comparison.of(load_groups(runs, metric), metric)
