"""The RLModule of MAPPO: RLlib's PPO policy, and in the learner a critic that sees the whole team.

Paper: Yu, Velu, Vinitsky, Gao, Wang, Bayen, Wu, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games"
(MAPPO), NeurIPS 2022, arXiv 2103.01955. A module that plays k agents has one critic with k outputs, one value for each:
the paper's shared critic reads the input once per agent, with the agent's number beside it, for k times the work.
Absent agents are zeros in the input, the paper's death masking.

Legend: B rows of the team, k agents of the module, D numbers of the critic's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ACTOR, ENCODER_OUT
from torch import Tensor, nn

from rlkit.algos.centralised.networks import make_net
from rlkit.algos.centralised.spaces import ObservationVector

OPTIONS = "team"
CRITIC_INPUT = "critic_input"  # column (B, D)
Normalize = Literal["running", "popart"]


@dataclass(frozen=True)
class Team:
    """The agents of a fixed team, what they see and do behind the connectors, and what critics read.

    Attributes:
        module_of: agent -> module, sorted by agent.
        spaces: agent -> (observation space, action space).
        state: space of the environment's global state, if critics read that; None: they read all observations.
    """

    module_of: Mapping[str, str]
    spaces: Mapping[str, tuple[gym.Space, gym.Space]]
    state: gym.Space | None = None

    @cached_property
    def vectors(self) -> list[ObservationVector]:
        """What the critic's input is made of, in its order."""
        if self.state is not None:
            return [ObservationVector(self.state, None)]
        return [ObservationVector(*self.spaces[agent]) for agent in self.module_of]

    def players(self, module: str) -> list[str]:
        """Return the agents a module plays."""
        return [agent for agent, plays in self.module_of.items() if plays == module]

    def critic_input(self, observations: Mapping[str, Any], state: Tensor | None) -> Tensor:
        """Return what critics read, (..., D).

        Args:
            observations: agent -> nested (..., O), zeros where one is absent.
            state: (..., S), if critics read that.
        """
        if self.state is not None:
            assert state is not None
            return state.float()
        parts = zip(self.vectors, self.module_of, strict=True)
        return torch.cat([vector(vector.split(observations[agent])[0]) for vector, agent in parts], dim=-1)


class ValueNormalizer(nn.Module):
    """Mean and deviation of value targets of k agents: what critics put out is (V - mean) / deviation.

    A moving average that begins without bias, as in the authors' code (on-policy, utils/valuenorm.py), one step of it
    per batch. With `popart` the last layer is changed along with it, so that no value V moves (van Hasselt, Guez,
    Hessel, Mnih, Silver, "Learning values across many orders of magnitude", NeurIPS 2016, arXiv 1602.07714).
    """

    decay = 0.99
    least_variance = 1e-2  # of the authors' code

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("sum", torch.zeros(size))
        self.register_buffer("sum_of_squares", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(size))

    def see(self, targets: Tensor, acted: Tensor | None, layer: nn.Linear | None = None) -> None:
        """Add the targets (B, k) of a batch, those of agents that acted.

        Args:
            layer: the critic's last layer, to be kept in step (PopArt).
        """
        mask = torch.ones_like(targets) if acted is None else acted.to(targets)
        count = mask.sum(dim=0)
        some = count.clamp(min=1.0)
        share = torch.where(count > 0, 1.0 - self.decay, 0.0)
        mean, deviation = self.moments()
        self.sum += share * ((targets * mask).sum(dim=0) / some - self.sum)
        self.sum_of_squares += share * ((targets.square() * mask).sum(dim=0) / some - self.sum_of_squares)
        self.weight += share * (1.0 - self.weight)
        if layer is not None:
            new_mean, new_deviation = self.moments()
            with torch.no_grad():
                layer.weight.mul_((deviation / new_deviation)[:, None])
                layer.bias.copy_((deviation * layer.bias + mean - new_mean) / new_deviation)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (k,); 0 and 1 before the first batch."""
        weight = self.weight.clamp(min=1e-5)
        mean = self.sum / weight
        variance = (self.sum_of_squares / weight - mean.square()).clamp(min=self.least_variance)
        return mean, torch.where(self.weight > 0, variance, 1.0).sqrt()

    def normalized(self, values: Tensor) -> Tensor:
        """Return V as critics put it out, (..., k)."""
        mean, deviation = self.moments()
        return (values - mean) / deviation

    def plain(self, outputs: Tensor) -> Tensor:
        """Return the V of critics' outputs, (..., k)."""
        mean, deviation = self.moments()
        return outputs * deviation + mean


class TeamPPOModule(DefaultPPOTorchRLModule):
    """RLlib's default PPO module, whose value function may be a critic of the team.

    `model_config["team"]` is {"team": Team, "module_id", "normalize"}; without it, or with a local critic, the module
    is RLlib's. Where it is for inference only, there is no critic.
    """

    inference_only: bool
    players: Sequence[str] = ()

    def setup(self) -> None:
        self.options = self.model_config.get(OPTIONS)
        if self.options is None:
            super().setup()
            return
        given, self.inference_only = self.inference_only, True  # builds the policy's encoder alone
        super().setup()
        self.inference_only = given
        del self.vf
        if given or self.options["team"] is None:
            return
        self.team: Team = self.options["team"]
        self.players = self.team.players(self.options["module_id"])
        self.critic = make_net(self.team.vectors, 0, len(self.players), self.model_config, "vf_gain")
        normalize = self.options["normalize"]
        self.value_normalizer = ValueNormalizer(len(self.players)) if normalize else None

    @property
    def judges_team(self) -> bool:
        """Whether the value function is a critic of the team."""
        return self.options is not None

    def get_non_inference_attributes(self) -> list[str]:
        return ["critic", "value_normalizer"] if self.judges_team else super().get_non_inference_attributes()

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if not self.judges_team:
            return super()._forward_train(batch, **kwargs)
        return {Columns.ACTION_DIST_INPUTS: self.pi(self.encoder(batch)[ENCODER_OUT][ACTOR])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return V of each agent step, (B k,), in units of the normaliser."""
        if not self.judges_team:
            return super().compute_values(batch, embeddings)
        return self.critic(batch[CRITIC_INPUT]).flatten()

    def team_values(self, inputs: Tensor) -> Tensor:
        """Return V of the module's agents, (..., k), for critic inputs (..., D)."""
        out = self.critic(inputs)
        return out if self.value_normalizer is None else self.value_normalizer.plain(out)

    def in_its_units(self, values: Tensor, targets: Tensor, acted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Let the normaliser see the value targets of a batch; return both as the critic puts values out.

        Running statistics leave the critic's outputs as they are, so its old values are in the old units. PopArt moves
        the last layer along, and they are in the new ones.

        Args:
            values: (B, k), the critic's, plain.
            targets: (B, k).
            acted: (B, k), or None if all did.
        """
        normalizer = self.value_normalizer
        if normalizer is None:
            return values, targets
        if self.options["normalize"] == "popart":
            normalizer.see(targets, acted, self.critic.head)
            return normalizer.normalized(values), normalizer.normalized(targets)
        outputs = normalizer.normalized(values)
        normalizer.see(targets, acted)
        return outputs, normalizer.normalized(targets)
