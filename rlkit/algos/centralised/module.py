"""The RLModule of MADDPG: actors for the environment, and in the learner critics and targets.

Execution is decentralised: the inference-only module holds the actors alone. `forward_inference` takes the best
action; `forward_exploration` adds Gaussian noise to Box actions, by a schedule in env steps, and samples Discrete and
MultiDiscrete ones, which is the exploration of the paper's Gumbel-softmax policies.

The learner adds `critics` (one or two per sub-policy), `target_actors` and `target_critics`, and for inferred policies
a model of every other agent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDeterministic,
    TorchMultiCategorical,
)
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import nn

from rlkit.algos.centralised.actions import ActionKind, BoxActions, DiscreteActions, action_kind, masked
from rlkit.algos.centralised.ensembles import ENSEMBLE_INDEX
from rlkit.algos.centralised.inferred import key_of, outputs_of
from rlkit.algos.centralised.joint import CriticInput, Joint, Sizes
from rlkit.algos.centralised.networks import Normalizer, ObservationVector, RecurrentNet, make_net
from rlkit.exploration.schedule import Schedule

OPTIONS = "maddpg"
LEARNER_ONLY = ("critics", "target_actors", "target_critics", "inferred", "target_inferred")


class Mode:
    """The best action of logits, as an RLlib distribution class: what noise of `rlkit.exploration` is added to."""

    def __init__(self, kind: ActionKind):
        self.kind = kind

    def from_logits(self, logits: torch.Tensor, **kwargs: Any) -> TorchDeterministic:
        return TorchDeterministic(loc=self.kind.greedy(logits))


class MADDPGModule(TorchRLModule, InferenceOnlyAPI):
    """Actors, critics and targets of one policy. Options stand in `model_config["maddpg"]` (see MADDPGConfig)."""

    takes_registered_models = True

    def setup(self) -> None:
        options = self.model_config[OPTIONS]
        self.options = options
        self.vector = ObservationVector(self.observation_space, self.action_space)
        self.kind = action_kind(self.action_space, options["normalize_actions"])
        self.noise = Schedule(options["exploration_noise"])
        self.actors = nn.ModuleList(
            make_net([self.vector], 0, self.kind.logits, self.model_config, "pi_gain")
            for _ in range(options["ensemble_size"])
        )
        self.normalizer = Normalizer(self.vector.size) if options["normalize_observations"] else None
        joint: Joint | None = options.get("joint")
        if self.inference_only or joint is None:
            return
        sizes = Sizes(joint, options["normalize_actions"])
        self.critic_input = CriticInput(sizes, options["module_id"], options["critic"])
        self.critics = nn.ModuleList(
            nn.ModuleList(
                make_net(self.critic_input.vectors, self.critic_input.extra, 1, self.model_config, "vf_gain")
                for _ in range(2 if options["twin_q"] else 1)
            )
            for _ in range(options["ensemble_size"])
        )
        self.target_actors = _frozen(self.actors)
        self.target_critics = _frozen(self.critics)
        self.modelled = self._modelled(joint) if options["infer_policies"] else ()
        if self.modelled:
            self.inferred = nn.ModuleDict(
                {
                    key_of(a): make_net(
                        [sizes.vectors[a]], 0, outputs_of(sizes.kinds[a]), self.model_config, "pi_gain"
                    )
                    for a in self.modelled
                }
            )
            self.target_inferred = _frozen(self.inferred)

    def _modelled(self, joint: Joint) -> tuple[str, ...]:
        """The agents that this module models: those it does not play, if its critics look at them."""
        if self.critic_input.local:
            return ()
        return tuple(a for a in joint.agents if a not in self.critic_input.players)

    def get_non_inference_attributes(self) -> list[str]:
        return list(LEARNER_ONLY)

    # What actions are worth (rlkit.play.joint_values) ------------------------------------------------------------

    @property
    def judges_jointly(self) -> bool:
        """Whether `joint_q_values` works: critics are here, they need no history, and there is one for each agent."""
        return hasattr(self, "critics") and not self.is_stateful() and len(self.actors) == 1

    @property
    def joint_sizes(self) -> dict[str, tuple[int, int]]:
        """Widths of every agent's vector and action code."""
        sizes = Sizes(self.options["joint"], self.options["normalize_actions"])
        return {a: (sizes.vectors[a].size, sizes.kinds[a].size) for a in sizes.joint.agents}

    def joint_inputs(self, observations: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what critics read of this module's agents: vectors (B, O) and action codes (B, C)."""
        seen, _ = self.vector.split(observations)
        vectors = self.vector(seen)
        if self.normalizer is not None:
            vectors = self.normalizer(vectors)
        return vectors, self.kind.encode(actions, leading=1)

    def joint_q_values(
        self, vectors: Mapping[str, torch.Tensor], codes: Mapping[str, torch.Tensor], agent: str
    ) -> torch.Tensor:
        """Return Q of an agent's action, (B,); of every action, (B, n), where they are Discrete. Twins: the minimum.

        Args:
            vectors, codes: of all agents, (B, ...).
            agent: whom to judge, one that this module plays.
        """

        def judged(own: torch.Tensor) -> torch.Tensor:
            x = self.critic_input(vectors, {**codes, agent: own}, agent)
            return torch.stack([critic(x).squeeze(-1) for critic in self.critics[0]]).amin(dim=0)

        if not isinstance(self.kind, DiscreteActions) or not self.kind.single:
            return judged(codes[agent])
        choices = torch.eye(self.kind.size, device=codes[agent].device)
        return torch.stack([judged(choice.expand_as(codes[agent])) for choice in choices], dim=-1)

    # Acting ------------------------------------------------------------------------------------------------

    def _logits(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return logits (B, L), forbidden actions masked, and the recurrent state to hand on."""
        observations, mask = self.vector.split(batch[Columns.OBS])
        x = self.vector(observations)
        if self.normalizer is not None:
            x = self.normalizer(x)
        actor = self.actors[0]
        out: dict[str, Any] = {}
        if isinstance(actor, RecurrentNet):
            logits, out[Columns.STATE_OUT] = actor.run(x, batch[Columns.STATE_IN])
        elif len(self.actors) > 1 and ENSEMBLE_INDEX in batch:
            every = torch.stack([sub_policy(x) for sub_policy in self.actors], dim=1)
            index = batch[ENSEMBLE_INDEX].long().reshape(-1, 1, 1).expand(-1, 1, every.shape[-1])
            logits = every.gather(1, index).squeeze(1)
        else:
            logits = actor(x)
        return masked(logits, mask), out

    def get_initial_state(self) -> Any:
        actor = self.actors[0]
        return actor.initial_state() if isinstance(actor, RecurrentNet) else {}

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        logits, out = self._logits(batch)
        return {**out, Columns.ACTION_DIST_INPUTS: logits}

    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            logits, out = self._logits(batch)
            return {**out, Columns.ACTIONS: self.kind.greedy(logits)}

    def _forward_exploration(
        self, batch: Mapping[str, Any], t: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        with torch.no_grad():
            logits, out = self._logits(batch)
            out[Columns.ACTION_DIST_INPUTS] = logits
            if isinstance(self.kind, BoxActions):
                out[Columns.ACTIONS] = self.kind.noisy(logits, self.noise(t or 0))
            return out

    def _distribution(self) -> Any:
        if not isinstance(self.kind, DiscreteActions):
            return Mode(self.kind)
        if self.kind.single:
            return TorchCategorical
        return TorchMultiCategorical.get_partial_dist_cls(input_lens=list(self.kind.choices))

    def get_inference_action_dist_cls(self) -> Any:
        return self._distribution()

    def get_exploration_action_dist_cls(self) -> Any:
        return self._distribution()

    def get_train_action_dist_cls(self) -> Any:
        return self._distribution()


def _frozen(module: nn.Module) -> Any:
    """Return a copy without gradients."""
    return copy.deepcopy(module).requires_grad_(False)
