"""The learner half of the on-policy step: fragments to rows with advantages, and epochs of shuffled minibatches.

`OnPolicyLearner` goes before one of RLlib's learner classes with a value function (`class PPOLearner(OnPolicyLearner,
PPOTorchLearner)`). One call does what RLlib's connectors and `Learner.update` do per row and per minibatch:

    fragments -> values of all rows -> advantages -> rows -> epochs -> minibatches -> `ColumnLearner`'s updates

A module with a state (LSTM, GRU, attention) learns from sequences: the steps of an episode, at most `max_seq_len` of
them (of its `model_config`), from the state that the runner had before the first of them. Its rows are whole sequences,
`LOSS_MASK` tells their steps from what fills them up, and a minibatch has as many as hold `minibatch_size` steps on
average. Values are those of the recorded states, one step each.

Legend: T iterations, N environments, B rows of the batch, M rows of a minibatch, K minibatches of a chunk; with a state
a row is (L, …), a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import ALL_MODULES, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit.algos.learning.learner import UPDATES, ColumnLearner
from rlkit.algos.learning.minibatches import first_leaf, tensors
from rlkit.algos.onpolicy.gae import gae, standardised
from rlkit.algos.onpolicy.sequences import sequences
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.errors import RunFailed

# observations whose values are computed in one forward pass, and rows gathered at once, in bytes
MAX_BYTES = 64 * 2**20
VALUES = "values_before"  # V of each row's observation before the updates of this call


class EnoughUpdates(Exception):
    """A loss raises it to end the updates of this call before its own."""


class OnPolicyLearner(ColumnLearner):
    """Mixin that learns from whole fragments. Put it before an RLlib learner class."""

    _ended = False
    _losses_computed = 0  # since the last call ended

    @property
    def logs_this_update(self) -> bool:
        """Whether anybody will see the values that a loss logs now."""
        return self._gate is None or self._gate.is_open

    def any_may_be_last(self) -> bool:
        modules = self.module.keys()
        return any(self.config.get_config_for_module(m).stop_kl is not None for m in modules)

    def update_from_fragments(
        self,
        fragments: Mapping[str, Sequence[ArrayFragment]],
        *,
        env_steps: float,
        timesteps: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Learn from the fragments of one training step: `num_epochs` epochs of minibatches.

        Every minibatch has `minibatch_size` rows of each module. As in RLlib, the last one of an epoch is filled up
        from the next epoch, and modules with fewer rows go round more often.

        Args:
            fragments: {module: fragments} of all env runners.
            env_steps: env steps sampled since the last call.
            timesteps: env steps sampled so far, under `NUM_ENV_STEPS_SAMPLED_LIFETIME`.

        Returns:
            The reduced metrics of this learner.

        Raises:
            RunFailed: NaN or inf in a reward, value, advantage, loss or gradient. No weight has changed since the
                last good update.
        """
        rows = {
            module_id: self.rows_of(module_id, parts)
            for module_id, parts in fragments.items()
            if self.should_module_be_updated(module_id)
        }
        sizes = {module_id: len(first_leaf(columns)) for module_id, columns in rows.items()}
        sizes = {module_id: size for module_id, size in sizes.items() if size}
        counts = {
            module_id: self.minibatch_rows(module_id, rows[module_id], n) for module_id, n in sizes.items()
        }
        updates = max(
            (math.ceil(self.config.num_epochs * n / counts[m]) for m, n in sizes.items()), default=0
        )
        orders = {
            module_id: epochs(n, updates * counts[module_id], shuffle=self.config.shuffle_batch_per_epoch)
            for module_id, n in sizes.items()
        }
        chunks = self._chunks(rows, orders, counts, updates)
        self._ended = False
        self.set_schedules(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) - env_steps)
        return self.update_from_columns(chunks, num_updates=updates, env_steps=env_steps, timesteps=timesteps)

    def _update_once(self, batch: dict[str, Any], *args: Any) -> dict[str, torch.Tensor] | None:
        try:
            return super()._update_once(batch, *args)
        except EnoughUpdates:
            self._ended = True
            return None

    def compute_losses(self, **given: Any) -> dict[str, torch.Tensor]:
        self._losses_computed += 1
        losses: dict[str, torch.Tensor] = super().compute_losses(**given)
        return losses

    def count_updates(self) -> None:
        """Log the updates of a call of RLlib's pipeline; `update_from_columns` logs its own."""
        if not self._in_call:
            self.metrics.log_value((ALL_MODULES, UPDATES), self._losses_computed, reduce="lifetime_sum")
        self._losses_computed = 0

    def set_schedules(self, timestep: float) -> None:
        """Set what is scheduled, apart from learning rates, to its value after `timestep` env steps."""

    def minibatches(self, module_id: str, columns: dict[str, Any]) -> dict[str, Any]:
        """Return minibatches (K, M, ...) of a module as losses see them."""
        return columns

    def rows_of(self, module_id: str, fragments: Sequence[ArrayFragment]) -> dict[str, Any]:
        """Return the steps of all fragments as one batch of columns (B, ...) on the learner's device."""
        parts = [self._rows(module_id, fragment) for fragment in fragments]
        longest = max(
            (part[Columns.LOSS_MASK].shape[1] for part in parts if Columns.LOSS_MASK in part), default=0
        )
        parts = [_filled_up(part, longest) if Columns.LOSS_MASK in part else part for part in parts]
        columns = {name: joined([part[name] for part in parts]) for name in parts[0]}
        if self.config.get_config_for_module(module_id).standardize_advantages == "batch":
            advantages = columns[Postprocessing.ADVANTAGES]
            mask = columns.get(Columns.LOSS_MASK)
            chosen = advantages if mask is None else advantages[mask]
            better = torch.from_numpy(standardised(chosen.cpu().numpy())).to(self.device)
            columns[Postprocessing.ADVANTAGES] = (
                better if mask is None else torch.zeros_like(advantages).masked_scatter(mask, better)
            )
        return columns

    def _rows(self, module_id: str, fragment: ArrayFragment) -> dict[str, Any]:
        config = self.config.get_config_for_module(module_id)
        steps = np.flatnonzero(~fragment.fresh.reshape(-1))
        check_finite(module_id, "reward", fragment.rewards.reshape(-1)[steps])
        obs = _flat(tensors(fragment.obs, self.device))
        states = None if fragment.states is None else _flat(tensors(fragment.states, self.device))
        values = self._values(module_id, obs, states, fragment.rewards.shape)
        check_finite(module_id, "value", values)
        advantages = gae(
            fragment.rewards, values, fragment.terminated, fragment.goes_on(), gamma=config.gamma,
            lambda_=config.lambda_,
        )  # fmt: skip
        columns = {
            Columns.ACTIONS: fragment.actions,
            Columns.ACTION_LOGP: fragment.action_logp,
            Columns.ACTION_DIST_INPUTS: fragment.action_dist_inputs,
            Postprocessing.ADVANTAGES: advantages,
            Postprocessing.VALUE_TARGETS: advantages + values[:-1],
            VALUES: values[:-1],
            **fragment.extras,
        }
        check_finite(module_id, "advantage", advantages.reshape(-1)[steps])
        chosen = torch.from_numpy(steps).to(self.device)
        known = {name: value for name, value in columns.items() if value is not None}
        flat = {Columns.OBS: obs, **_flat(tensors(known, self.device))}
        if states is None:
            return map_tensors(flat, lambda column: column.index_select(0, chosen))
        length = int(self.module[module_id].unwrapped().model_config["max_seq_len"])
        found = torch.from_numpy(sequences(fragment.fresh, fragment.goes_on(), length)).to(self.device)
        order = found.clamp(min=0)
        flat = map_tensors(
            flat, lambda column: column.index_select(0, order.flatten()).unflatten(0, order.shape)
        )
        first = map_tensors(states, lambda column: column.index_select(0, order[:, 0]))
        return {**flat, Columns.STATE_IN: first, Columns.LOSS_MASK: found >= 0}

    def _values(self, module_id: str, obs: Any, states: Any, shape: tuple[int, int]) -> np.ndarray:
        """Return V of all observations, (T + 1, N), from as few forward passes as memory allows."""
        module = self.module[module_id].unwrapped()
        batch = {Columns.OBS: obs}
        if states is not None:
            batch = {Columns.OBS: map_tensors(obs, lambda x: x.unsqueeze(1)), Columns.STATE_IN: states}
        rows = len(first_leaf(obs))
        at_once = max(1, int(MAX_BYTES * rows / max(1, _bytes(batch))))
        with torch.no_grad():
            values = [
                module.compute_values(_cut(batch, start, start + at_once))
                for start in range(0, rows, at_once)
            ]
        return torch.cat(values).float().cpu().numpy().reshape(shape[0] + 1, shape[1])

    def minibatch_rows(self, module_id: str, columns: Mapping[str, Any], size: int) -> int:
        """Return the rows of a minibatch: `minibatch_size`, or as many sequences as hold so many steps on average."""
        wanted = self.config.minibatch_size
        if not wanted:
            return size
        mask = columns.get(Columns.LOSS_MASK)
        if mask is None:
            return int(wanted)
        return min(size, max(1, round(wanted * size / int(mask.sum()))))

    def _chunks(
        self,
        rows: Mapping[str, Mapping[str, Any]],
        orders: Mapping[str, torch.Tensor],
        count: Mapping[str, int],
        updates: int,
    ) -> Iterator[dict[str, Any]]:
        """Gather the minibatches of `count` rows in their order, about an epoch at a time."""
        sizes = {m: len(first_leaf(rows[m])) for m in count}
        at_once = max(1, math.ceil(max((n / count[m] for m, n in sizes.items()), default=1)))
        total = sum(_bytes(rows[m]) / sizes[m] * count[m] for m in sizes)
        at_once = max(1, min(at_once, int(MAX_BYTES / max(total, 1))))
        if self.any_may_be_last():
            at_once = 1
        for done in range(0, updates, at_once):
            if self._ended:
                return
            k = min(at_once, updates - done)
            yield {
                m: self.minibatches(
                    m, map_tensors(rows[m], _gather(orders[m][done * count[m] : (done + k) * count[m]], k))
                )
                for m in sizes
            }


def epochs(size: int, count: int, *, shuffle: bool) -> torch.Tensor:
    """Return `count` row numbers: one pass over all rows after the other, each in an order of its own.

    Args:
        size: rows of the batch.
        count: how many to return; the last pass is cut.
        shuffle: False: every pass goes from first to last.
    """
    passes = range(math.ceil(count / size))
    orders = [torch.randperm(size) if shuffle else torch.arange(size) for _ in passes]
    return torch.cat(orders)[:count]


def _filled_up(columns: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return sequences of `length` rows, with zeros behind those they have; states stay what they are."""

    def longer(column: torch.Tensor) -> torch.Tensor:
        missing = length - column.shape[1]
        return (
            torch.cat([column, column.new_zeros(len(column), missing, *column.shape[2:])], 1)
            if missing
            else column
        )

    return {
        name: value if name == Columns.STATE_IN else map_tensors(value, longer)
        for name, value in columns.items()
    }


def _gather(order: torch.Tensor, k: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def gather(column: torch.Tensor) -> torch.Tensor:
        return column.index_select(0, order.to(column.device)).unflatten(0, (k, -1))

    return gather


def check_finite(module_id: str, name: str, values: np.ndarray) -> None:
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        causes = {
            "reward": "the environment returned it",
            "value": "an observation or a weight of the value function is not finite",
            "advantage": "rewards or values are too large for float32",
        }
        raise RunFailed(
            f"module {module_id!r}: {bad} of {values.size} {name}s are NaN or inf, expected finite numbers; "
            f"{causes[name]}. No weight was changed"
        )


def _flat(value: Any) -> Any:
    """(T, N, ...) -> (T N, ...)."""
    return map_tensors(value, lambda tensor: tensor.flatten(0, 1))


def joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined([part[i] for part in parts]) for i in range(len(first)))
    return torch.cat(list(parts))


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {key: map_tensors(part, function) for key, part in value.items()}
    return (
        tuple(map_tensors(part, function) for part in value) if isinstance(value, tuple) else function(value)
    )


def _cut(value: Any, start: int, stop: int) -> Any:
    return map_tensors(value, lambda tensor: tensor[start:stop])


def _bytes(value: Any) -> int:
    if isinstance(value, Mapping | tuple):
        return sum(map(_bytes, value.values() if isinstance(value, Mapping) else value))
    return int(value.numel() * value.element_size())
