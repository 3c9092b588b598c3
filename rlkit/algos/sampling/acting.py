"""The acting core: observations to module batches, one forward pass, and what the module chose.

What RLlib's default connectors do, on arrays. The agent, evaluations, the array runner and the joint runner act with
it; `pipelines` names the pieces it stands for, and `actions` leads from here to the environment.

Legend: B rows (one per episode and acting agent), A action, D inputs of the module's distribution. "Nested" means
arrays or tensors in dicts and tuples. Recurrent modules see (B, 1, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.spaces import space_utils
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rlkit import rllib

rllib.squash_greedy_actions()
rllib.import_less_of_torch()
EXPLORE, INFER = "forward_exploration", "forward_inference"


# Observations -----------------------------------------------------------------------------------------------


def stack(rows: Sequence[Any]) -> Any:
    """Return rows of arrays, or of nested dicts of them, as tensors (B, ...); float64 becomes float32."""
    first = rows[0]
    if type(first) is np.ndarray and first.dtype == np.float32:
        return torch.from_numpy(np.stack(rows))
    return convert_to_torch_tensor(space_utils.batch(list(rows)))


def tensors(arrays: Any, device: Any = None) -> Any:
    """Return nested arrays (B, ...) as tensors; float64 becomes float32, integers stay what they are."""
    if type(arrays) is np.ndarray and arrays.dtype == np.float32:
        tensor = torch.from_numpy(arrays)
        return tensor if device is None else tensor.to(device)
    return convert_to_torch_tensor(arrays, device=device)


def with_time(batch: Any) -> Any:
    """Return nested tensors (B, ...) as (B, 1, ...), which recurrent modules see."""
    return map_tensors(lambda x: x.unsqueeze(1), batch)


def initial_state(module: Any) -> Any:
    """Return the state of a recurrent module before its first observation, nested tensors without B."""
    return convert_to_torch_tensor(convert_to_numpy(module.get_initial_state()))


# The forward pass -------------------------------------------------------------------------------------------


@dataclass
class Choice:
    """What a module chose for B rows.

    Attributes:
        actions: nested (B, ...) tensors.
        logp: (B,), 0 for the mode; None where the module chose by itself, or it was not asked for.
        inputs: (B, D) of the distribution, where the module has one.
    """

    actions: Any
    logp: torch.Tensor | None = None
    inputs: torch.Tensor | None = None


class Chooser:
    """How the outputs of one module become actions: RLlib's `GetActions`.

    Args:
        module: an RLModule.
        explore: sample from the module's distribution, else take its mode.
    """

    def __init__(self, module: Any, explore: bool):
        self.module, self.explore = module, explore
        self._kind: Any = None

    def __call__(self, out: Mapping[str, Any], *, logp: bool = False) -> Choice:
        """Return the actions of a forward pass: the module's own, else a sample or the mode of its distribution.

        Args:
            logp: also the log-probability of the actions.
        """
        if Columns.ACTIONS in out:
            return Choice(
                out[Columns.ACTIONS], out.get(Columns.ACTION_LOGP), out.get(Columns.ACTION_DIST_INPUTS)
            )
        inputs: torch.Tensor = out[Columns.ACTION_DIST_INPUTS]
        if self._kind is None:
            name = "exploration" if self.explore else "inference"
            self._kind = getattr(self.module, f"get_{name}_action_dist_cls")()
        if not self.explore:
            certain = torch.zeros(inputs.shape[:-1], device=inputs.device) if logp else None
            return Choice(self._kind.from_logits(inputs).to_deterministic().sample(), certain, inputs)
        if self._kind is TorchCategorical:
            actions, value = categorical(inputs)
            return Choice(actions, value, inputs)
        if self._kind is TorchDiagGaussian:
            actions, value = diagonal_gaussian(inputs, logp)
            return Choice(actions, value, inputs)
        distribution = self._kind.from_logits(inputs)
        actions = distribution.sample()
        given = out.get(Columns.ACTION_LOGP)
        return Choice(actions, distribution.logp(actions) if logp and given is None else given, inputs)


def categorical(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample as `TorchCategorical` does, in fewer calls and with equal bits; return actions and log-probabilities.

    Args:
        logits: (..., n).
    """
    logits = logits - logits.logsumexp(dim=-1, keepdim=True)
    probs = torch.softmax(logits, dim=-1)
    actions = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, True).T.reshape(probs.shape[:-1])
    return actions, logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def diagonal_gaussian(inputs: torch.Tensor, logp: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sample as `TorchDiagGaussian` does, in fewer calls and with equal bits; return actions and log-probabilities.

    Args:
        inputs: (..., 2 A), means and logarithms of the standard deviations.
    """
    mean, log_std = inputs.chunk(2, dim=-1)
    std = log_std.exp()
    actions = torch.normal(mean, std)
    if not logp:
        return actions, None
    density = -((actions - mean) ** 2) / (2 * std**2) - std.log() - HALF_LOG_TWO_PI
    return actions, density.sum(-1)


HALF_LOG_TWO_PI = float(np.log(np.sqrt(2 * np.pi)))


def act(
    module: Any, batch: Mapping[str, Any], *, explore: bool, t: int | None = None, block: int | None = None
) -> dict[str, Any]:
    """Run a module on a batch of tensors (B, ...) and return its outputs.

    Args:
        explore: `forward_exploration` instead of `forward_inference`.
        t: env steps of all runners, for exploration schedules.
        block: rows per forward pass, see `in_blocks`.
    """
    call = rllib.forward(module, EXPLORE if explore else INFER)
    options = {"t": t} if explore else {}
    return in_blocks(lambda part: call(part, **options), batch, block)


def in_blocks(run: Callable[[dict], dict], batch: Mapping[str, Any], block: int | None) -> dict:
    """Call `run` on every `block` rows of a batch, the last ones padded with a copy; join the outputs."""
    if block is None:
        return run(dict(batch))
    first = batch[Columns.OBS]
    while not torch.is_tensor(first):
        first = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
    outs = []
    for start in range(0, len(first), block):
        rows = min(block, len(first) - start)
        part = map_tensors(lambda x, a=start, r=rows: x[a : a + r], batch)
        if rows < block:
            part = map_tensors(lambda x, n=block - rows: torch.cat([x, x[:1].expand(n, *x.shape[1:])]), part)
        out = run(part)
        outs.append(map_tensors(lambda x, r=rows: x[:r], out) if rows < block else out)
    return outs[0] if len(outs) == 1 else map_tensors(lambda *parts: torch.cat(parts), *outs)


def map_tensors(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to corresponding tensors of nested dicts and tuples; anything else stays as it is."""
    first = trees[0]
    if torch.is_tensor(first):
        return function(*trees)
    if isinstance(first, Mapping):
        return {key: map_tensors(function, *(t[key] for t in trees)) for key in first}
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        return tuple(map_tensors(function, *parts) for parts in zip(*trees, strict=True))
    return first


def row(batch: Any, index: int) -> Any:
    """Return one row of nested arrays."""
    if isinstance(batch, Mapping):
        return {key: row(part, index) for key, part in batch.items()}
    return tuple(row(part, index) for part in batch) if isinstance(batch, tuple) else batch[index]


def arrays(tree: Any) -> Any:
    """Return nested tensors as numpy arrays on the CPU."""
    if torch.is_tensor(tree):
        return tree.detach().cpu().numpy()
    if isinstance(tree, Mapping):
        return {key: arrays(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(arrays(part) for part in tree)
    return np.asarray(tree)
