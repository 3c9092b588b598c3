"""Keep the checkpoint that evaluated best, in a script of your own (a recipe has `checkpoint: {best: …}`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlkit import rllib
from rlkit.callbacks.base import Callback, State
from rlkit.files import swap_folder
from rlkit.metrics import find

CHECKPOINT = "rllib_checkpoint.json"


class BestCheckpoint(Callback):
    """Saves the algorithm whenever `metric` reaches a new best. The old one goes only when the new one is there.

    Args:
        folder: where; default `best_checkpoint` in the algorithm's log folder. Only an empty folder or an earlier
            checkpoint is replaced: FileExistsError otherwise.
        metric: a tidy name or a path in RLlib's result; measured whenever a result has it.
        mode: `max` or `min`.
    """

    def __init__(self, folder: str | None = None, metric: str = "eval/episode_return", mode: str = "max"):
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        self.folder, self.metric, self.mode = folder, metric, mode
        self.best: float | None = None
        self.iteration: int | None = None

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        value = find(result, self.metric)
        if value is not None and (
            self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        ):
            self.best, self.iteration = value, result["training_iteration"]
            self._save(algorithm)
        result["best_checkpoint"] = {"value": self.best, "iteration": self.iteration}

    def _save(self, algorithm: Any) -> None:
        final = rllib.log_folder(algorithm, self.folder, "best_checkpoint").resolve()
        if final.exists() and not (final / CHECKPOINT).is_file() and not _is_empty(final):
            raise FileExistsError(
                f"BestCheckpoint: {final} is no checkpoint of RLlib, it has no {CHECKPOINT}, so it is not replaced; "
                "name a folder that is new, empty or an earlier best checkpoint"
            )
        new = final.with_name(f".{final.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        algorithm.save_to_path(str(new))
        swap_folder(new, final)

    def get_state(self) -> State:
        return {"best": self.best, "iteration": self.iteration}

    def set_state(self, state: State) -> None:
        self.best, self.iteration = state["best"], state["iteration"]


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None
