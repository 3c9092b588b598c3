"""The contract of a custom model: `build(observation_space, **options) -> torch.nn.Module`.

The module maps a float observation batch to features, and nothing else: heads, distributions, target
networks and losses are the algorithm's. B batch, T time, F features; A actions.

    input   Box            float32 (B, *shape); uint8 images come as 0…255
            Discrete(n)    float32 one-hot (B, n)
            MultiBinary(n) float32 (B, n)
            MultiDiscrete  float32, the one-hots side by side (B, sum of n)
            Dict, Tuple    a dict or tuple of these
    output  float32 (B, F), F of the module's choice; found by running it once on zeros

A recurrent module has `initial_state() -> dict[str, Tensor]` (without B) and is called as `module(obs, state)`
with observations (B, T, …) and a dict of (B, …); it returns features (B, T, F) and the next state.

An observation `Dict(observation=…, action_mask=…)` is split (`rlkit.roster.split_mask`): the module sees `observation`
alone, the mask goes to the policy or Q head.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit.errors import UsageError, did_you_mean

Build = Callable[..., nn.Module]
UNBOUNDED = 1e30  # environments write "no bound" as inf or as the largest float


@dataclass(frozen=True)
class ModelRef:
    """A registered model and its options, in a shape that pickles everywhere.

    `target` is `"module:attribute"` wherever that imports, so that a checkpoint or a remote worker holds a
    reference and not the code; a function that no import can find (a lambda, one of a notebook) is held itself.
    """

    name: str
    target: str | Build
    options: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, build: Build, options: Mapping[str, Any]) -> ModelRef:
        return cls(name, reference(build) or build, dict(options))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "target": self.target, "options": dict(self.options)}

    def load(self) -> Build:
        """Return the build function.

        Raises:
            UsageError: its module cannot be imported here.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"the model {self.name!r} is {attribute!r} of the module {module!r}, which cannot be loaded here "
                f"({error}); give the module with --import"
            ) from error

    def build(self, space: gym.Space) -> nn.Module:
        """Call the user's function.

        Raises:
            UsageError: it raised, or returned no module.
        """
        try:
            module = self.load()(copy.deepcopy(space), **self.options)
        except UsageError:
            raise
        except Exception as error:
            # An AttributeError would make RLModuleSpec.build try a retired signature instead.
            raise UsageError(
                f"the model {self.name!r} could not be built for {space}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"the model {self.name!r} returned {type(module).__name__}, expected a torch.nn.Module"
            )
        return module


def reference(build: Build) -> str | None:
    """Return `"module:attribute"` if importing that gives back the same object."""
    module, name = getattr(build, "__module__", None), getattr(build, "__qualname__", None)
    if not module or not name or module == "__main__" or not name.isidentifier():
        return None
    try:
        return f"{module}:{name}" if getattr(importlib.import_module(module), name, None) is build else None
    except ImportError:
        return None


def check_options(name: str, build: Build, options: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    """Raise a `UsageError` for an option that `build` does not take. `also`: names the caller takes itself."""
    parameters = list(inspect.signature(build).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    takes = [p.name for p in parameters]
    for option in options:
        if option not in takes:
            raise UsageError(
                f"model.{option}: the model {name!r} has no such option{did_you_mean(option, [*takes, *also])}; it "
                f"takes {', '.join(takes) or 'none'}"
            )
    for p in parameters:
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in options:
            raise UsageError(f"model.{p.name}: the model {name!r} needs this option")


def as_float(observation: Any, space: gym.Space) -> Any:
    """Turn a batch of observations into what a module gets (see the module docstring)."""
    if isinstance(space, gym.spaces.Box):
        return observation if observation.dtype == torch.float32 else observation.float()
    if isinstance(space, gym.spaces.Discrete):
        index = (observation.long() - int(space.start)).clamp(min=0)  # rows of zeros stand for no step
        return nn.functional.one_hot(index, int(space.n)).float()
    if isinstance(space, gym.spaces.MultiDiscrete):
        start = torch.as_tensor(space.start, device=observation.device)
        index = (observation.long() - start).clamp(min=0).flatten(-space.nvec.ndim)
        parts = [nn.functional.one_hot(index[..., i], int(n)) for i, n in enumerate(space.nvec.flatten())]
        return torch.cat(parts, dim=-1).float()
    if isinstance(space, gym.spaces.Dict):
        return {key: as_float(observation[key], part) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(as_float(value, part) for value, part in zip(observation, space.spaces, strict=True))
    return observation.float()


def zeros(space: gym.Space, *batch: int) -> Any:
    """Return a float batch of zeros, in the shape a module gets."""
    if isinstance(space, gym.spaces.Dict):
        return {key: zeros(part, *batch) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(zeros(part, *batch) for part in space.spaces)
    if isinstance(space, gym.spaces.Discrete):
        return torch.zeros(*batch, int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return torch.zeros(*batch, int(space.nvec.sum()))
    if not isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        raise UsageError(
            f"a custom model cannot take observations of {space}; flatten them with a connector first"
        )
    return torch.zeros(*batch, *space.shape)


def is_recurrent(module: nn.Module) -> bool:
    return hasattr(module, "initial_state")


def measure(model: ModelRef, space: gym.Space) -> tuple[int, bool]:
    """Build the module once, run it on zeros, and return (F, recurrent).

    Raises:
        UsageError: no trainable parameters, an output that is not float (B, F), or a failure on a batch of
        two or one.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = model.build(space)
        if not any(p.requires_grad for p in module.parameters()):
            raise UsageError(
                f"the model {model.name!r} has no trainable parameters; assign layers to attributes of the module, or "
                "keep them in nn.ModuleList / nn.ModuleDict, not in a plain list"
            )
        recurrent = is_recurrent(module)
        sizes = {batch: _run(model, module.eval(), space, batch, recurrent) for batch in (2, 1)}
    if sizes[1] != sizes[2]:
        raise UsageError(
            f"the model {model.name!r} returns {sizes[2]} features for a batch of 2 and {sizes[1]} for a batch of 1; "
            "the number of features must not depend on the batch"
        )
    return sizes[2], recurrent


def keeps_state(model: ModelRef, space: gym.Space) -> bool:
    """Whether a model for this space is recurrent; it is built to see, without moving the random numbers of torch."""
    with torch.random.fork_rng(devices=[]):
        return is_recurrent(model.build(space))


def _run(model: ModelRef, module: nn.Module, space: gym.Space, batch: int, recurrent: bool) -> int:
    """Check one forward pass and return F."""
    lead = (batch, 3) if recurrent else (batch,)
    try:
        if recurrent:
            state = {key: value.expand(batch, *value.shape) for key, value in module.initial_state().items()}
            output = module(zeros(space, *lead), state)
        else:
            output = module(zeros(space, *lead))
    except Exception as error:
        raise UsageError(
            f"the model {model.name!r} fails on a batch of {batch} observations of {space}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if recurrent:
        if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[1], dict):
            raise UsageError(
                f"the recurrent model {model.name!r} must return (features, state), a tensor and a dict"
            )
        output = output[0]
    what = "(B, T, F)" if recurrent else "(B, F)"
    if not isinstance(output, torch.Tensor):
        raise UsageError(
            f"the model {model.name!r} returned {type(output).__name__}, expected a float tensor {what}"
        )
    good = output.dim() == len(lead) + 1 and output.shape[:-1] == lead and output.is_floating_point()
    if not good:
        raise UsageError(
            f"the model {model.name!r} returned {output.dtype} {tuple(output.shape)} for a batch of {batch}, "
            f"expected float {what} = {(*lead, 'F')}; flatten the rest with torch.flatten(x, {len(lead)})"
        )
    return int(output.shape[-1])
