"""The learner of MADDPG: all modules are updated together, from joint rows.

RLlib's learners compute one loss per module; a centralised critic needs the observations and actions of all of them,
and the target actors of all of them. So this learner takes joint columns (`JOINT`) and runs `maddpg_update` on groups
of modules. RLlib's part stays: modules, optimisers and their learning-rate schedules, metrics, state, devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit import rllib
from rlkit.algos.learner import STATE, Chunk, ColumnLearner, Feedback
from rlkit.algos.maddpg_groups import Group, Training, make_groups
from rlkit.algos.maddpg_joint import Joint, Sizes
from rlkit.algos.maddpg_module import OPTIONS
from rlkit.algos.maddpg_rows import Rows, read_rows
from rlkit.algos.maddpg_update import (
    Fault,
    Report,
    Rules,
    actor_step,
    critic_step,
    critic_targets,
    target_codes,
)
from rlkit.algos.minibatches import first_leaf, length, tensors
from rlkit.exploration.schedule import Schedule

JOINT = "joint"


class MADDPGLearner(ColumnLearner):
    """Updates MADDPGModules from joint columns, under the key `JOINT` of a chunk."""

    def configure_optimizers(self) -> None:
        """Group the modules, and register one Adam per group of actors and of critics."""
        modules = {m: self.module[m].unwrapped() for m in self.module.keys()}  # noqa: SIM118 (no dict)
        joint: Joint = next(iter(modules.values())).options["joint"]
        self.joint = joint
        self.sizes = Sizes(joint, self.config.normalize_actions)
        self.players = {m: modules[m] for m in joint.modules}
        self.updates = 0
        self.rules = Rules(
            target_noise=self.config.target_noise,
            target_noise_clip=self.config.target_noise_clip,
            hard_gumbel=self.config.gumbel == "hard",
            logit_regularisation=self.config.logit_regularisation,
        )
        self.temperature = Schedule(self.config.temperature)
        self._group()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Nothing: a module added later plays none of the fixed agents, so it is not trained."""

    def _training(self, module_id: str) -> Training:
        config = self.config.get_config_for_module(module_id)
        return Training(
            actor_lr=_hashable(config.actor_lr),
            critic_lr=_hashable(config.critic_lr),
            grad_clip=config.grad_clip,
            grad_clip_by=config.grad_clip_by,
            tau=config.tau,
            trained=bool(self.should_module_be_updated(module_id)),
        )

    def _group(self) -> None:
        self.actors, self.critics = make_groups(
            self.players, self._training, self.joint.players, stack=self.config.stack_agents
        )
        for kind, groups in (("actor", self.actors), ("critic", self.critics)):
            for group in groups:
                how = group.training
                if not how.trained:
                    continue
                rate = how.actor_lr if kind == "actor" else how.critic_lr
                # fused Adam: one call for all tensors; its learning rate is set by RLlib's schedule
                group.optimizer = torch.optim.Adam(group.bank.params, lr=1e-3, fused=True)
                self.register_optimizer(
                    module_id=group.modules[0],
                    optimizer_name=kind,
                    optimizer=group.optimizer,
                    params=group.bank.params,
                    lr_or_lr_schedule=[list(p) for p in rate] if isinstance(rate, tuple) else rate,
                )

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
        """Run `num_updates` updates of all modules; see `ColumnLearner.update_from_columns`.

        Raises:
            RunFailed: a NaN or inf in a gradient; names the modules and the update.
        """
        self.before_gradient_based_update(timesteps=dict(timesteps))
        rllib.count_update(self)
        now = float(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        temperature = self.temperature(now)
        done, size, targets = 0, 0, 0
        values: dict[str, dict[str, torch.Tensor]] = {}
        for chunk in chunks:
            columns = tensors(chunk[JOINT], self.device)
            rows = read_rows(columns, self.sizes, gamma=self.config.gamma, weighted=self.config.prioritized)
            td_errors = []
            for k in range(length(columns)):
                done += 1
                # with delayed policies the last actor update may be some updates ago
                report = Report(full=num_updates - done < self.config.policy_delay)
                targets += self._update_joint(rows.at(k), temperature, report, done)
                for module, numbers in report.values.items():
                    values.setdefault(module, {}).update(numbers)
                if self.config.prioritized:
                    td_errors.append(report.td_errors)
            size = first_leaf(columns).shape[1]
            if feedback is not None:
                feedback({JOINT: torch.stack(td_errors).cpu().numpy()})
        for module, numbers in values.items():
            self.metrics.log_dict(numbers, key=module, window=1)
        sizes = {m: size * len(self.joint.players(m)) for m in values}
        losses = {m: numbers["critic_loss"] for m, numbers in values.items()}
        self._log(losses, sizes, done, dict.fromkeys(sizes, targets))
        self._in_call = True
        self.after_gradient_based_update(timesteps=dict(timesteps))
        self._in_call = False
        return self.metrics.reduce()

    def _update_joint(self, rows: Rows, temperature: float, report: Report, number: int) -> bool:
        """Update critics and, every `policy_delay`-th time, actors and targets; return whether targets moved."""
        self.updates += 1
        try:
            with torch.no_grad():
                codes = target_codes(self.actors, rows, self.rules)
                y_t = [critic_targets(group, rows, codes) for group in self.critics]
            for group, y in zip(self.critics, y_t, strict=True):
                critic_step(group, rows, y, report)
            if self.updates % self.config.policy_delay:
                return False
            actor_step(self.actors, self.critics, rows, temperature, self.rules, report)
        except Fault:
            self._stop({m: torch.tensor(math.nan) for m in self.players}, number)
        every: list[Group] = [*self.actors, *self.critics]
        for member in every:
            if member.training.trained:
                member.move_targets()
        return True

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if STATE in state:
            state[STATE]["updates"] = self.updates
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.updates = int(state.get(STATE, {}).get("updates", self.updates))


def _hashable(rate: Any) -> Any:
    return tuple(tuple(point) for point in rate) if isinstance(rate, list | tuple) else rate


__all__ = ["JOINT", "OPTIONS", "MADDPGLearner"]
