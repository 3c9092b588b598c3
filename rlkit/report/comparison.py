"""A table of recipes over their seeds."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from rlkit.errors import UsageError, csv_cell, printable
from rlkit.metrics import label
from rlkit.report.groups import Curve, TrialGroup, fewest_seeds
from rlkit.report.terminal import thousands
from rlkit.runs.statistics import (
    MIN_SEEDS,
    first_reached,
    improvement_interval,
    iqm,
    optimality_gap,
    probability_of_improvement,
    stratified_interval,
)

if TYPE_CHECKING:
    from rich.console import Group as Renderable

LAST_SHARE = 0.1  # the final value of a seed is its mean over this last share of its env steps


@dataclass(frozen=True)
class RecipeRow:
    """One recipe, or what else makes a group.

    Attributes:
        seeds: how many, over all environments.
        final: environment -> the final value of each seed.
        std: over seeds (n - 1).
        ci95: stratified bootstrap interval of the IQM, from three seeds on.
        optimality_gap: of normalised values, how far they stay below 1 on average.
        best: highest value of each seed (lowest of a loss), mean over the seeds.
        env_steps, time_s: mean over the seeds.
    """

    name: str
    seeds: int
    final: dict[str, list[float]]
    mean: float
    std: float | None
    iqm: float
    ci95: tuple[float, float] | None
    optimality_gap: float | None
    best: float
    env_steps: float | None
    time_s: float | None


@dataclass(frozen=True)
class Improvement:
    """P(a > b): how likely a random seed of `a` ends above one of `b`, a tie counting half, mean over environments."""

    a: str
    b: str
    probability: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Reached:
    """How many seeds reached a value, and after how many env steps the median seed did; None if it did not.

    A loss reaches it when it is no larger.
    """

    name: str
    threshold: float
    seeds: int
    of: int
    env_steps: float | None


@dataclass(frozen=True)
class Comparison:
    """What `rlkit compare` prints."""

    metric: str
    rows: list[RecipeRow]
    improvements: list[Improvement]
    reached: list[Reached]

    @classmethod
    def of(cls, groups: Sequence[TrialGroup], metric: str, thresholds: Sequence[float] = ()) -> Comparison:
        """Compare groups by a metric.

        Raises:
            UsageError: no trial has the metric together with env steps.
        """
        unknown = [level for level in thresholds if not math.isfinite(level)]
        if unknown:
            raise UsageError(f"--threshold {unknown[0]}: expected a finite number")
        found = {group.label: curves for group in groups if (curves := group.curves(metric, "env_steps"))}
        rows = [_row(group, found[group.label], metric) for group in groups if group.label in found]
        if not rows:
            raise UsageError(f"no trial here has reported {metric!r} together with env_steps")
        better = [_improvement(a, b) for a, b in itertools.combinations(rows, 2)]
        reached = []
        for names in _same_envs(rows):  # one scale each: a value of CartPole says nothing in Pendulum
            here = {name: found[name] for name in names}
            levels: Sequence[float] = thresholds
            if not thresholds and not metric.startswith("loss/"):
                some = [row for row in rows if row.name in here]
                levels = _levels(some, [c for curves in here.values() for c in curves])
            sign = -1.0 if metric.startswith("loss/") else 1.0
            reached += [
                _reached(name, curves, level, sign) for level in levels for name, curves in here.items()
            ]
        return cls(metric, rows, [pair for pair in better if pair is not None], reached)

    def to_json(self) -> dict[str, Any]:
        """The same content as plain values; what is not finite is null."""
        found: dict[str, Any] = plain_numbers(asdict(self))
        return found

    def sheets(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and cells of each table."""
        gap = any(row.optimality_gap is not None for row in self.rows)
        columns = [
            "recipe",
            "n",
            "mean ± std",
            "IQM",
            "95 % CI",
            *(["gap"] if gap else []),
            "best",
            "steps",
            "time",
        ]
        lines = []
        for row in self.rows:
            lines.append([
                row.name,
                str(row.seeds),
                _short(row.mean) + (f" ± {_short(row.std, like=row.mean)}" if row.std is not None else ""),
                _short(row.iqm),
                f"[{_short(row.ci95[0])}, {_short(row.ci95[1])}]" if row.ci95 else "",
                *([_short(row.optimality_gap or 0.0)] if gap else []),
                _short(row.best),
                "" if row.env_steps is None else thousands(row.env_steps),
                "" if row.time_s is None else f"{row.time_s:.0f} s",
            ])  # fmt: skip
        name = "normalised " + label(self.metric).split(" [")[0] if gap else label(self.metric)
        found = [
            (f"{name}, last {LAST_SHARE:.0%} of the env steps; n seeds, interval of the IQM", columns, lines)
        ]
        if self.improvements:
            odds = [
                [p.a, p.b, f"{p.probability:.2f}", f"[{p.ci95[0]:.2f}, {p.ci95[1]:.2f}]" if p.ci95 else ""]
                for p in self.improvements
            ]
            title = "probability that a seed of A ends above a seed of B"
            found.append((title, ["A", "B", "P(A > B)", "95 % CI"], odds))
        if self.reached:
            steps = [
                [
                    r.name,
                    _short(r.threshold),
                    f"{r.seeds} of {r.of}",
                    thousands(r.env_steps) if r.env_steps else "–",
                ]
                for r in self.reached
            ]
            title = "env steps until a value is reached, median seed"
            found.append((title, ["recipe", "value", "seeds", "steps"], steps))
        return found

    def table(self) -> Renderable:
        """The same content as rich tables."""
        from rich.console import Group as Stack

        tables = []
        for title, columns, lines in self.sheets():
            table = Table(
                title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
            )
            table.add_column(columns[0], overflow="fold", min_width=12)
            for name in columns[1:]:
                wide = name == "B"
                table.add_column(
                    name,
                    justify="left" if wide else "right",
                    no_wrap=not wide,
                    overflow="fold" if wide else "ellipsis",
                )
            for line in lines:
                table.add_row(*(escape(printable(text)) for text in line))
            tables.append(table)
        return Stack(*tables)

    def markdown(self) -> str:
        """The same content as tables of Markdown."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(escape_markdown(text) for text in cells) + " |"

        blocks = []
        for title, columns, lines in self.sheets():
            rule = "|" + "|".join(["---", *["---:"] * (len(columns) - 1)]) + "|"
            blocks.append("\n".join([f"**{title}**", "", line(columns), rule, *map(line, lines)]))
        return "\n\n".join(blocks) + "\n"

    def csv(self) -> str:
        """One line per group with full numbers; the env steps to each threshold follow as columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        levels = list(dict.fromkeys(r.threshold for r in self.reached))
        steps = {(r.name, r.threshold): r.env_steps for r in self.reached}
        plain = ["name", "seeds", "mean", "std", "iqm"]
        more = ["optimality_gap", "best", "env_steps", "time_s"]
        writer.writerow([*plain, "ci95_low", "ci95_high", *more, *(f"env_steps_to_{x:g}" for x in levels)])
        for row in self.rows:
            low, high = row.ci95 or (None, None)
            ends = [steps.get((row.name, level)) for level in levels]
            values = [getattr(row, k) for k in plain] + [low, high] + [getattr(row, k) for k in more] + ends
            writer.writerow(map(csv_cell, values))
        return text.getvalue()


def plain_numbers(value: Any) -> Any:
    """Nested values with None in place of numbers that JSON does not know: inf and NaN."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def escape_markdown(text: str) -> str:
    """Return text that stays text in a cell of a Markdown table, in HTML too."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def final_value(curve: Curve, share: float = LAST_SHARE) -> float:
    """Mean of what was reported in the last share of a trial's env steps; its last value when none was."""
    late = curve.y[curve.x > (1 - share) * curve.x[-1]]
    return float(late.mean() if len(late) else curve.y[-1])


def _row(group: TrialGroup, curves: Sequence[Curve], metric: str) -> RecipeRow:
    final: dict[str, list[float]] = {}
    for curve in curves:
        final.setdefault(curve.env, []).append(final_value(curve))
    scores = [value for values in final.values() for value in values]
    best = [float(c.y.min() if metric.startswith("loss/") else c.y.max()) for c in curves]

    def ends(name: str) -> list[float]:
        return [value for t in group.trials if (value := group.last(t, name)) is not None]

    with np.errstate(over="ignore"):  # squares of what is just finite
        std = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return RecipeRow(
        name=group.label,
        seeds=len(curves),
        final=final,
        mean=float(np.mean(scores)),
        std=std,
        iqm=float(iqm(scores)),
        ci95=stratified_interval(list(final.values()), iqm) if fewest_seeds(curves) >= MIN_SEEDS else None,
        optimality_gap=float(optimality_gap(scores)) if group.scale else None,
        best=float(np.mean(best)),
        env_steps=_mean(ends("env_steps")),
        time_s=_mean(ends("time_s")),
    )


def _improvement(a: RecipeRow, b: RecipeRow) -> Improvement | None:
    """Over the environments that both have; None where they share none."""
    envs = [env for env in a.final if env in b.final]
    if not envs:
        return None
    pairs = [(a.final[env], b.final[env]) for env in envs]
    enough = all(min(len(x), len(y)) >= MIN_SEEDS for x, y in pairs)
    chance = float(np.mean([probability_of_improvement(x, y) for x, y in pairs]))
    return Improvement(a.name, b.name, chance, improvement_interval(pairs) if enough else None)


def _same_envs(rows: Sequence[RecipeRow]) -> list[list[str]]:
    """The names of the rows with the same environments, in their order."""
    found: dict[frozenset[str], list[str]] = {}
    for row in rows:
        found.setdefault(frozenset(row.final), []).append(row.name)
    return list(found.values())


def _levels(rows: Sequence[RecipeRow], curves: Sequence[Curve]) -> list[float]:
    """A half, three quarters and nine tenths of the way from the lowest first value to the best IQM."""
    low, high = min(float(c.y[0]) for c in curves), max(row.iqm for row in rows)
    exact = [low + share * (high - low) for share in (0.5, 0.75, 0.9)] if high > low else []
    rounded = ([float(f"{level:.{digits}g}") for level in exact] for digits in range(3, 17))
    return next((levels for levels in rounded if len(set(levels)) == len(exact)), exact)


def _reached(name: str, curves: Sequence[Curve], level: float, sign: float) -> Reached:
    """`sign`: -1 where less is better, as of a loss: then a value is reached from above."""
    steps = [first_reached(c.x, sign * c.y, sign * level) for c in curves]
    ordered = sorted(math.inf if s is None else s for s in steps)
    middle = float(np.median(ordered)) if math.isfinite(ordered[len(ordered) // 2]) else math.inf
    count = sum(s is not None for s in steps)
    return Reached(name, level, count, len(steps), middle if math.isfinite(middle) else None)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _short(value: float, like: float | None = None) -> str:
    """A number with about three digits, or as many decimals as another one gets."""
    size = abs(value if like is None else like)
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"
