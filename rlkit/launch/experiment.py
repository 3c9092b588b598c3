"""One run as it travels through the launcher: what is trained, where, and how it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlkit.recipe import Recipe
from rlkit.runs.run import RunInfo


@dataclass(frozen=True)
class Experiment:
    """What `tune.run` is asked to do.

    Attributes:
        recipe: search spaces included.
        folder: of the run.
        info: run.json; it also names the imports and the cluster, and gets the outcome.
        resume: which trials go on: those that did not finish, or all of them; None for a new run.
        trust: accept checkpoints that this user did not sign.
        quiet: show no progress. verbose: show what Ray and RLlib print.
    """

    recipe: Recipe
    folder: Path
    info: RunInfo
    resume: Literal["unfinished", "finished"] | None = None
    trust: bool = False
    quiet: bool = True
    verbose: bool = False
