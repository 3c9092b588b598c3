"""The run as it goes, on stderr: one live table in a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlkit.recipe import Recipe

BAR = 24
SHORTEST_BAR = 4
ECHO = 3  # columns left free: a terminal's echo of ^C in a full line would wrap, and leave a stale line above
GAP = 2  # blank columns between two columns of the table
LINE_EVERY_S = 10.0


class Progress:
    """Follows the trials of a run. `result` and `trial` are called by the tracker, in the driver's main thread.

    Args:
        recipe: gives the budget (`stop`) the bar and the ETA are measured against.
        quiet: print nothing.
        console: where to print; stderr by default, so that stdout carries results only.
    """

    def __init__(self, recipe: Recipe, quiet: bool = False, console: Console | None = None):
        self.stop = dict(recipe.stop)
        self.name = recipe.name
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self.started = time.monotonic()
        self.states: dict[str, str] = {}
        self.rows: dict[str, dict[str, float]] = {}
        self.first: dict[str, tuple[float, float]] = {}
        self.live: Live | None = None
        self._next_line = 0.0
        self._said: dict[str, str] = {}

    def __enter__(self) -> Progress:
        if self.console.is_terminal and not self.console.quiet:
            self.live = Live(
                console=self.console, refresh_per_second=4, transient=True, get_renderable=self._table
            )
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        elif self.rows:
            self._lines()

    def say(self, message: str) -> None:
        """Print one line above the live table."""
        self.console.print(message, markup=False, soft_wrap=True)

    def trial(self, name: str, state: str) -> None:
        """Note that a trial is now running, saved (its checkpoint, after an interrupt), done or failed."""
        self.states[name] = state

    def stopping(self) -> None:
        """Note that the run was interrupted: what was running now writes its checkpoint."""
        for name, state in [*self.states.items()]:
            if state == "running":
                self.states[name] = "saving"

    def result(self, name: str, row: Mapping[str, float]) -> None:
        """Note a trial's newest metrics (tidy names). RLlib's NaN is a mean over no episodes: the last one stays."""
        now = time.monotonic()
        known = {key: value for key, value in row.items() if not math.isnan(value)}
        self.rows[name] = {**self.rows.get(name, {}), **known}
        self.first.setdefault(name, (now, self._done(row)))
        if self.live is None and now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            self._lines()

    def _done(self, row: Mapping[str, float]) -> float:
        """Return the fraction of the budget used, by whichever of its limits is nearest."""
        budgets = ("env_steps", "iteration", "time_s", "agent_steps")
        parts = [row.get(key, 0.0) / self.stop[key] for key in budgets if self.stop.get(key)]
        return min(1.0, max(parts, default=0.0))

    def _eta(self, name: str) -> str:
        if self.states.get(name) != "running" or name not in self.first:
            return ""
        since, from_ = self.first[name]
        done = self._done(self.rows[name])
        if done <= from_:
            return ""
        return clock((time.monotonic() - since) * (1.0 - done) / (done - from_))

    def _columns(self, name: str) -> dict[str, str]:
        row = self.rows.get(name, {})
        limit = self.stop.get("env_steps")
        steps = short(row.get("env_steps", 0.0)) + (f"/{short(limit)}" if limit else "")
        columns = {
            "steps": steps,
            "return": number(row.get("episode_return")),
            "eval": number(row.get("eval/episode_return")),
            "steps/s": short(row.get("steps_per_s", 0.0)),
            "ETA": self._eta(name),
        }
        if not any("eval/" in key for key in (*row, *self.stop)):
            del columns["eval"]
        return columns

    def _table(self) -> Table | Text:
        elapsed = clock(time.monotonic() - self.started)
        if not self.states:
            return Text(f"{self.name}: starting Ray and the first trial … {elapsed}", style="dim")
        names = list(self.states)
        shown = names[-20:]
        keys = list(dict.fromkeys(key for name in names for key in self._columns(name)))
        head = ("trial", "state", *keys, "time")
        rows = []
        for name in shown:
            columns, spent = self._columns(name), self.rows.get(name, {}).get("time_s", 0.0)
            rows.append([name, self.states[name], *(columns.get(key, "") for key in keys), clock(spent)])
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        # The bar gets what the words leave. Below its shortest it goes, then the trials' names are folded.
        width = self.console.width - ECHO
        room = width - sum(widths) - GAP * len(widths)
        bar = min(BAR, room) if room >= SHORTEST_BAR else 0
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, GAP, 0, 0))
        if room < 0:
            table.width = width
        for key in head:
            words = key in ("trial", "state")
            folds: Any = {"overflow": "fold"} if key == "trial" else {"no_wrap": True}
            table.add_column(key, justify="left" if words else "right", **folds)
            if key == "state" and bar:
                table.add_column("", no_wrap=True)
        for name, row in zip(shown, rows, strict=True):
            cells: list[str | Text] = [*row]
            if bar:
                filled = round(bar * self._done(self.rows.get(name, {})))
                drawn = Text("━" * filled, style="green") + Text("━" * (bar - filled), style="grey30")
                cells.insert(2, drawn)
            table.add_row(*cells)
        if len(names) > 20:
            table.caption = f"and {len(names) - 20} more trials"
        return table

    def _lines(self) -> None:
        """One line per trial that has something new to say."""
        for name in self.states:
            if name not in self.rows:
                continue
            done = f"{100 * self._done(self.rows[name]):3.0f} %" if self.stop else ""
            columns = self._columns(name)
            news = "  ".join(f"{key} {value}" for key, value in columns.items() if value and key != "ETA")
            if self._said.get(name) != news:
                self._said[name] = news
                left = f"  ETA {columns['ETA']}" if columns["ETA"] else ""
                self.say(f"{name}  {done}  {news}{left}")


def short(value: float | None) -> str:
    """1234567 -> "1.23M", 50000 -> "50k", 475 -> "475"."""
    value = float(value or 0.0)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{value / scale:.3g}{unit}"
    return f"{value:.0f}"


def number(value: float | None) -> str:
    """A return with as many digits as matter; an em dash where there is none yet."""
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def clock(seconds: float) -> str:
    """95 -> "1:35", 3725 -> "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
