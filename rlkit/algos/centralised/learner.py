"""The learner of MADDPG: all modules are updated together, from joint rows.

RLlib's learners compute one loss per module; a centralised critic needs the observations and actions of all of them,
and the target actors of all of them. So this learner takes joint columns (`JOINT`) and runs `update` on groups
of modules. RLlib's part stays: modules, optimisers and their learning-rate schedules, metrics, state, devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit import rllib
from rlkit.algos.centralised.ensembles import slots
from rlkit.algos.centralised.groups import ActorGroup, CriticGroup, Group, Training, make_groups
from rlkit.algos.centralised.inferred import log_divergence, make_models, model_codes, model_step
from rlkit.algos.centralised.joint import Joint, Sizes
from rlkit.algos.centralised.module import OPTIONS
from rlkit.algos.centralised.rows import ByAgent, Rows, read_rows
from rlkit.algos.centralised.update import (
    Fault,
    Report,
    Rules,
    actor_step,
    critic_step,
    critic_targets,
    target_codes,
)
from rlkit.algos.learning.learner import STATE, Chunk, ColumnLearner, Feedback
from rlkit.algos.learning.minibatches import first_leaf, length, tensors
from rlkit.errors import RunFailed
from rlkit.exploration.schedule import Schedule
from rlkit.replay.buffer import OBS
from rlkit.replay.episodes import PRESENT

JOINT, LATEST = "joint", "latest"


@dataclass
class Slot:
    """What is updated from one minibatch: all modules, or with ensembles one sub-policy of one team.

    Attributes:
        name: of its columns in a chunk.
        index: which sub-policy.
        team: whose; empty without ensembles.
        suffix: of its metrics.
    """

    name: str
    index: int
    team: str
    suffix: str
    actors: list[ActorGroup]
    critics: list[CriticGroup]

    def move_targets(self) -> None:
        groups: list[Group] = [*self.actors, *self.critics]
        for group in groups:
            if group.training.trained:
                group.move_targets()


@dataclass(frozen=True)
class Settings:
    """Values of the schedules during a call: of the Gumbel-softmax, and of the exploration noise."""

    temperature: float
    noise: float


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
        self.noise = Schedule(self.config.exploration_noise)
        self.normalizers: dict[str, Any] = {}
        if self.config.normalize_observations:
            self.normalizers = {a: modules[joint.module_of[a]].normalizer for a in joint.agents}
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
        """Make the slots: one for all modules, or with ensembles one per team and sub-policy."""
        self.teams: list[str] = []
        names = list(self.players)
        if not self.config.has_ensembles:
            self.slots = [self._slot(JOINT, names, 0)]
        else:
            teams, sizes = self.config.teams_and_sizes(list(self.joint.agents))
            self.teams = list(sizes)
            self.slots = []
            for team, index in slots(sizes):
                members = [m for m in names if any(teams[a] == team for a in self.joint.players(m))]
                suffix = f"_{index}" if sizes[team] > 1 else ""
                self.slots.append(self._slot(f"{team}/{index}", members, index, team, suffix))
        self.models = make_models(self.players, self._training, self.sizes.kinds, self.config.stack_agents)
        for number, model in enumerate(self.models):
            self._optimize(model, f"inferred_{number}", model.training.actor_lr)

    @property
    def actors(self) -> list[ActorGroup]:
        """The groups of actors of all slots."""
        return [group for slot in self.slots for group in slot.actors]

    @property
    def critics(self) -> list[CriticGroup]:
        """The groups of critics of all slots."""
        return [group for slot in self.slots for group in slot.critics]

    def _slot(self, name: str, modules: list[str], index: int, team: str = "", suffix: str = "") -> Slot:
        chosen = {m: self.players[m] for m in modules}
        actors, critics = make_groups(
            chosen, self._training, self.joint.players, index=index, stack=self.config.stack_agents
        )
        for kind, groups in (("actor", actors), ("critic", critics)):
            for group in groups:
                if group.training.trained:
                    rate = group.training.actor_lr if kind == "actor" else group.training.critic_lr
                    self._optimize(group, kind + suffix, rate)
        return Slot(name, index, team, suffix, actors, critics)

    def _optimize(self, group: Group, name: str, rate: Any) -> None:
        # fused Adam: one call for all tensors; its learning rate is set by RLlib's schedule
        group.optimizer = torch.optim.Adam(group.bank.params, lr=1e-3, fused=True)
        self.register_optimizer(
            module_id=group.modules[0],
            optimizer_name=name,
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
        settings = Settings(self.temperature(now), self.noise(now))
        done, size, targets = 0, 0, 0
        values: dict[str, dict[str, torch.Tensor]] = {}
        for chunk in chunks:
            columns = tensors(chunk[JOINT], self.device)
            by_slot = {JOINT: columns} if OBS in columns else columns
            self._observe(by_slot)
            rows = {name: self._read(part) for name, part in by_slot.items()}
            latest = {name: self._read(part[LATEST]) for name, part in by_slot.items() if LATEST in part}
            td_errors = []
            for k in range(length(next(iter(by_slot.values())))):
                done += 1
                # with delayed policies the last actor update may be some updates ago
                report = Report(full=num_updates - done < self.config.policy_delay)
                now_rows = {name: part.at(k) for name, part in rows.items()}
                recent = latest[JOINT].at(k) if latest else None
                targets += self._update_joint(now_rows, recent, settings, report, done)
                if self.config.prioritized:
                    td_errors.append(report.td_errors)
                for module, numbers in report.values.items():
                    values.setdefault(module, {}).update(numbers)
            size = first_leaf(columns).shape[1]
            if feedback is not None and td_errors:
                feedback({JOINT: torch.stack(td_errors).cpu().numpy()})
        for module, numbers in values.items():
            self.metrics.log_dict(numbers, key=module, window=1)
        sizes = {m: size * len(self.joint.players(m)) for m in values}
        losses = {
            m: next(v for name, v in numbers.items() if name.startswith("critic_loss"))
            for m, numbers in values.items()
        }
        self._log(losses, sizes, done, dict.fromkeys(sizes, targets))
        self._in_call = True
        self.after_gradient_based_update(timesteps=dict(timesteps))
        self._in_call = False
        return self.metrics.reduce()

    def _observe(self, by_slot: Mapping[str, Any]) -> None:
        """Let the modules' normalisers see one minibatch of what they will be given."""
        if not self.normalizers:
            return
        first = next(iter(by_slot.values()))
        for module_id, module in self.players.items():
            for agent in self.joint.players(module_id):
                observation, _ = module.vector.split(first[OBS][agent])
                seen = module.vector(observation)[0].flatten(0, -2)
                present = first[PRESENT][0][..., self.joint.agents.index(agent)].flatten()
                module.normalizer.see(seen[present])

    def _read(self, columns: Mapping[str, Any]) -> Rows:
        return read_rows(
            columns,
            self.sizes,
            gamma=self.config.gamma,
            normalizers=self.normalizers,
            weighted=self.config.prioritized,
            burn_in=self.config.burn_in_len,
        )

    def _update_joint(
        self, rows: Mapping[str, Rows], latest: Rows | None, now: Settings, report: Report, number: int
    ) -> bool:
        """Update critics and, every `policy_delay`-th time, actors and targets; return whether targets moved."""
        self.updates += 1
        moves = self.updates % self.config.policy_delay == 0
        active = [slot for slot in self.slots if slot.name in rows]
        try:
            if latest is not None and self.models:
                model_step(self.models, latest, self.config.infer_entropy_coeff, report)
            for slot in active:
                mine = Report(full=report.full)
                self._update_slot(slot, rows[slot.name], now, mine, moves)
                report.absorb(mine, slot.suffix)
        except Fault as fault:
            raise RunFailed(
                f"update {number} of this call: {fault}. Their weights are those before it; lower the learning "
                "rates, clip gradients (grad_clip), or scale rewards and observations (standardize_rewards, "
                "normalize_observations)"
            ) from None
        if moves:
            for slot in active:
                slot.move_targets()
        if report.full and self.models:
            with torch.no_grad():
                log_divergence(self.models, self.slots[0].actors, rows[JOINT], now.noise, report)
        return moves

    def _update_slot(self, slot: Slot, rows: Rows, now: Settings, report: Report, moves: bool) -> None:
        with torch.no_grad():
            codes = self._target_codes(rows)
            inferred = model_codes(self.models, rows, self.rules) if self.models else None
            y_t = [critic_targets(group, rows, codes, inferred) for group in slot.critics]
        for group, y in zip(slot.critics, y_t, strict=True):
            critic_step(group, rows, y, report)
        if moves and slot.critics:
            share = 1.0 / sum(other.team == slot.team for other in self.slots)
            actor_step(slot.actors, slot.critics, rows, now.temperature, self.rules, report, share)

    def _target_codes(self, rows: Rows) -> ByAgent:
        """Target actions; with ensembles those of the sub-policy each team plays in a row's episode."""
        if rows.index is None:
            return target_codes(self.slots[0].actors, rows, self.rules)
        codes: ByAgent = {}
        for slot in self.slots:
            plays = (rows.index[..., self.teams.index(slot.team)] == slot.index)[..., None]
            for agent, code in target_codes(slot.actors, rows, self.rules).items():
                codes[agent] = torch.where(plays, code, codes[agent]) if agent in codes else code
        return {agent: codes[agent] for agent in rows.codes}

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
