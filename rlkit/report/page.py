"""`rlkit report`: one self-contained HTML page about runs. No script, nothing loaded from anywhere.

All text comes from run folders, which may be a stranger's: the template escapes every value, the page's content policy
forbids scripts and requests, and figures are images, in which nothing can run.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rlkit
from rlkit.errors import UsageError, printable
from rlkit.files import write_atomic
from rlkit.metrics import label
from rlkit.report import facts
from rlkit.report.comparison import Comparison
from rlkit.report.curves import curve_figure, plain
from rlkit.report.films import EPISODES, Played, play_best
from rlkit.report.groups import Runs, TrialGroup, as_list, read_groups
from rlkit.report.profiles import profile_figure
from rlkit.report.ranking import Ranking
from rlkit.report.run_table import value as shown_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES = 3_000_000
DATA = tuple(f"data:{kind};base64," for kind in ("image/svg+xml", "image/jpeg", "video/mp4"))
SIZE = (5.2, 3.4)  # inches: its letters stay readable on a screen of 400 pixels
MOST_LOSSES, MOST_AGENTS, MOST_CURRICULUM = 12, 8, 6
MOST_LEGEND = 6  # groups: with more, names would cover the curves, and pairs fill the page
MOST_TRIALS = 50  # lines of a search's table
FIRST = (
    "total_loss",
    "policy_loss",
    "vf_loss",
    "qf_loss",
    "actor_loss",
    "critic_loss",
    "entropy",
    "kl",
    "td_error",
)


@dataclass(frozen=True)
class Picture:
    """A figure as the source of an `<img>`, and what it shows in words."""

    title: str
    source: str


def write_page(runs: Runs, out: Path, *, trust: bool, videos: bool) -> list[str]:
    """Write the page; return notes on what was left out. See `rlkit.report.report`."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"cannot write {out.name!r}: expected a name ending in .html")
    if not out.parent.is_dir():
        raise UsageError(f"cannot write {out}: the folder {out.parent} does not exist")
    notes: list[str] = []
    groups = read_groups(as_list(runs), notes=notes)
    if not groups:
        raise UsageError("these runs have no trial yet: there is nothing to report")
    played = play_best(groups, trust=trust, notes=notes) if videos else None
    said = [*notes]  # to which each page adds its own
    content = page(groups, played, said)
    if len(content) > MAX_BYTES and played:
        said = [*notes, "films left out: with them the page would be larger than 3 MB"]
        content = page(groups, replace(played, films=[]), said)
    try:
        write_atomic(out, content)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    return said


def page(groups: Sequence[TrialGroup], played: Played | None, notes: list[str]) -> str:
    """Return the HTML of the page."""
    import jinja2

    metric = main_metric(groups)
    runs = facts.runs_of(groups)
    searches = [_search(run, notes) for run in runs if facts.search_run(run, notes)]
    context: dict[str, Any] = {
        "title": ", ".join(dict.fromkeys(group.name for group in groups)),
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "version": rlkit.__version__,
        "warnings": facts.warnings(groups, metric) if metric else ["no run here has reported a return"],
        "runs": facts.run_rows(groups),
        "groups": [
            {
                "label": group.label,
                "differences": facts.differences_from_defaults(group.params),
                "yaml": facts.recipe_text(group, notes).splitlines(),
                "timers": facts.timer_rows(group, notes),
            }
            for group in groups
        ],
        "played": None if played is None else _played(played),
        "curves": _curves(groups, metric),
        "tables": _tables(groups, metric),
        "agents": _pictures(groups, "return/", notes, MOST_AGENTS),
        "losses": _pictures(groups, "loss/", notes, MOST_LOSSES),
        "curriculum": _pictures(groups, "curriculum/", notes, MOST_CURRICULUM),
        "searches": searches,
        "notes": notes,
    }
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(context)


def _shown(value: Any) -> Any:
    """What stands in the page of a value of the context: no control characters, not too long.

    What a macro of the template made is HTML already (`Markup`), and the only thing that is.
    """
    if hasattr(value, "__html__") or str(value).startswith(DATA):
        return value
    return printable(value)[:2_000]


def main_metric(groups: Sequence[TrialGroup]) -> str | None:
    """The metric that the page is about: the return, else that of evaluations; None where nobody reported one."""
    names = ("episode_return", "eval/episode_return")
    return next((name for name in names if any(g.curves(name, "env_steps") for g in groups)), None)


def _curves(groups: Sequence[TrialGroup], metric: str | None) -> list[Picture]:
    found = []
    for some in _by_env(groups):
        for x, name in [(x, metric) for x in ("env_steps", "time_s", "updates")] + [
            ("env_steps", "steps_per_s")
        ]:
            found += [_picture(some, str(name), x)] if _has(some, name, x) else []
        if metric and any(len(g.curves(metric, "env_steps")) > 1 for g in some):
            figure = profile_figure(some, metric, SIZE, fewest=2)
            found.append(Picture("performance profile", source_of(figure)))
    return found


def _has(groups: Sequence[TrialGroup], metric: str | None, x: str) -> bool:
    return metric is not None and any(group.curves(metric, x) for group in groups)


def _varies(groups: Sequence[TrialGroup], metric: str) -> bool:
    values = {float(y) for group in groups for curve in group.curves(metric, "env_steps") for y in curve.y}
    return len(values) > 1


def _by_env(groups: Sequence[TrialGroup]) -> list[list[TrialGroup]]:
    envs = dict.fromkeys(str(group.params.get("env")) for group in groups)
    return [[g for g in groups if str(g.params.get("env")) == env] for env in envs]


def _picture(groups: Sequence[TrialGroup], metric: str, x: str) -> Picture:
    words = f"{metric if '/' in metric else label(metric)} over {label(x)}"
    figure = curve_figure(groups, metric, x, SIZE)
    if len(groups) > MOST_LEGEND and (legend := figure.axes[0].get_legend()):
        legend.remove()
    if "/" in metric:
        figure.axes[0].set_ylabel(plain(metric.rpartition("/")[2]))  # the caption has all of it
    return Picture(words, source_of(figure))


def _pictures(groups: Sequence[TrialGroup], family: str, notes: list[str], most: int) -> list[Picture]:
    """A picture of each metric of a family, those that people look at first."""
    columns = dict.fromkeys(
        c for g in groups for f in g.frames.values() for c in f.columns if c.startswith(family)
    )

    def place(name: str) -> tuple[int, str]:
        rank = [k for k, word in enumerate(FIRST) if word in name]
        return (rank[0] if rank else len(FIRST)), name

    names = [name for name in sorted(columns, key=place) if _varies(groups, name)]
    if len(names) > most:
        notes.append(
            f"{len(names) - most} more metrics {family}… are not drawn: rlkit plot --metric {names[most]}"
        )
    return [
        _picture(some, name, "env_steps") for name in names[:most] for some in _by_env(groups)
        if _has(some, name, "env_steps")
    ]  # fmt: skip


def _tables(groups: Sequence[TrialGroup], metric: str | None) -> list[dict[str, Any]]:
    """Final values of training, of evaluation and of each agent, by environment."""
    found = []
    for some in _by_env(groups):
        columns = {c for g in some for f in g.frames.values() for c in f.columns}
        agents = sorted(c for c in columns if c.startswith(("return/", "eval/return/")))
        names = [metric, *(["eval/episode_return"] if metric != "eval/episode_return" else []), *agents[:16]]
        for number, name in enumerate(names):
            if name is None or not _has(some, name, "env_steps"):
                continue
            sheets = Comparison.of(some, name).sheets()
            where = str(some[0].params.get("env"))
            for title, head, lines in sheets if number < 2 and len(some) <= MOST_LEGEND else sheets[:1]:
                words = title if "/" not in name else f"{name}: {title}"
                found.append({"title": f"{where}: {words}", "head": head, "lines": lines})
    return found


def _played(played: Played) -> dict[str, Any]:
    return {
        "label": played.label,
        "checkpoint": played.checkpoint,
        "lines": played.lines,
        "episodes": EPISODES,
        "films": [
            {
                "caption": film.caption,
                "source": _data("video/mp4", film.data),
                "poster": _data("image/jpeg", film.poster),
            }
            for film in played.films
        ],
    }


def _search(run: Any, notes: list[str]) -> dict[str, Any]:
    """The ranked table of a search, its importances and slices."""
    from rlkit.report.search_figures import LEAST_TRIALS, importance_figure, importances, points, slice_figure

    ranking = Ranking.of(run)
    keys = list(dict.fromkeys(key for trial in ranking.trials for key in trial.varied))
    lines = [
        [str(place), *(trial.varied.get(key, "") for key in keys),
         "–" if trial.value is None else shown_value(trial.value), f"{trial.env_steps:,}", f"{trial.time_s:,.0f} s"]
        for place, trial in enumerate(ranking.trials, 1)
    ]  # fmt: skip
    spaces, found = points(run)
    pictures = []
    if not found:
        notes.append(f"{run.path}: the search has found nothing, no trial has a value of {ranking.metric}")
    else:
        pictures.append(Picture("slices", source_of(slice_figure(spaces, found, ranking.metric))))
    shares = importances(spaces, found, "min" if run.recipe.best_sign < 0 else "max")
    if shares:
        pictures.insert(0, Picture("parameter importances", source_of(importance_figure(shares))))
    elif found:
        notes.append(
            f"{run.path}: no importances: they need {LEAST_TRIALS} trials with a value, here are {len(found)}, "
            "and pip install optuna"
        )
    if len(lines) > MOST_TRIALS:
        notes.append(f"{run.path}: the {MOST_TRIALS} best of {len(lines)} trials are listed")
    head = ["", *keys, f"best {ranking.metric}", "env steps", "time"]
    return {"run": str(run.path), "head": head, "lines": lines[:MOST_TRIALS], "pictures": pictures}


def source_of(figure: Figure) -> str:
    """Return a figure as the data URL of an SVG without background, so that it can be shown on dark."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    data = io.BytesIO()
    figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return _data("image/svg+xml", data.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
