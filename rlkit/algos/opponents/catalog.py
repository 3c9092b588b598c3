"""What RLlib's DQN module builds DRON of: the networks' encoders and heads, alone or behind a registered model.

A registered model (`model: {name: …}`) reads the state first, and the network sees its features in the state's place.
A recurrent one remembers the states before; opponents are read step by step as ever.

Legend: B rows, T steps, S state, M opponents, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.models.torch.torch_distributions import TorchCategorical
from torch import nn

from rlkit.algos.opponents.networks import (
    HISTORY,
    OPPONENT,
    STATE,
    ConcatEncoder,
    Encoder,
    FlatEncoder,
    MixtureEncoder,
    MixtureHead,
    Normalize,
    sizes,
)
from rlkit.models.encoders import lead_of
from rlkit.models.features import ModelRef, measure
from rlkit.roster import MASK_KEY


class Modelled(nn.Module):
    """An encoder of this file behind a registered model, which reads the state; the encoder reads its features.

    Args:
        model: of the recipe.
        space: of the state, (S,).
        options: of the encoder, see `build_encoder`.
        shapes: of the observation's parts, from `sizes`.

    Attributes:
        experts, hidden, head: those of the encoder.
    """

    def __init__(
        self,
        model: ModelRef,
        space: gym.spaces.Box,
        options: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
    ):
        super().__init__()
        size, self.recurrent = measure(model, space)
        self.model = model.build(space)
        self.normalize = Normalize(space) if options.get("normalize_state") else nn.Identity()
        self.encoder = _plain_encoder({**shapes, STATE: (size,)}, options)
        self.experts, self.hidden = self.encoder.experts, self.encoder.hidden

    @property
    def head(self) -> nn.Linear | None:
        return self.encoder.head

    def add_head(self, classes: int) -> None:
        self.encoder.add_head(classes)

    def get_initial_state(self) -> dict[str, torch.Tensor]:
        """Return the model's, without the batch; empty for one that keeps none."""
        return dict(self.model.initial_state()) if self.recurrent else {}

    def _read(self, observation: Any, state_in: Any) -> tuple[dict[str, torch.Tensor], Any]:
        """Return the parts of an observation as rows (B T, ...), with features as the state, and the next state."""
        parts = dict(observation) if isinstance(observation, Mapping) else {STATE: observation}
        parts.pop(MASK_KEY, None)
        if STATE not in parts:  # beside a mask, without opponent features
            (alone,) = parts.values()
            parts = {STATE: alone.flatten(2 if self.recurrent else 1).float()}
        parts[STATE] = self.normalize(parts[STATE])
        if not self.recurrent:
            return {**parts, STATE: self.model(parts[STATE])}, None
        features, state = self.model(parts[STATE], state_in)
        return {name: part.flatten(0, 1) for name, part in {**parts, STATE: features}.items()}, state

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        rows, state = self._read(batch[Columns.OBS], batch.get(Columns.STATE_IN))
        out = self.encoder({Columns.OBS: rows})
        if not self.recurrent:
            return out
        lead = lead_of(batch[Columns.OBS])
        return {name: part.unflatten(0, lead) for name, part in out.items()} | {Columns.STATE_OUT: state}

    def predict(self, observation: Any, state_in: Any = None) -> torch.Tensor:
        """Return the supervised head's logits, (B, M, C); (B, T, M, C) of a recurrent model."""
        logits = self.encoder.predict(self._read(observation, state_in)[0])
        return logits.unflatten(0, lead_of(observation)) if self.recurrent else logits


def build_encoder(
    space: gym.Space, options: Mapping[str, Any], model: ModelRef | None = None
) -> Encoder | Modelled:
    """Build the encoder that `options` (a module's `model_config["dron"]`) describes.

    Args:
        space: of observations.
        options: network, hidden, encoder_size, experts, gate_inputs, normalize_state.
        model: a registered model that reads the state, or None.

    Raises:
        ValueError: an unknown network or gate, K < 1, or opponents missing where the network needs them.
        UsageError: a model that does not take the state.
    """
    shapes = sizes(space)
    state: Any = space[STATE] if isinstance(space, gym.spaces.Dict) and STATE in space.spaces else space
    if model is not None:
        if not isinstance(state, gym.spaces.Box):
            (beside,) = (part for name, part in state.spaces.items() if name != MASK_KEY)
            state = gym.spaces.Box(beside.low.flatten(), beside.high.flatten())
        return Modelled(model, state, options, shapes)
    encoder = _plain_encoder(shapes, options)
    if options.get("normalize_state"):
        encoder.normalize = Normalize(state)
    return encoder


class DRONCatalog:
    """What RLlib's DQN module asks for its parts. Options stand in `model_config["dron"]`."""

    def __init__(
        self, observation_space: gym.Space, action_space: gym.Space, model_config_dict: Any, **kwargs: Any
    ):
        self.options = dict(model_config_dict["dron"])
        if self.options.get("some_learn") and not {OPPONENT, HISTORY} & sizes(observation_space).keys():
            self.options |= {"network": "flat", "supervise": "none"}  # of an agent that models nobody
        given = model_config_dict.get("rlkit_model")
        self.model = None if given is None else ModelRef(**given)
        self.observation_space = observation_space
        self.actions = int(action_space.n)
        self.atoms = int(model_config_dict["num_atoms"])

    def build_encoder(self, framework: str = "torch") -> Encoder | Modelled:
        self.encoder = build_encoder(self.observation_space, self.options, self.model)
        if self.options["supervise"] == "action":
            self.encoder.add_head(int(self.options["opponent_actions"] or self.actions))
        elif self.options["supervise"] == "type":
            self.encoder.add_head(int(self.options["opponent_types"]))
        return self.encoder

    def build_af_head(self, framework: str = "torch") -> nn.Module:
        return self._head(self.actions * self.atoms)

    def build_vf_head(self, framework: str = "torch") -> nn.Module:
        return self._head(self.atoms)

    def _head(self, outputs: int) -> nn.Module:
        if self.encoder.experts:
            return MixtureHead(self.encoder.hidden, self.encoder.experts, outputs)
        return nn.Linear(self.encoder.hidden, outputs)

    def get_action_dist_cls(self, framework: str = "torch") -> type[TorchCategorical]:
        return TorchCategorical


def _plain_encoder(shapes: Mapping[str, tuple[int, ...]], options: Mapping[str, Any]) -> Encoder:
    network = options["network"]
    args = (shapes, int(options["hidden"]), int(options["encoder_size"]))
    if network == "flat":
        return FlatEncoder(*args)
    if not ({OPPONENT, HISTORY} & shapes.keys()):
        raise ValueError(
            f"network {network!r} reads opponents, got observations with {sorted(shapes)} alone; "
            "switch features or history on, or use network: flat"
        )
    if network == "concat":
        return ConcatEncoder(*args)
    return MixtureEncoder(*args, experts=int(options["experts"]), gate_inputs=options["gate_inputs"])
