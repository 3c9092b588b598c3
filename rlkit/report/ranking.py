"""The trials of a search, the best first, with what was varied in each."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlkit.report.groups import differences
from rlkit.report.run_table import value as shown_value
from rlkit.runs.run import Run

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class RankedTrial:
    """One trial. `value` is the ranking metric at its best checkpoint, without one its newest; None without any."""

    trial: str
    varied: dict[str, str]
    value: float | None
    env_steps: int
    time_s: float


@dataclass(frozen=True)
class Ranking:
    """What `rlkit train` prints after a search. `metric` is the recipe's `checkpoint.best`."""

    metric: str
    trials: list[RankedTrial]

    @classmethod
    def of(cls, run: Run) -> Ranking:
        """Rank the trials of a run by their best value; those without one come last."""
        recipe, trials, best = run.recipe, run.trials, run.info.trial_best
        rows, metric = run.last_rows, recipe.checkpoint.best
        newest = run.newest(metric)
        params = [{key: value for key, value in trial.params.items() if key != "tune"} for trial in trials]
        ranked = []
        for trial, varied in zip(trials, differences(params), strict=True):
            row = rows.get(trial.name, {})
            named = best.get(trial.name)
            value = named.value if named else newest.get(trial.name, math.nan)
            steps = row.get("env_steps", 0.0)
            ranked.append(
                RankedTrial(
                    trial.name,
                    varied,
                    None if math.isnan(value) else value,
                    0 if math.isnan(steps) else int(steps),
                    row.get("time_s", 0.0),
                )
            )
        sign = recipe.best_sign
        ranked.sort(key=lambda t: (t.value is None, -sign * (t.value or 0.0)))
        return cls(metric, ranked)

    def to_json(self) -> dict[str, Any]:
        """The same content as plain values."""
        return asdict(self)

    def table(self) -> Table:
        """The same content for the terminal."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.varied))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("", justify="right", no_wrap=True)
        for name in (*keys, f"best {self.metric}", "env steps", "time"):
            table.add_column(Text(name), justify="right", no_wrap=True)
        for place, trial in enumerate(self.trials, 1):
            best = "–" if trial.value is None else shown_value(trial.value)
            numbers = (best, f"{trial.env_steps:,}", f"{trial.time_s:,.0f} s")
            varied = (trial.varied.get(key, "") for key in keys)
            table.add_row(*map(Text, (str(place), *varied, *numbers)))
        return table
