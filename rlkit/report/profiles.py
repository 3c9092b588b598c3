"""Performance profiles: for every return, the share of seeds that end above it (arXiv 2108.13264, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rlkit.report.comparison import final_value
from rlkit.report.curves import legend, look, new_figure, plain, scaled_label, title
from rlkit.report.groups import Curve, TrialGroup, fewest_seeds
from rlkit.runs.statistics import BAND_RESAMPLES, MIN_SEEDS, Array, profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 201


def final_scores(curves: Sequence[Curve]) -> list[Array]:
    """The final value of every seed, per environment."""
    envs = dict.fromkeys(curve.env for curve in curves)
    return [np.array([final_value(c) for c in curves if c.env == env]) for env in envs]


def profile_figure(
    groups: Sequence[TrialGroup], metric: str, size: tuple[float, float] = (7.2, 4.2), fewest: int = 1
) -> Figure:
    """Return the profiles of the groups' final values, with a stratified bootstrap band from three seeds on.

    Groups of fewer than `fewest` seeds are left out; the others look as they do beside them in `curve_figure`.
    """
    figure, axes = new_figure(size)
    found = [(number, group, group.curves(metric, "env_steps")) for number, group in enumerate(groups)]
    found = [(number, group, curves) for number, group, curves in found if len(curves) >= fewest]
    tasks = [final_scores(curves) for _, _, curves in found]
    every = np.concatenate([scores for task in tasks for scores in task])
    room = 0.05 * (np.ptp(every) or 1.0)
    thresholds = np.linspace(every.min() - room, every.max() + room, POINTS)
    for (number, group, curves), task in zip(found, tasks, strict=True):
        style = look(number)
        share = profile(np.concatenate(task), thresholds)
        axes.plot(
            thresholds, share, lw=2, ms=5, markevery=(number * 5, POINTS // 8), drawstyle="steps-pre",
            label=plain(legend(group, curves)), **style,
        )  # fmt: skip
        if fewest_seeds(curves) >= MIN_SEEDS:
            rng = np.random.default_rng(0)
            drawn = [s[rng.integers(len(s), size=(BAND_RESAMPLES, len(s)))] for s in task]
            low, high = np.quantile(
                profile(np.concatenate(drawn, axis=1), thresholds), [0.025, 0.975], axis=0
            )
            axes.fill_between(thresholds, low, high, step="pre", color=style["color"], alpha=0.18, lw=0)
    axes.set_title(plain(title(groups)), fontsize=10, loc="left")
    axes.set_xlabel(plain(f"{scaled_label(groups, metric)} τ, last tenth of the env steps"))
    axes.set_ylabel("share of seeds above τ")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=9)
    return figure
