"""One Tune trial: an RLlib Algorithm that is configured by a recipe and writes verified checkpoints.

`tune.run(trainable(DQN), config=<recipe as a dict>)`: Tune resolves the search spaces in the recipe, the trial's
process builds the AlgorithmConfig from it. Everything else is RLlib's Algorithm.
"""

from __future__ import annotations

import functools
import math
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.exceptions import RayActorError
from ray.rllib.algorithms.algorithm import Algorithm

from rlkit import registry, rllib, state
from rlkit.algos.onpolicy.kl import attach_kl_coeffs
from rlkit.callbacks.base import CallbackError
from rlkit.errors import CheckpointError, RunFailed
from rlkit.launch import initial
from rlkit.launch.build import build
from rlkit.launch.faults import RunnerFaults
from rlkit.launch.mirror import away
from rlkit.metrics import measured
from rlkit.recipe import Recipe
from rlkit.replay.saving import attach_episodes
from rlkit.runs import manifest, signing
from rlkit.runs.layout import checkpoint_name

NAMES = "__names__"
TRUST = "__trust__"
STORE = "__store__"
SCORE = "checkpoint_score"


def parse(config: Mapping[str, Any]) -> Recipe:
    """Return the recipe in a trial's config, its names known here. Keys of Tune (`__stdout_file__`, …) are left out."""
    config.get(NAMES, registry.Names()).load()
    return Recipe.from_dict({key: value for key, value in config.items() if not key.startswith("__")})


class RecipeTrial:
    """Mixin in front of an Algorithm class; see `trainable`."""

    algorithm_class: type[Algorithm]
    recipe: Recipe

    def __init__(self, config: dict[str, Any] | None = None, **kwargs: Any):
        config = config or {}
        self._trust = bool(config.get(TRUST)) or signing.read_key() is None
        self.recipe = parse(config)
        super().__init__(build(self.recipe), **kwargs)  # type: ignore[call-arg]
        self._begun = not self.recipe.init_from
        self._faults = RunnerFaults(self, self.recipe.config.get("fault_tolerance", {}))
        rllib.remember_learner_errors(self)
        attach_kl_coeffs(self)
        if self.recipe.config.get("training", {}).get("store_buffer_in_checkpoints", True):
            attach_episodes(self)
        state.attach(self, "generators", state.Values(generators, set_generators))
        rllib.keep_trial_info(self, config)
        rllib.persist_by_rename(self, self._checkpoint_name)
        self._away = away(config.get(STORE), rllib.trial_folder(self))

    def __repr__(self) -> str:
        """Ray prints the actor when its constructor raises; `Algorithm.__repr__` would hide that error (2.60)."""
        return self.algorithm_class.__name__

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> Any:
        """Ask Tune for what the recipe's env runners and learners need, by RLlib's own rule."""
        return cls.algorithm_class.default_resource_request(build(parse(config)))

    def training_step(self) -> None:
        super().training_step()  # type: ignore[misc]
        self._faults.after_training_step()

    def step(self) -> dict[str, Any]:
        """RLlib's iteration, with the metric that ranks checkpoints at the top level of the result.

        Tune's CheckpointManager (2.60) looks for the score among the top-level keys only, so a nested
        `evaluation/env_runners/...` never ranks anything and the best checkpoint is deleted as the oldest.
        """
        try:
            result = super().step()  # type: ignore[misc]
        except Exception as error:  # of many kinds, whatever first misses a learner's answer
            self._check_learners(error)
            raise
        self._faults.after_iteration(result)
        score = measured(result, self.recipe.checkpoint.best)
        worst = -self.recipe.best_sign * math.inf
        result[SCORE] = worst if math.isnan(score) else score
        return result

    def _check_learners(self, error: Exception | None = None) -> None:
        """Raise what a remote learner ended with; RLlib drops it, or shows the error of who asked it next."""
        gone, learners, reason = rllib.lost_learners(self)
        if not gone:
            return
        how = "ended without an exception: killed, out of memory, or a crash in native code"
        if reason is not None and not isinstance(reason, RayActorError):
            cause = getattr(reason, "cause", None) or reason
            how = f"failed: {type(cause).__name__}: {cause}"
        raise RunFailed(f"{gone} of {learners} learners {how}") from (reason or error)

    def train(self) -> dict[str, Any]:
        """One iteration; before a callback that raised ends the run, what was learned is saved."""
        if not self._begun:
            self._begin()
        try:
            return super().train()  # type: ignore[misc]
        except CallbackError:
            folder = rllib.trial_folder(self)
            if folder is not None and not (folder / self._checkpoint_name()).exists():
                try:
                    self.save()
                except Exception as error:  # what the callback said matters more
                    print(f"the state before the callback failed could not be saved: {error}")
            raise

    def _begin(self) -> None:
        """Take the weights of `init_from`, once, in a trial that does not go on from a checkpoint."""
        assert self.recipe.init_from is not None
        made = initial.plans(self.recipe.init_from, initial.of_learners(self), trust=self._trust)
        initial.apply(self, made)
        folder = rllib.trial_folder(self)
        if folder is not None:
            (folder / "init_from.txt").write_text(initial.table(made) + "\n")
        self._begun = True

    def _checkpoint_name(self) -> str:
        return checkpoint_name(rllib.progress_of(self)[0])

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Write a checkpoint beside its final place, so that putting it there is one rename."""
        folder = rllib.trial_folder(self)
        if checkpoint_dir is not None or folder is None:
            return super().save(checkpoint_dir)  # type: ignore[misc]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".writing_", dir=folder)
        try:
            saved = super().save(temporary)  # type: ignore[misc]
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if self._away:
            self._away.send(Path(saved.checkpoint.path))
        return saved

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """RLlib's checkpoint, then the manifest that makes it a finished one."""
        try:
            super().save_checkpoint(checkpoint_dir)  # type: ignore[misc]
            rllib.record_class(Path(checkpoint_dir), self.algorithm_class)
        except OSError as error:
            raise CheckpointError(manifest.cannot_write(error, Path(checkpoint_dir))) from error
        self._check_learners()  # RLlib drops the error of one that died while it saved, and its weights are missing
        iteration, time_total_s, result = rllib.progress_of(self)
        manifest.write(
            Path(checkpoint_dir),
            recipe=self.recipe.to_dict(),
            imports=registry.imports(),
            iteration=iteration,
            env_steps=int(result.get("num_env_steps_sampled_lifetime") or 0),
            extra={
                "time_total_s": time_total_s,
                "timesteps_total": result.get("timesteps_total"),
                "episodes_total": result.get("episodes_total"),
            },
        )

    def restore(self, checkpoint: Any) -> None:
        """Continue from the newest checkpoint of this trial that verifies; say which ones were passed over.

        Tune's own note of the newest checkpoint can be older than the disk after a crash, and it does not notice a
        damaged one. A checkpoint of another trial (population based training) is taken as given.
        """
        path = Path(getattr(getattr(checkpoint, "checkpoint", checkpoint), "path", checkpoint))
        folder = rllib.trial_folder(self)
        if folder is not None and path.parent.resolve() == folder.resolve():
            if self._away:
                self._away.fetch(folder)
            good, skipped = manifest.latest_good(folder, trust=self._trust)
            for bad, reason in skipped:
                print(f"skipping {bad}: {reason}")
            if good is None:
                raise CheckpointError(f"{folder}: no checkpoint is intact; start the run anew")
            notes = good
        else:
            notes = manifest.verify(path, trust=True)
        self._begun = True
        super().restore(str(notes.path))  # type: ignore[misc]
        self._check_learners()
        rllib.set_progress(
            self,
            iteration=notes.iteration,
            time_total_s=float(notes.extra.get("time_total_s") or 0.0),
            metrics=notes.extra,
        )


def generators() -> dict[str, Any]:
    """Return the states of this process's generators: noise, minibatches and sampled actions come from them."""
    return {
        "torch": torch.get_rng_state().numpy(),
        "numpy": np.random.get_state(),
        "random": random.getstate(),
    }


def set_generators(saved: Mapping[str, Any]) -> None:
    """Put the states back; a checkpoint of an older rlkit has none."""
    if saved:
        torch.set_rng_state(torch.from_numpy(np.array(saved["torch"])))
        np.random.set_state(saved["numpy"])
        random.setstate(saved["random"])


@functools.cache
def trainable(algorithm_class: type[Algorithm]) -> type:
    """Return the class Tune runs for an Algorithm class. Its name, which Tune prints, is the Algorithm's own."""
    return type(
        algorithm_class.__name__, (RecipeTrial, algorithm_class), {"algorithm_class": algorithm_class}
    )
