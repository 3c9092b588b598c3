"""The RLModule of MADDPG: actors for the environment, and in the learner critics and targets.

Execution is decentralised: the inference-only module holds the actors alone. `forward_inference` takes the best
action; `forward_exploration` adds Gaussian noise to Box actions, by a schedule in env steps, and samples Discrete and
MultiDiscrete ones, which is the exploration of the paper's Gumbel-softmax policies.
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

from rlkit.algos.centralised.losses import FORBIDDEN
from rlkit.algos.centralised.memory import RecurrentNet
from rlkit.algos.centralised.networks import make_net
from rlkit.algos.centralised.rows import CriticInput
from rlkit.algos.centralised.spaces import (
    Actions,
    BoxActions,
    DiscreteActions,
    Joint,
    Normalizer,
    ObservationVector,
    action_kind,
)
from rlkit.errors import UsageError
from rlkit.exploration.schedule import Schedule
from rlkit.models.masks import masked
from rlkit.replay.episodes import PRESENT

OPTIONS = "maddpg"


class Mode:
    """The best action of logits, as an RLlib distribution class: what noise of `rlkit.exploration` is added to."""

    def __init__(self, kind: Actions):
        self.kind = kind

    def from_logits(self, logits: torch.Tensor, **kwargs: Any) -> TorchDeterministic:
        return TorchDeterministic(loc=self.kind.greedy(logits))


class MADDPGModule(TorchRLModule, InferenceOnlyAPI):
    """Actors, critics and targets of one policy. Options stand in `model_config["maddpg"]` (see the config).

    Attributes:
        actors: one network, or one per sub-policy.
        critics: in the learner, one network per sub-policy, or two (twins).
        target_actors, target_critics: in the learner, the same again.
        players: in the learner, the agents that this module plays.
    """

    takes_registered_models = True
    trained_only: tuple[str, ...] = ("critics", "target_actors", "target_critics")

    @property
    def sub_policies(self) -> int:
        """How many networks stand in `actors`."""
        return 1

    def setup(self) -> None:
        options = self.options = self.model_config[OPTIONS]
        self.vector = ObservationVector(self.observation_space, self.action_space)
        self.kind = action_kind(self.action_space, options["normalize_actions"])
        self.noise = Schedule(options["exploration_noise"])
        self.actors = nn.ModuleList(
            make_net([self.vector], 0, self.kind.size, self.model_config, "pi_gain")
            for _ in range(self.sub_policies)
        )
        if isinstance(self.actors[0], RecurrentNet) and type(self) is not MADDPGModule:
            raise UsageError(
                f"{type(self).__name__} learns from single steps, and the model keeps a state: choose one of them"
            )
        self.normalizer: Any = Normalizer(self.vector.size) if options["normalize_observations"] else None
        self.joint: Joint | None = None if self.inference_only else options.get("joint")
        if self.joint is None:
            return
        self.critic_input = CriticInput(self.joint, options["module_id"], options["critic"])
        self.players = self.critic_input.players
        self.critics = nn.ModuleList(
            nn.ModuleList(
                make_net(self.critic_input.vectors, self.critic_input.extra, 1, self.model_config, "vf_gain")
                for _ in range(2 if options["twin_q"] else 1)
            )
            for _ in range(self.sub_policies)
        )
        self.target_actors, self.target_critics = frozen(self.actors), frozen(self.critics)

    def get_non_inference_attributes(self) -> list[str]:
        return list(self.trained_only)

    def observe(self, columns: Mapping[str, Any]) -> None:
        """Let the normaliser see the first minibatch of joint columns (K, B, ...)."""
        assert self.joint is not None
        for agent in self.players:
            present = columns[PRESENT][0][..., self.joint.agents.index(agent)].flatten()
            seen = self.vector(self.vector.split(columns[Columns.OBS][agent])[0])
            self.normalizer.see(seen[0].flatten(0, -2)[present])

    # Acting ------------------------------------------------------------------------------------------------

    def act(self, actor: Any, x: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return logits (B, L) for observation vectors."""
        return actor(x)

    def read(self, observations: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return observations as normalised vectors (B, O), and their action mask if they have one."""
        seen, mask = self.vector.split(observations)
        x = self.vector(seen)
        return (x if self.normalizer is None else self.normalizer(x)), mask

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return logits (B, L), forbidden actions masked, and the recurrent state to hand on."""
        x, mask = self.read(batch[Columns.OBS])
        actor, out = self.actors[0], {}
        if isinstance(actor, RecurrentNet):
            logits, out[Columns.STATE_OUT] = actor.run(x, batch[Columns.STATE_IN])
        else:
            logits = self.act(actor, x, batch)
        out[Columns.ACTION_DIST_INPUTS] = (
            logits if mask is None else masked(logits, mask, self.kind.choices, FORBIDDEN)
        )
        return out

    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            out = self._forward(batch)
            return {**out, Columns.ACTIONS: self.kind.greedy(out.pop(Columns.ACTION_DIST_INPUTS))}

    def _forward_exploration(
        self, batch: Mapping[str, Any], t: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        with torch.no_grad():
            out = self._forward(batch)
            if isinstance(self.kind, BoxActions):
                out[Columns.ACTIONS] = self.kind.noisy(out[Columns.ACTION_DIST_INPUTS], self.noise(t or 0))
            return out

    def get_initial_state(self) -> Any:
        actor = self.actors[0]
        return actor.initial_state() if isinstance(actor, RecurrentNet) else {}

    def get_train_action_dist_cls(self) -> Any:
        if not isinstance(self.kind, DiscreteActions):
            return Mode(self.kind)
        if self.kind.single:
            return TorchCategorical
        return TorchMultiCategorical.get_partial_dist_cls(input_lens=list(self.kind.choices))

    get_exploration_action_dist_cls = get_inference_action_dist_cls = get_train_action_dist_cls

    # What actions are worth (rlkit.play.joint_values) -------------------------------------------------------

    @property
    def judges_jointly(self) -> bool:
        """Whether `joint_q_values` works: critics are here, they need no history, and there is one for each agent."""
        return hasattr(self, "critics") and not self.is_stateful() and len(self.actors) == 1

    @property
    def joint_sizes(self) -> dict[str, tuple[int, int]]:
        """Widths of every agent's vector and action code."""
        joint = self.joint
        assert joint is not None
        return {a: (joint.vectors[a].size, joint.kinds[a].size) for a in joint.agents}

    def joint_inputs(self, observations: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what critics read of this module's agents: vectors (B, O) and action codes (B, C)."""
        return self.read(observations)[0], self.kind.encode(actions, leading=1)

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


def frozen(module: nn.Module) -> Any:
    """Return a copy without gradients."""
    return copy.deepcopy(module).requires_grad_(False)
