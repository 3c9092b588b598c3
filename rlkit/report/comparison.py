"""A table of recipes over their seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from rlkit.errors import UsageError
from rlkit.metrics import label
from rlkit.report.groups import Curve, TrialGroup
from rlkit.report.terminal import thousands
from rlkit.runs.statistics import MIN_SEEDS, improvement_interval, interval, iqm, probability_of_improvement

if TYPE_CHECKING:
    from rich.console import Group as Renderable

LAST_SHARE = 0.1  # the final value of a seed is its mean over this last share of its env steps


@dataclass(frozen=True)
class RecipeRow:
    """One recipe. `std` is over seeds (n - 1), `ci95` a bootstrap interval of the mean (from three seeds)."""

    name: str
    seeds: int
    final: list[float]  # one value per seed
    mean: float
    std: float | None
    iqm: float
    ci95: tuple[float, float] | None
    best: float  # highest value of each seed (lowest of a loss), mean over the seeds
    env_steps: float | None  # mean over the seeds
    time_s: float | None


@dataclass(frozen=True)
class Improvement:
    """P(a > b): how likely a random seed of `a` ends above a random seed of `b`, a tie counting half."""

    a: str
    b: str
    probability: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """What `rlkit compare` prints."""

    metric: str
    rows: list[RecipeRow]
    improvements: list[Improvement]

    @classmethod
    def of(cls, groups: Sequence[TrialGroup], metric: str) -> Comparison:
        """Compare groups by a metric.

        Raises:
            UsageError: no trial has the metric together with env steps.
        """
        rows = [row for group in groups if (row := _row(group, metric)) is not None]
        if not rows:
            raise UsageError(f"no trial here has reported {metric!r} together with env_steps")
        improvements = [
            Improvement(
                a.name,
                b.name,
                probability_of_improvement(a.final, b.final),
                improvement_interval(a.final, b.final) if min(a.seeds, b.seeds) >= MIN_SEEDS else None,
            )
            for a, b in itertools.combinations(rows, 2)
        ]
        return cls(metric, rows, improvements)

    def to_json(self) -> dict[str, Any]:
        """The same content as plain values."""
        return asdict(self)

    def table(self) -> Renderable:
        """The same content as rich tables."""
        from rich.console import Group as Stack

        table = _table(f"{label(self.metric)}, last {LAST_SHARE:.0%} of the env steps; n seeds", "recipe")
        for name in ("n", "mean ± std", "IQM", "95 % CI", "best", "steps", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            cells = [
                row.name,
                str(row.seeds),
                _short(row.mean) + (f" ± {_short(row.std, like=row.mean)}" if row.std is not None else ""),
                _short(row.iqm),
                f"[{_short(row.ci95[0])}, {_short(row.ci95[1])}]" if row.ci95 else "",
                _short(row.best),
                "" if row.env_steps is None else thousands(row.env_steps),
                "" if row.time_s is None else f"{row.time_s:.0f} s",
            ]
            table.add_row(*map(escape, cells))
        if not self.improvements:
            return Stack(table)
        odds = _table("probability that a seed of A ends above a seed of B", "A")
        odds.add_column("B", overflow="fold")
        odds.add_column("P(A > B)", justify="right", no_wrap=True)
        odds.add_column("95 % CI", justify="right", no_wrap=True)
        for pair in self.improvements:
            bounds = f"[{pair.ci95[0]:.2f}, {pair.ci95[1]:.2f}]" if pair.ci95 else ""
            odds.add_row(*map(escape, (pair.a, pair.b, f"{pair.probability:.2f}", bounds)))
        return Stack(table, odds)


def _table(title: str, first: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold", min_width=12)
    return table


def final_value(curve: Curve, share: float = LAST_SHARE) -> float:
    """Mean of what was reported in the last share of a trial's env steps; its last value when none was."""
    late = curve.y[curve.x > (1 - share) * curve.x[-1]]
    return float(late.mean() if len(late) else curve.y[-1])


def _row(group: TrialGroup, metric: str) -> RecipeRow | None:
    curves = group.curves(metric, "env_steps")
    if not curves:
        return None
    final = [final_value(curve) for curve in curves]
    best = [float(c.y.min() if metric.startswith("loss/") else c.y.max()) for c in curves]
    rows = [t.run.last_rows.get(t.name, {}) for t in group.trials]
    return RecipeRow(
        name=group.label,
        seeds=len(curves),
        final=final,
        mean=float(np.mean(final)),
        std=float(np.std(final, ddof=1)) if len(final) > 1 else None,
        iqm=float(iqm(final)),
        ci95=interval(final) if len(final) >= MIN_SEEDS else None,
        best=float(np.mean(best)),
        env_steps=_mean([r["env_steps"] for r in rows if "env_steps" in r]),
        time_s=_mean([r["time_s"] for r in rows if "time_s" in r]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _short(value: float, like: float | None = None) -> str:
    """A number with about three digits, or as many decimals as another one gets."""
    size = abs(value if like is None else like)
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"
