"""Learning curves as a picture, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.errors import UsageError, printable
from rlkit.files import write_atomic
from rlkit.metrics import label
from rlkit.report.groups import Curve, TrialGroup, fewest_seeds, is_return
from rlkit.runs.run import Run, open_run
from rlkit.runs.statistics import MIN_SEEDS, Array, band, iqm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's palette: told apart by readers with any kind of colour vision, and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
# A plain dashed line is an evaluation.
STYLES: tuple[Any, ...] = (
    "-",
    (0, (6, 1, 1, 1)),
    (0, (1, 1)),
    (0, (4, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # with them curves are told apart without colour
POINTS = 400  # of an IQM curve
MOST_LESSONS = 200  # bands behind the curves
LONGEST = 120  # letters of a name in a picture
WIDEST = 54  # and of one in a legend
LETTER = 0.013  # width of a letter above the axes, as a share of their width


def save(figure: Figure, path: Path) -> None:
    """Write a figure; an SVG keeps no date, so that equal figures are equal files.

    The path may lie in a stranger's run: a link or a pipe there is replaced, and never written through.

    Raises:
        UsageError: it cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    try:
        write_atomic(path, data.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def new_figure(size: tuple[float, float] = (7.2, 4.2)) -> tuple[Figure, Axes]:
    """Return a figure with one plain pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="y", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    return figure, axes


def look(number: int) -> dict[str, Any]:
    """Colour, line and marker of the n-th group."""
    return {
        "color": COLORS[number % len(COLORS)],
        "ls": STYLES[(number + number // len(COLORS)) % len(STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def curve_figure(
    groups: Sequence[TrialGroup], metric: str, x: str, size: tuple[float, float] = (7.2, 4.2)
) -> Figure:
    """Return the learning curves of groups as a figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure, axes = new_figure(size)
    handles: list[Any] = []
    notes: dict[str, Any] = {}
    for number, group in enumerate(groups):
        style = look(number)
        curves = group.curves(metric, x)
        _seeds_and_middle(axes, curves, style, alone=len(groups) == 1)
        evaluations = [] if metric.startswith("eval/") else group.curves(f"eval/{metric}", x)
        _evaluation(axes, evaluations, style)
        if curves:
            shown = style if len(groups) > 1 else {**style, "marker": ""}
            handles.append(Line2D([], [], lw=2, ms=5, label=plain(legend(group, curves)), **shown))
        if fewest_seeds(curves) >= MIN_SEEDS:
            notes["band"] = Patch(color="0.35", alpha=0.25, lw=0, label="95 % interval of the IQM")
        if middle(evaluations):
            dashed: dict[str, Any] = {"color": "0.35", "ls": "--", "lw": 1.4, "marker": "o", "ms": 3}
            notes["dashed"] = Line2D([], [], label="evaluation", **dashed)
    drawn = [group for group in groups if group.curves(metric, x)]
    lessons = next((found for g in drawn if (found := lesson_borders(g, x))), None)
    if lessons:
        _bands(axes, lessons)
    axes.set_title(plain(title(groups)), fontsize=10, loc="left", pad=18 if lessons else 8)
    axes.set_xlabel(plain(label(x)))
    axes.set_ylabel(plain(scaled_label(groups, metric)))
    if x != "time_s":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=x != "time_s"))
    if axes.dataLim.x0 < 0.2 * axes.dataLim.x1:
        axes.set_xlim(left=0)
    if len(handles) > 1 or notes or len(groups[0].trials) > 1:
        axes.legend(handles=[*handles, *notes.values()], frameon=False, fontsize=9)
    return figure


def scaled_label(groups: Sequence[TrialGroup], metric: str) -> str:
    """The metric's label, or what it is called on the scale of several environments."""
    scaled = is_return(metric) and any(g.scale for g in groups)
    return "normalised " + label(metric).split(" [")[0] if scaled else label(metric)


def average(curves: Sequence[Curve]) -> tuple[Array, Array] | None:
    """Interpolate curves to the points between the latest start and the earliest end.

    Returns:
        x (points,) and y (curves, points), or None where no x is common to all. Beyond the earliest end the
        mean would be over other seeds than before, so it ends there.
    """
    if not curves:
        return None
    low, high = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
    if low > high:
        return None
    grid = np.unique(np.concatenate([c.x for c in curves]))
    grid = grid[(grid >= low) & (grid <= high)]
    if len(grid) > POINTS:
        grid = np.linspace(low, high, POINTS)
    return grid, np.stack([np.interp(grid, c.x, c.y) for c in curves])


def legend(group: TrialGroup, curves: Sequence[Curve]) -> str:
    """`dqn_cartpole lr=0.001 (5 seeds)`."""
    name = group.label
    if len(name) > WIDEST:  # a wide legend would squeeze the curves; what differs stands at the end
        name = f"{name[: WIDEST // 3]}…{name[-(2 * WIDEST // 3) :]}"
    return f"{name} ({len(curves)} seeds)" if len(curves) > 1 else name


def title(groups: Sequence[TrialGroup]) -> str:
    """The environments, and the recipe when there is one group alone."""
    envs = list(dict.fromkeys(str(g.params["env"]) for g in groups if g.params.get("env")))
    return " · ".join([groups[0].label, *envs] if len(groups) == 1 else envs[:3])


def lesson_borders(group: TrialGroup, x: str) -> list[tuple[float, str]]:
    """Where the lessons of a group's curriculum begin: (x, name).

    One seed shows every change, also back to an earlier lesson; with several, a lesson that most of them reached
    begins where the median seed first reached it. [] where there are too many to be told apart.
    """
    curves = group.curves("curriculum/lesson", x)
    if not curves:
        return []
    section = group.params.get("curriculum")
    lessons = section.get("lessons") if isinstance(section, dict) else None
    names = [str(item.get("name", i)) for i, item in enumerate(lessons)] if isinstance(lessons, list) else []

    def name(number: int) -> str:
        return names[number] if 0 <= number < len(names) else f"lesson {number}"

    borders: list[tuple[float, str]] = []
    if len(curves) == 1:
        at, lesson = curves[0].x, np.trunc(curves[0].y)
        changes = np.flatnonzero(lesson[1:] != lesson[:-1]) + 1
        if len(changes) < MOST_LESSONS:
            borders = [(0.0, name(int(lesson[0]))), *((float(at[i]), name(int(lesson[i]))) for i in changes)]
        return borders
    numbers = np.unique(np.concatenate([np.trunc(c.y) for c in curves]))
    for number in numbers if len(numbers) <= MOST_LESSONS else ():
        begins = [float(c.x[np.argmax(c.y >= number)]) for c in curves if (c.y >= number).any()]
        if 2 * len(begins) > len(curves):
            borders.append((float(np.median(begins)) if borders else 0.0, name(int(number))))
    return borders


def middle(curves: Sequence[Curve]) -> tuple[Array, Array, list[Array]] | None:
    """Return where all curves have values, their IQM there, and the curves (seeds, points) per environment."""
    common = average(curves)
    if common is None:
        return None
    grid, values = common
    envs = list(dict.fromkeys(curve.env for curve in curves))
    return grid, iqm(values.T), [values[[c.env == env for c in curves]] for env in envs]


def _seeds_and_middle(axes: Axes, curves: Sequence[Curve], style: dict[str, Any], alone: bool) -> None:
    if len(curves) == 1:
        x = curves[0].x
        axes.plot(x, curves[0].y, lw=1.8, **_marked(style, x, alone))
        return
    for curve in curves:
        # More points do not show, and fill a page.
        shown = np.unique(np.linspace(0, len(curve.x) - 1, POINTS).astype(int))
        axes.plot(
            curve.x[shown], curve.y[shown], color=style["color"], lw=0.8, alpha=0.45, marker=_dot(curve.x)
        )
    found = middle(curves)
    if found is None:
        return
    grid, values, tasks = found
    axes.plot(grid, values, lw=2.4, **_marked(style, grid, alone))
    if fewest_seeds(curves) >= MIN_SEEDS:
        axes.fill_between(grid, *band(tasks), color=style["color"], alpha=0.18, lw=0)


def _marked(style: dict[str, Any], x: Array, alone: bool) -> dict[str, Any]:
    """Eight markers along a curve among others; one curve alone needs none, unless it is a single point."""
    if alone and len(x) > 1:
        return {**style, "marker": ""}
    return {**style, "markevery": max(1, len(x) // 8), "ms": 5}


def _evaluation(axes: Axes, curves: Sequence[Curve], style: dict[str, Any]) -> None:
    found = middle(curves)
    if found is None:  # nothing is common to the seeds: the points by themselves
        for curve in curves:
            axes.plot(curve.x, curve.y, color=style["color"], ls="", marker=style["marker"], ms=4, mfc="none")
    else:
        grid, values, _ = found
        marks = {"marker": style["marker"], "ms": 4, "mfc": "none", "markevery": max(1, len(grid) // 20)}
        axes.plot(grid, values, color=style["color"], ls="--", lw=1.4, **marks)


def _bands(axes: Axes, borders: Sequence[tuple[float, str]]) -> None:
    """Shade every second lesson, and write each one's name above the axes where it does not hit its neighbour."""
    end = axes.dataLim.x1
    ends = [begin for begin, _ in borders[1:]] + [end]
    written = 0.0
    for number, ((begin, name), stop) in enumerate(zip(borders, ends, strict=True)):
        if number % 2 == 0:
            axes.axvspan(begin, stop, color="0.5", alpha=0.10, lw=0, zorder=0)
        half = 0.5 * LETTER * len(name) * end
        centre = min((begin + stop) / 2, end - half)
        if centre - half < written:
            continue
        written = centre + half
        axes.annotate(
            plain(name), (centre, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=8, color="0.35",
        )  # fmt: skip


def plain(text: str) -> str:
    """Text of a run as text of a picture: no formula between dollar signs, no control characters, not too long."""
    shown = printable(text)
    return (shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…").replace("$", r"\$")


def _dot(x: Array) -> str:
    """A line of one point is invisible without a marker."""
    return "o" if len(x) == 1 else ""


def picture_path(runs: Sequence[str | Path | Run], out: str | Path | None) -> Path:
    """Return where the picture goes.

    Raises:
        UsageError: a suffix other than .png, .svg, .pdf, or a folder that does not exist.
    """
    if out is None:
        if len(runs) > 1:
            return Path("plot.png")
        return (runs[0] if isinstance(runs[0], Run) else open_run(runs[0])).path / "plot.png"
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path.name!r}: expected a name ending in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    return path
