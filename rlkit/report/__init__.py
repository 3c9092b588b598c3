"""Pictures, tables and pages of runs: `plot` learning curves, `compare` recipes over their seeds, `report` a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlkit.report.comparison import Comparison
    from rlkit.report.groups import Runs

__all__ = ["compare", "plot", "report"]

Scale = Mapping[str, tuple[float, float]]


def plot(
    runs: Runs,
    metric: str = "episode_return",
    x: str = "env_steps",
    out: str | Path | None = None,
    text: bool = False,
    by: Sequence[str] = (),
    scale: Scale | None = None,
    profile: bool = False,
    notes: list[str] | None = None,
) -> str:
    """Draw the learning curves of runs; return the picture's path, or with `text=True` the drawing itself.

    Runs whose recipes differ only in the seed are one group: its seeds thin, their interquartile mean (IQM) bold, and
    from three seeds on a bootstrap 95 % band of the IQM, over the part of the x axis that every seed has reached. A
    dashed line is the IQM of the evaluations. Lessons of a curriculum are bands behind the curve.

    Args:
        runs: run folders, trials, `runs/<name>` (its newest run) or `Run`s; one of them or several.
        metric: tidy name on the vertical axis.
        x: tidy name on the horizontal axis: env_steps, time_s, updates, iteration.
        out: `.png`, `.svg` or `.pdf`; default `plot.png` in the run, in the working folder for several runs.
        text: draw with characters, for a terminal.
        by: keys of the recipe that make groups: recipe, algorithm, env, config.training.lr.
        scale: environment -> the returns that count as 0 and 1 (`rlkit.report.normalise.scores`), so that a group
            may hold several environments.
        profile: draw performance profiles of the final values instead.
        notes: gets a line for each thing that was left out.

    Raises:
        UsageError: not a run, a metric that none of them reported, or another suffix.
        CheckpointError: none of the runs can be read.
    """
    from rlkit.report.curves import curve_figure, picture_path, save
    from rlkit.report.groups import as_list, load_groups
    from rlkit.report.terminal import sketch

    path = None if text else picture_path(as_list(runs), out)
    groups = load_groups(runs, metric, x, by, scale, notes)
    if path is None:
        return sketch(groups, metric, x)
    if profile:
        from rlkit.report.profiles import profile_figure

        figure = profile_figure(groups, metric)
    else:
        figure = curve_figure(groups, metric, x)
    save(figure, path)
    return str(path)


def compare(
    runs: Runs,
    metric: str = "episode_return",
    by: Sequence[str] = (),
    scale: Scale | None = None,
    thresholds: Sequence[float] = (),
    notes: list[str] | None = None,
) -> Comparison:
    """Compare recipes over their seeds: final and best values, IQM, bootstrap interval, steps, sample efficiency.

    Args:
        runs, metric, by, scale, notes: see `plot`.
        thresholds: values whose first reaching is compared; by default a half, three quarters and nine tenths of the
            way from the lowest first value to the best IQM.

    Raises:
        UsageError: not a run, or a metric that none of them reported.
        CheckpointError: none of the runs can be read.
    """
    from rlkit.report.comparison import Comparison
    from rlkit.report.groups import load_groups

    return Comparison.of(load_groups(runs, metric, by=by, scale=scale, notes=notes), metric, thresholds)


def report(
    runs: Runs, out: str | Path = "report.html", *, trust: bool = False, videos: bool = True
) -> list[str]:
    """Write one self-contained HTML page about runs and return notes on what was left out.

    Args:
        runs: see `plot`.
        out: the page; nothing else is written.
        trust: load checkpoints that this user did not sign, for the videos.
        videos: play and film the best checkpoint of each group, where this user signed it.

    Raises:
        UsageError: not a run, or a page that cannot be written.
        CheckpointError: none of the runs can be read.
    """
    from rlkit.report.page import write_page

    return write_page(runs, Path(out), trust=trust, videos=videos)
