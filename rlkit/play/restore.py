"""A checkpoint's modules and connectors, unpickled: only after `rlkit.runs.manifest` has verified the folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core import COMPONENT_METRICS_LOGGER
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.checkpoints import try_import_msgpack
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rlkit.errors import CheckpointError
from rlkit.play.connectors import policy_of
from rlkit.play.policy import Policy
from rlkit.runs.manifest import Manifest

MODULES = ("learner_group", "learner", "rl_module")
RUNNERS = ("env_runner", "", "eval_env_runner")  # where connectors stand; the last one of offline algorithms
CTOR = "class_and_ctor_args.pkl"


def read_modules(notes: Manifest) -> Any:
    """Return the modules of a verified checkpoint, its names known in this process: a MultiRLModule."""
    with _quiet():
        return _restore(MultiRLModule, notes.path.joinpath(*MODULES))


def read_policy(notes: Manifest) -> Policy:
    """Return the policy of a verified checkpoint, its names known in this process."""
    folder = notes.path
    modules = read_modules(notes)
    with _quiet():
        pipelines = [
            _restore(
                cls,
                next(
                    (p for p in (folder / runner / name for runner in RUNNERS) if p.is_dir()), folder / name
                ),
            )
            for cls, name in (
                (EnvToModulePipeline, "env_to_module_connector"),
                (ModuleToEnvPipeline, "module_to_env_connector"),
            )
        ]
    for module in modules.values():
        if hasattr(module, "eval"):
            module.eval()
    env_steps = sampled_steps(folder) if notes.recipe is None else notes.env_steps
    return policy_of(modules, pipelines[0], pipelines[1], env_steps)


def sampled_steps(folder: Path) -> int | None:
    """Return the environment steps sampled before an RLlib checkpoint, which must be trusted; None: it does not tell.

    The algorithm's metrics count those of all env runners, and the local runner's state repeats their number (2.60).
    """
    for name, steps_of in (("algorithm_state", _logged), ("env_runner/state", _counted)):
        with contextlib.suppress(Exception):  # whatever unpickling raises
            return steps_of(_state(folder / name))
    return None


def _state(path: Path) -> Any:
    packed = path.with_suffix(".msgpack")
    if packed.is_file():
        with packed.open("rb") as file:
            return try_import_msgpack(error=True).load(file, strict_map_key=False)
    with path.with_suffix(".pkl").open("rb") as file:
        return pickle.load(file)


def _logged(state: Mapping[str, Any]) -> int:
    metrics = MetricsLogger(root=True)
    metrics.set_state(state[COMPONENT_METRICS_LOGGER])
    return int(metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)))


def _counted(state: Mapping[str, Any]) -> int:
    return int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])


def _restore(cls: Any, folder: Path) -> Any:
    """Read one RLlib component.

    `from_checkpoint` falls back to an empty object of `cls` when it cannot import the saved class, and to
    random weights when a module's folder is missing (2.60); both are errors here.
    """
    ctor = folder / CTOR
    if not ctor.is_file():
        raise CheckpointError(f"{ctor}: this file of the checkpoint is missing")
    try:
        with ctor.open("rb") as file:
            pickle.load(file)
        component = cls.from_checkpoint(folder.resolve())  # RLlib takes a relative path for a URI
        names = list(component.keys()) if cls is MultiRLModule else []
    except ImportError as error:
        raise CheckpointError(
            f"{ctor} needs a module that cannot be imported ({error}); name it with --import"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
    for name in names:
        if not any((folder / name).glob("module_state.*")):
            raise CheckpointError(
                f"{folder / name / 'module_state.pkl'}: the weights of module {name!r} are missing"
            )
    return component


def algorithm_env(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the environment and its arguments from the config in an RLlib checkpoint, which must be trusted.

    Raises:
        CheckpointError: the config cannot be read.
    """
    path = folder / CTOR
    try:
        with path.open("rb") as file:
            (config, *_), _ = pickle.load(file)["ctor_args_and_kwargs"]
        read = config.get if isinstance(config, Mapping) else functools.partial(getattr, config)
        return read("env", None), dict(read("env_config", None) or {})
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot tell the environment ({type(error).__name__}: {error}); name it: env=..."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the deprecation warning RLlib logs about its own constructors (2.60: RLModuleConfig)."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
