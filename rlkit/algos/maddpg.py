"""MADDPG and MATD3: actors that see their own observation, critics that see everybody's.

Papers: Lowe, Wu, Tamar, Harb, Abbeel, Mordatch, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments", NeurIPS 2017 (arXiv 1706.02275v3); Ackermann et al., "Reducing Overestimation Bias in Multi-Agent
Domains Using Double Centralized Critics" (MATD3, arXiv 1910.01465). Reference code: github.com/openai/maddpg.

Deviations from the reference code:
1. Box actions are deterministic, tanh-squashed, with Gaussian noise for exploration; the code samples a Gaussian.
2. Discrete actions are integers for the environment and one-hot for the critics; the code sends soft vectors.
3. Termination stops the bootstrap, truncation does not; in the code's environments nothing ever terminates.
4. All agents take the same rows in an update, as in the code; policies of equal shape are computed as one.
5. A policy may play several agents; its critic then sees the judged agent first, and which one it is.
6. Absent agents (dead, not there yet) are zeros in the joint row and masked out of their own losses.

Legend: K updates of a chunk, B rows of a minibatch, N agents. Policies of equal shape form a group of n networks,
whose modules play g agents each: tensors are (n, g B, ...). Values of everybody are dicts of (B, ...) by agent. x and o
are observations as vectors, a are actions as codes (Box in [-1, 1], Discrete one-hot); `_tp1` is the next step's.

In `rlkit.algos.centralised`, equations stand in losses.py, networks in networks.py, groups of them in groups.py, what
a critic reads in rows.py, options in options.py. What extends the update plugs into the hooks of extension.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.rllib.core.learner.learner import LR_KEY
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit import seeds, state
from rlkit.algos.centralised.config import CentralisedConfig
from rlkit.algos.centralised.extension import JOINT
from rlkit.algos.centralised.groups import Fault, Group, Part, Training, make_actors, make_critics, step
from rlkit.algos.centralised.losses import actor_losses, critic_losses, masked_mean, td_targets
from rlkit.algos.centralised.replay import RewardStatistics, Turns, as_joint
from rlkit.algos.centralised.rows import ByAgent, Rows, read_rows
from rlkit.algos.centralised.spaces import Joint
from rlkit.algos.learning.learner import STATE, Call, ColumnLearner
from rlkit.algos.learning.minibatches import first_leaf, length, tensors
from rlkit.algos.offpolicy.step import OffPolicy
from rlkit.errors import RunFailed
from rlkit.exploration.schedule import Schedule
from rlkit.replay import Fragment, Replay
from rlkit.replay.buffer import OBS, REWARDS, WEIGHTS
from rlkit.replay.episodes import ACTED, agent_fragments, joint_columns, joint_fragments


@dataclass
class Log:
    """What an update sees of the call around it, and what it notes.

    Attributes:
        on: whether values are wanted.
        noise, temperature: of exploration and of the Gumbel-softmax, by their schedules.
        values: {module: {name: number}}.
    """

    noise: float
    temperature: float
    on: bool = False
    values: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, modules: list[str], suffix: str = "", **values: Any) -> None:
        """Note values, one per module; of twins, those of the first."""
        for name, numbers in values.items() if self.on else ():
            for module, number in zip(modules, numbers, strict=False):
                self.values.setdefault(module, {})[name + suffix] = number.detach()


class MADDPGLearner(ColumnLearner):
    """All modules are updated together, from joint columns under the key `JOINT` of a chunk.

    RLlib's learners compute one loss per module; a centralised critic needs the observations, actions and target
    actors of all. RLlib's part stays: modules, optimisers and their schedules, metrics, state, devices.
    """

    per_module_losses = False

    def update(self, batches: Mapping[str, Rows], log: Log) -> torch.Tensor | None:
        """One update of every part: all policies together, unless an extension divides them.

        Args:
            batches: a minibatch (B, ...) for each part, by name.
            log: what is noted.

        Returns:
            |TD error| of each row, mean over agents, (B,); None if nobody asks.
        """
        config, extension = self.config, self.extension
        self.updates += 1
        actors_move = self.updates % config.policy_delay == 0
        parts = [(part, batches[part.name]) for part in self.parts if part.name in batches]
        td_errors: ByAgent = {}
        extension.before_update(batches, log)
        for part, rows in parts:
            with torch.no_grad():
                # a'_j = μ'_j(o'_j), smoothed (Box) or sampled (Discrete)
                a_tp1 = extension.played(rows, [self.target_actions(every, rows) for every in self.parts])
                believed = extension.believed(rows)
                # y_i = r_i + γ^n min_c Q'_ic(x', a'_1 ... a'_N), without the bootstrap after termination
                y_t = []
                for critics in part.critics:
                    q_tp1 = critics.next_values(rows, a_tp1, believed).amin(dim=0)
                    r_t, terminated_t = critics.batch(rows.rewards), critics.batch(rows.terminated)
                    y_t.append(td_targets(r_t, critics.repeated(rows.discount), terminated_t, q_tp1))

            # every critic minimises (Q_ic(x, a) - y_i)²
            for critics, y in zip(part.critics, y_t, strict=True):
                q_t = critics.values(rows)
                weights, valid = critics.repeated(rows.weights), critics.batch(rows.valid)
                losses = sum(critic_losses(q, y, weights, valid) for q in q_t)
                (norms,) = step([critics], losses.sum())
                if log.on or weights is not None:
                    errors = (q_t[0].detach() - y).abs()
                    td_errors |= critics.spread(errors if valid is None else errors * valid)
                    means = {"q_mean": q_t[0], "td_error_mean": errors}
                    means = {name: masked_mean(values, valid) for name, values in means.items()}
                    log(critics.modules, part.suffix, critic_loss=losses, critic_gradient_norm=norms, **means)

            # every actor maximises Q_i1(x, a with a_i = μ_i(o_i)); the others' actions are the replayed ones
            trained = part.trained_actors
            if not actors_move or not trained:
                continue
            logits = [actors.logits(actors.bank, rows.observations, rows.legal) for actors in trained]
            a_t: ByAgent = {}
            for actors, out in zip(trained, logits, strict=True):
                a_t |= actors.spread(actors.kind.relaxed(out, log.temperature, config.gumbel == "hard"))
            values: ByAgent = {}
            for critics in part.critics:
                values |= critics.judge(rows, a_t)
            losses = [
                actor_losses(actors.batch(values), out, config.logit_regularisation, actors.batch(rows.valid))
                for actors, out in zip(trained, logits, strict=True)
            ]
            norms = step(trained, part.share * torch.cat(losses).sum())
            for actors, loss, norm in zip(trained, losses, norms, strict=True):
                log(actors.modules, part.suffix, actor_loss=loss, actor_gradient_norm=norm)

        # θ' ← τ θ + (1 - τ) θ'
        if actors_move:
            for part, _ in parts:
                for group in (*part.trained_actors, *part.critics):
                    group.move_targets()
        if log.on:
            with torch.no_grad():
                extension.after_update(batches, log)
        return torch.stack(list(td_errors.values())).mean(dim=0) if config.prioritized else None

    def target_actions(self, part: Part, rows: Rows) -> ByAgent:
        """Return the codes of the target policies' actions in the next observations, by agent."""
        codes: ByAgent = {}
        for actors in part.actors:
            logits = actors.next_logits(rows)
            noise, clip = self.config.target_noise, self.config.target_noise_clip
            codes |= actors.spread(actors.kind.target(logits, noise, clip))
        return rows.there(codes)

    def update_chunk(self, chunk: Mapping[str, Any], call: Call) -> dict[str, np.ndarray]:
        """Run the updates of a chunk, {JOINT: columns (K, B, ...)} or {JOINT: {name: columns}}.

        Raises:
            RunFailed: a NaN or inf in a gradient; names the modules and the update.
        """
        found = tensors(chunk[JOINT], self.device)
        columns = {JOINT: found} if OBS in found else found
        for name, module in self.players.items() if self.normalizers else ():
            if self.should_module_be_updated(name):
                module.observe(next(iter(columns.values())))
        rows = {
            name: read_rows(part, self.joint, self.config, self.normalizers) for name, part in columns.items()
        }
        log, td_errors = Log(self.noise(call.now), self.temperature(call.now)), []
        delay = self.config.policy_delay
        for k in range(length(columns)):
            call.done += 1
            # with delayed policies the last actor update may be some updates ago
            log.on = call.updates - call.done < delay
            try:
                td_errors.append(self.update({name: part.at(k) for name, part in rows.items()}, log))
            except Fault as fault:
                raise RunFailed(
                    f"update {call.done} of this call: {fault}. Their weights are those before it; lower the learning "
                    "rates, clip gradients (grad_clip), or scale rewards and observations (standardize_rewards, "
                    "normalize_observations)"
                ) from None
        for module, numbers in log.values.items():
            self.metrics.log_dict(numbers, key=module, window=1)
            call.sizes[module] = first_leaf(columns).shape[1] * len(self.joint.players(module))
            # critic_loss, actor_loss_1, and those of an extension
            losses = [value for name, value in numbers.items() if name.split("_")[1] == "loss"]
            call.losses[module] = torch.stack(losses).sum()
            call.target_updates[module] = self.updates // delay - (self.updates - call.done) // delay
        return {JOINT: torch.stack(td_errors).cpu().numpy()} if self.config.prioritized else {}

    # What is updated --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> None:
        """Group the modules, and register one Adam per group of actors and of critics."""
        modules = {m: self.module[m].unwrapped() for m in self.module.keys()}  # noqa: SIM118 (no dict)
        self.joint: Joint = next(iter(modules.values())).joint
        self.players = {m: modules[m] for m in self.joint.modules}
        normalize = self.config.normalize_observations
        self.normalizers = {a: modules[m].normalizer for a, m in self.joint.module_of.items() if normalize}
        self.temperature = Schedule(self.config.temperature)
        self.noise = Schedule(self.config.exploration_noise)
        self.updates = 0
        # of each optimiser: its group, and the name of its learning rate
        self.rates: list[tuple[Group, str]] = []
        self.extension = self.config.extension
        self.parts = self.extension.build(self)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Nothing: a module added later plays none of the fixed agents, so it is not trained."""

    def part(
        self, name: str, modules: Mapping[str, Any], index: int = 0, suffix: str = "", share: float = 1.0
    ) -> Part:
        """Return the part of some modules, of one sub-policy of each; its optimisers are registered."""
        # stacked networks see single steps; beside a recurrent policy all rows are sequences
        stack = self.config.stack_agents and not any(m.is_stateful() for m in modules.values())
        actors = make_actors(modules, self.training_of, index, stack)
        critics = make_critics(modules, self.training_of, index, stack)
        part = Part(name, actors, critics, suffix, share)
        for group in part.trained_actors:
            self.optimize(group, "actor" + suffix, group.training.actor_lr)
        for critic in critics:
            self.optimize(critic, "critic" + suffix, critic.training.critic_lr)
        return part

    def training_of(self, module_id: str) -> Training:
        """Return how a module is trained."""
        config = self.config.get_config_for_module(module_id)

        def rate(given: Any) -> Any:
            return tuple(map(tuple, given)) if isinstance(given, list | tuple) else given

        trained = bool(self.should_module_be_updated(module_id))
        rates = rate(config.actor_lr), rate(config.critic_lr)
        return Training(*rates, config.grad_clip, config.grad_clip_by, config.tau, trained)

    def optimize(self, group: Group, name: str, lr: Any) -> None:
        """Register the optimiser of a group; RLlib's schedule sets its learning rate."""
        group.optimizer = torch.optim.Adam(group.bank.params, lr=1e-3, fused=True)
        self.rates.append((group, f"{name}_{LR_KEY}"))
        self.register_optimizer(
            module_id=group.modules[0],
            optimizer_name=name,
            optimizer=group.optimizer,
            params=group.bank.params,
            lr_or_lr_schedule=[list(point) for point in lr] if isinstance(lr, tuple) else lr,
        )

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move the schedules on; RLlib logs a learning rate for the first module of a group, here all have it."""
        super().after_gradient_based_update(timesteps=timesteps)
        for group, name in self.rates:
            rate = float(group.optimizer.param_groups[0]["lr"])
            for module in group.modules[1:]:
                self.metrics.log_value((module, name), rate, reduce="mean")

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


class MADDPG(OffPolicy):
    """Multi-agent DDPG on joint replay. `self.joint` says who plays whom."""

    joint: Joint

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        return MADDPGConfig()

    def make_replays(self) -> None:
        """Build one buffer of joint rows."""
        config, buffer = self.config, self.config.replay_buffer_config
        self.joint = next(iter(self.learner_group.foreach_learner(_joint_of))).get()
        self.sequence = max(self.sequences.values(), default=0)
        if len(set(self.sequences.values())) > 1:
            raise ValueError(
                f"max_seq_len: got {self.sequences}; policies that learn from joint steps need sequences of one length"
            )
        agents, spaces = self.joint.agents, self.joint.spaces
        seen, done = ({a: spaces[self.joint.module_of[a]][i] for a in agents} for i in (0, 1))
        self.columns = joint_columns(agents, seen, done)
        states, steps = self.columns
        self.extension = config.extension
        self.replays[JOINT] = Replay(
            int(buffer["capacity"]),
            states,
            {**steps, **self.extension.columns(agents)},
            agents=len(agents),
            alpha=float(buffer.get("alpha", 0.6)) if config.prioritized else None,
            seed=seeds.stream(config.seed, "replay", JOINT),
        )
        self.turns = Turns(agents)
        self.rewards = RewardStatistics(len(agents))
        if "rewards" not in state.components(self):  # a curriculum that drops the replay makes it again
            for name in ("rewards", "turns"):
                state.attach(self, name, state.Attribute(self, name))

    def add_to_replay(self, samples: list[Any]) -> None:
        """Add a sample: episodes, or joint fragments that a runner has made already."""
        fragments = [s for s in samples if isinstance(s, Fragment)]
        for episode in (s for s in samples if isinstance(s, MultiAgentEpisode)):
            made = joint_fragments([episode], self.joint.agents, *self.columns)
            fragments += [self.extension.mark(fragment, episode) for fragment in made]
        alone = [s for s in samples if isinstance(s, SingleAgentEpisode)]
        for parts in agent_fragments(alone, default_module=JOINT).values():
            fragments += [as_joint(part, self.joint.agents[0]) for part in parts]
        self.turns.see(fragments)
        if self.config.standardize_rewards:
            self.rewards.see(fragments)
        self.replays[JOINT].add(fragments)

    def draw(self, module_id: str, updates: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw minibatches; return the rows whose priorities follow, and {name: columns (K, B, ...)}."""
        config, replay = self.config, self.replays[JOINT]
        size = config.total_train_batch_size
        if self.recurrent:
            starts, batch = self.draw_sequences(replay, self.sequence, updates)
            if config.standardize_rewards:
                batch[REWARDS] = self.rewards.standardized(batch[REWARDS], batch[ACTED])
            return starts, {JOINT: batch}
        rows = self.extension.draw(replay, size, updates)
        n_step = config.n_step if isinstance(config.n_step, int) else (config.n_step[0], config.n_step[1])
        rewards = self._standardized if config.standardize_rewards else None
        batches = {
            name: replay.transitions(part, n_step=n_step, gamma=config.gamma, rewards=rewards)
            for name, part in rows.items()
        }
        if config.prioritized:
            beta = float(config.replay_buffer_config.get("beta") or 0.0)
            batches[JOINT][WEIGHTS] = replay.weights(rows[JOINT], beta)
        return rows.get(JOINT, np.zeros(0)), batches

    def _standardized(self, rows: np.ndarray) -> np.ndarray:
        """Return the standardised rewards of single steps of the replay."""
        ring = self.replays[JOINT].ring
        (rewards,), (acted,) = ring.at(REWARDS, rows), ring.at(ACTED, rows)
        return self.rewards.standardized(rewards, acted)


def _joint_of(learner: Any) -> Joint:
    """The joint roster."""
    joint: Joint = next(iter(learner.module.values())).unwrapped().joint
    return joint


class MADDPGConfig(CentralisedConfig):
    """Configuration of MADDPG: see `training`, and docs/maddpg.md."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or MADDPG)

    def get_default_learner_class(self) -> Any:
        return MADDPGLearner


class MATD3(MADDPG):
    """MADDPG with TD3's three changes."""

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        return MATD3Config()


class MATD3Config(MADDPGConfig):
    """MADDPG with twin critics, delayed policies and smoothed targets (arXiv 1910.01465)."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or MATD3)
        self.training(twin_q=True, policy_delay=2, target_noise=0.2)


__all__ = ["JOINT", "MADDPG", "MATD3", "MADDPGConfig", "MADDPGLearner", "MATD3Config"]
