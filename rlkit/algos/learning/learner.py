"""The learner half of the off-policy step: many updates per call, on RLlib's own modules and losses.

`ColumnLearner` goes before one of RLlib's learner classes: `class DQNLearner(ColumnLearner, DQNTorchLearner)`.
What RLlib's `Learner.update` does around every single minibatch (tree conversions, metrics, Prometheus timers,
`isfinite` per parameter: two thirds of an update at 256x256) happens here once per call. In between, an update is

    forward -> RLlib's loss -> backward -> norm, check, clip -> Adam -> targets

Deviations from `Learner.update`, none of which changes the numbers of an update (tested to 1e-6):
1. Target networks are updated after each update. RLlib counts `target_network_update_freq` in env steps
   sampled; the env steps of a call are spread evenly over its updates. With one update per call this is
   RLlib's rule.
2. Losses and other values are logged for the last update of a call.
3. A NaN or inf in a gradient stops the run before it reaches a weight; RLlib makes it 0 or 3.4e38 and goes on.
4. SAC's four losses share one backward pass: no parameter is reached by more than one of them.
5. Adam runs fused.

Legend: K updates of a chunk, B rows of a minibatch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    NUM_TARGET_UPDATES,
    WEIGHTS_SEQ_NO,
)

from rlkit import rllib, seeds
from rlkit.algos.learning.adam import AdamStep, total_norm
from rlkit.algos.learning.minibatches import Gate, finite, length, row, steps_of, tensors
from rlkit.algos.learning.targets import Targets
from rlkit.errors import RunFailed
from rlkit.state import LEARNER_STATE as STATE

UPDATES = "num_updates_lifetime"

# {module: {column: array (K, B, ...)}}, nested like the spaces
Chunk = Mapping[str, Mapping[str, Any]]
# called after each chunk with {module: td errors (K, B)}
Feedback = Callable[[dict[str, np.ndarray]], None]


@dataclass
class Call:
    """One call of `update_from_columns`, and what came of it so far.

    Attributes:
        updates: how many it is to run, of which `done` are done.
        start, now: env steps sampled before the sample that called for it, and by now.
        losses: {module: loss} of the last update.
        sizes: {module: rows} of an update.
        target_updates: {module: how often its targets moved}.
        forward: the modules' train forward pass, once it is known.
    """

    updates: int
    start: float
    now: float
    done: int = 0
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    target_updates: dict[str, int] = field(default_factory=dict)
    forward: Callable[[Any], Any] | None = None


@dataclass
class _Plan:
    """What does not change between updates: found once, not once per update."""

    optimizers: list[tuple[str, AdamStep, list[torch.nn.Parameter]]] = field(default_factory=list)
    targets: dict[str, Targets] = field(default_factory=dict)
    pieces: list[Any] = field(default_factory=list)
    own_gradients: bool = False


class ColumnLearner(TorchLearner):
    """Mixin that updates RLlib's modules from columns. Put it before an RLlib learner class.

    Learners of one algorithm begin with equal weights, and draw noise and minibatches from streams of their own.
    """

    metrics: Any
    _gate: Gate | None = None

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._seed_process("weights")

    def _seed_process(self, purpose: str, *where: int) -> None:
        if self.config.seed is not None:
            seeds.seed_process(seeds.number(self.config.seed, purpose, *where))

    def build(self) -> None:
        super().build()
        self._seed_process("learner", rllib.learner_index(self))
        if not hasattr(self, "last_update_ts_by_mid"):
            self.last_update_ts_by_mid: dict[str, float] = defaultdict(int)
            self.module.foreach_module(
                lambda _, m: m.make_target_networks() if isinstance(m, TargetNetworkAPI) else None
            )
        self._plan: _Plan | None = None
        self._in_call = False

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        super().configure_optimizers_for_module(module_id=module_id, config=config)
        self._plan = None
        self._fuse()

    def _fuse(self) -> None:
        # fused Adam: 5 % of a 256x256 update on CPU, more on a GPU
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            for _, optimizer in self.get_optimizers_for_module(module_id):
                if isinstance(optimizer, torch.optim.Adam):
                    for group in optimizer.param_groups:
                        group["foreach"], group["fused"] = False, True

    def remove_module(self, module_id: str, **kwargs: Any) -> Any:
        self._plan = None
        return super().remove_module(module_id, **kwargs)

    # The update
    # ------------------------------------------------------------------------------------------------------

    def update_from_columns(
        self,
        chunks: Iterable[Chunk],
        *,
        num_updates: int,
        env_steps: float,
        timesteps: Mapping[str, Any],
        feedback: Feedback | None = None,
    ) -> dict[str, Any]:
        """Run `num_updates` updates, one per row of the chunks' first axis.

        Args:
            chunks: minibatches as columns. They are taken one at a time, so that a chunk may depend on the
                feedback of the one before (prioritized replay draws one update at a time).
            num_updates: the sum of K over the chunks.
            env_steps: env steps sampled since the last call; they are spread evenly over the updates.
            timesteps: env steps sampled so far, under `NUM_ENV_STEPS_SAMPLED_LIFETIME`.
            feedback: receives the TD errors of each chunk.

        Returns:
            The reduced metrics of this learner.

        Raises:
            RunFailed: a NaN or inf in a loss or gradient; names module, parameter and update. Weights and
                optimisers are those of the update before.
        """
        self.before_gradient_based_update(timesteps=dict(timesteps))
        rllib.count_update(self)
        now = float(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        call = Call(num_updates, now - env_steps, now)
        self._plan = self._plan or self._make_plan()
        for chunk in chunks:
            td_errors = self.update_chunk(chunk, call)
            if feedback is not None:
                feedback(td_errors)
        self._gate = None
        self._log(call)
        self._in_call = True
        self.after_gradient_based_update(timesteps=dict(timesteps))
        self._in_call = False
        return self.metrics.reduce()

    def update_chunk(self, chunk: Chunk, call: Call) -> dict[str, np.ndarray]:
        """Run the updates of a chunk, note in `call` what came of them, and return {module: TD errors (K, B)}."""
        plan = self._plan
        assert plan is not None
        gate = self._gate = self._gate or Gate(self.metrics)
        forward = call.forward = call.forward or rllib.forward_train_of(self)
        columns = {mid: tensors(batch, self.device) for mid, batch in chunk.items()}
        td_errors: dict[str, list[torch.Tensor]] = {}
        every = self.any_may_be_last()
        for k in range(length(columns)):
            gate.is_open = every or call.done + 1 == call.updates
            batch = {mid: row(batch, k) for mid, batch in columns.items()}
            if gate.is_open:
                call.sizes = {mid: steps_of(b) for mid, b in batch.items()}
            losses = self._update_once(batch, plan, forward, call.done + 1)
            if losses is None:
                break
            call.done, call.losses = call.done + 1, losses
            self._update_targets(plan, call)
            for mid, values in gate.td_errors.items():
                td_errors.setdefault(mid, []).append(values)
        return {mid: torch.stack(v).cpu().numpy() for mid, v in td_errors.items()}

    def _update_once(
        self, batch: dict[str, Any], plan: _Plan, forward: Callable[[Any], Any], number: int
    ) -> dict[str, torch.Tensor] | None:
        """Return the losses of one update; None where a subclass refuses it and so ends the call."""
        for piece in plan.pieces:
            batch = piece(
                rl_module=self.module, batch=batch, episodes=[], shared_data={}, metrics=self.metrics
            )
        fwd_out = forward(batch)
        losses = self.compute_losses(fwd_out=fwd_out, batch=batch)
        if plan.own_gradients:
            gradients = self.compute_gradients(losses)
            norm = torch.nn.utils.get_total_norm([g for g in gradients.values() if g is not None])
            if not math.isfinite(norm.item()):
                self._stop(losses, number)
            self.apply_gradients(self.postprocess_gradients(gradients))
            return losses
        for _, _, params in plan.optimizers:
            for param in params:
                param.grad = None
        self.backward(losses)
        self._clip(plan, losses, number)
        for _, optimizer_step, _ in plan.optimizers:
            optimizer_step()
        return losses

    def any_may_be_last(self) -> bool:
        """Whether a call may end before its last update, so that values of every update are logged."""
        return False

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Leave the gradients of the summed losses in the parameters."""
        sum(losses.values()).backward()

    def _clip(self, plan: _Plan, losses: Mapping[str, torch.Tensor], number: int) -> None:
        """Clip each optimizer's gradients to `grad_clip` by global norm, after checking that they are finite."""
        for module_id, _, params in plan.optimizers:
            gradients = [p.grad for p in params if p.grad is not None]
            if not gradients:
                continue
            norm = total_norm(gradients).item()
            if not math.isfinite(norm):
                self._stop(losses, number)
            clip = self.config.get_config_for_module(module_id).grad_clip
            if clip and norm + 1e-6 > clip:
                torch._foreach_mul_(gradients, clip / (norm + 1e-6))

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        """RLlib's loss, with its metrics let through for the last update of a call only."""
        if self._gate is None:
            return super().compute_loss_for_module(**kwargs)
        real, self.metrics = self.metrics, self._gate
        try:
            return super().compute_loss_for_module(**kwargs)
        finally:
            self.metrics = real

    def _update_targets(self, plan: _Plan, call: Call) -> None:
        timestep = call.start + (call.now - call.start) * call.done / call.updates
        for module_id, pairs in plan.targets.items():
            call.target_updates.setdefault(module_id, 0)
            if module_id not in call.losses:
                continue
            config = self.config.get_config_for_module(module_id)
            if timestep - self.last_update_ts_by_mid[module_id] < config.target_network_update_freq:
                continue
            pairs.move(config.tau)
            self.last_update_ts_by_mid[module_id] = timestep
            call.target_updates[module_id] += 1

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Learning-rate schedules, once per call; the targets were updated with each update."""
        if self._in_call:
            TorchLearner.after_gradient_based_update(self, timesteps=timesteps)
        else:
            super().after_gradient_based_update(timesteps=timesteps)

    # What is found once
    # -----------------------------------------------------------------------------------------------

    def _make_plan(self) -> _Plan:
        plan = self._plan = _Plan(pieces=rllib.custom_learner_pieces(self))
        cls = type(self)
        configs = [self.config.get_config_for_module(m) for m in self.module.keys()]  # noqa: SIM118 (no dict)
        plan.own_gradients = (
            cls.compute_gradients not in rllib.plain_backwards()
            or cls.postprocess_gradients is not Learner.postprocess_gradients
            or cls.postprocess_gradients_for_module is not Learner.postprocess_gradients_for_module
            or cls.apply_gradients is not TorchLearner.apply_gradients
            or rllib.scales_gradients(self)
            or self.config.num_learners > 1
            or self.config.log_gradients
            or any(own.grad_clip and own.grad_clip_by != "global_norm" for own in configs)
        )
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            for _, optimizer in self.get_optimizers_for_module(module_id):
                params = [p for group in optimizer.param_groups for p in group["params"]]
                plan.optimizers.append((module_id, AdamStep(optimizer), params))
            module = self.module[module_id].unwrapped()
            if isinstance(module, TargetNetworkAPI):
                pairs = plan.targets[module_id] = Targets()
                for main, target in module.get_target_network_pairs():
                    values = main.state_dict()
                    for name, tensor in target.state_dict().items():
                        pairs.add(values[name], tensor)
        return plan

    # Metrics, faults, state
    # -------------------------------------------------------------------------------------------

    def _log(self, call: Call) -> None:
        log = self.metrics.log_value
        updates = call.done
        for module_id, size in call.sizes.items():
            loss = call.losses.get(module_id)
            if loss is not None:
                log((module_id, self.TOTAL_LOSS_KEY), loss.detach(), window=1)
            log((module_id, WEIGHTS_SEQ_NO), rllib.weights_seq_no(self), window=1)
            log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), size, reduce="mean")
            for where in (module_id, ALL_MODULES):
                log((where, NUM_MODULE_STEPS_TRAINED), size * updates, reduce="sum")
                log(
                    (where, NUM_MODULE_STEPS_TRAINED_LIFETIME),
                    size * updates,
                    reduce="lifetime_sum",
                    with_throughput=True,
                )
            if module_id in call.target_updates:
                log((module_id, NUM_TARGET_UPDATES), call.target_updates[module_id], reduce="lifetime_sum")
        rows = max(call.sizes.values(), default=0) * updates
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), rows, reduce="sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        log((ALL_MODULES, UPDATES), updates, reduce="lifetime_sum")

    def _stop(self, losses: Mapping[str, torch.Tensor], number: int) -> None:
        bad_losses = [f"the loss of module {m!r} is {v.item()}" for m, v in losses.items() if not finite(v)]
        bad = [
            f"{module_id}/{name}"
            for module_id in self.module.keys()  # noqa: SIM118 (a MultiRLModule is no dict)
            for name, p in self.module[module_id].unwrapped().named_parameters()
            if p.grad is not None and not finite(p.grad)
        ]
        what = "; ".join(bad_losses) or "all losses are finite"
        where = (
            f"first NaN or inf gradient: {bad[0]} ({len(bad)} in all)"
            if bad
            else "no module gradient is NaN or inf"
        )
        advice = "lower the learning rate, clip gradients (grad_clip), or scale rewards and observations"
        raise RunFailed(
            f"update {number} of this call: {what}; {where}. The weights are those before it; {advice}"
        )

    @property
    def _on_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if rllib.wants_component(self, STATE, components, not_components):
            state[STATE] = {
                "last_update_ts": dict(self.last_update_ts_by_mid),
                "torch_rng": torch.get_rng_state().numpy().copy(),
                "cuda_rng": torch.cuda.get_rng_state(self.device).numpy().copy() if self._on_cuda else None,
                "log_alpha": {
                    m: v.detach().cpu().numpy().copy() for m, v in getattr(self, "curr_log_alpha", {}).items()
                },
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._fuse()
        own = state.get(STATE)
        if own is None:
            return
        self.last_update_ts_by_mid.update(own["last_update_ts"])
        torch.set_rng_state(torch.from_numpy(own["torch_rng"].copy()))
        if self._on_cuda and own.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(torch.from_numpy(own["cuda_rng"].copy()), self.device)
        for module_id, value in own["log_alpha"].items():
            with torch.no_grad():
                self.curr_log_alpha[module_id].copy_(torch.from_numpy(value))
