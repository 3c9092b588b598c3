"""The networks of DRON (He et al., ICML 2016, section 3) as encoders and heads; `catalog` hands them to RLlib's module.

An encoder turns `{state (B, S), opponent (B, M, F), history (B, M, H, D)}` into what the heads read; a head
gives one value per action (and atom), or, in a dueling network, one value per state. Everything else (double,
dueling, distributional Q-learning, target networks) is RLlib's own. Structures and sizes are those of the
authors' code (github.com/hhexiy/opponent, SoccerONeuralQLearner.lua); with several opponents the layer that
reads an opponent is shared and its outputs are averaged, so one opponent is the paper's case.

    flat     [state, opponents] -> hidden -> hidden -> Q               DQN; without features: DQN-world
    concat   (opponent -> hidden, state -> hidden) -> hidden -> Q
    moe      state -> hidden -> hidden -> K experts; Q = sum_k w_k Q_k, w = softmax(gate(state, opponent))

Legend: B rows, S state, M opponents, F features, H window, D window entry, h hidden, K experts, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch import nn

from rlkit.models.features import UNBOUNDED
from rlkit.roster import MASK_KEY, has_mask

STATE, OPPONENT, HISTORY = "state", "opponent", "history"
GATE = "gate"
NETWORKS = ("moe", "concat", "flat")
GATE_INPUTS = ("state_and_opponent", "opponent")


def sizes(space: gym.Space) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parts of an observation space, without features just the state's.

    Raises:
        ValueError: a space that neither is a vector nor comes from `OpponentFeatures`.
    """
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return {STATE: tuple(space.shape)}
    if isinstance(space, gym.spaces.Dict) and STATE in space.spaces:
        return {name: tuple(part.shape or ()) for name, part in space.spaces.items() if name != MASK_KEY}
    if has_mask(space):
        beside = [part for name, part in space.spaces.items() if name != MASK_KEY]
        if len(beside) == 1 and isinstance(beside[0], gym.spaces.Box):
            return {STATE: (math.prod(beside[0].shape),)}
    raise ValueError(
        f"DRON's networks got observations {space}, expected a vector or what OpponentFeatures writes"
    )


class Normalize(nn.Module):
    """Bring bounded values to mean 0 and deviation 1, as if they were uniform between their bounds; leave others alone.

    A value whose bounds are equal never changes; it becomes 0.

    Args:
        space: whose `low` and `high` (S,) are the bounds.
    """

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        low, high = torch.as_tensor(space.low).double(), torch.as_tensor(space.high).double()
        bounded = (low.abs() < UNBOUNDED) & (high.abs() < UNBOUNDED)
        middle = torch.where(bounded, (low + high) / 2, 0.0)
        deviation = torch.where(bounded & (high > low), (high - low) / 12**0.5, 1.0)
        self.register_buffer("middle", middle.float(), persistent=False)
        self.register_buffer("deviation", deviation.float(), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.middle) / self.deviation


class Encoder(nn.Module):
    """Base of the three encoders.

    Args:
        shapes: of the observation's parts, from `sizes`.
        hidden: h.
        encoder_size: hidden size of the recurrent encoder that reads `history`.

    Attributes:
        output_size: length of what the heads get.
        experts: K, or 0.
    """

    experts = 0

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], hidden: int, encoder_size: int):
        super().__init__()
        self.shapes = dict(shapes)
        self.hidden = hidden
        self.state_size = shapes[STATE][0]
        self.opponent_size = shapes.get(OPPONENT, (0, 0))[1]
        self.opponents = shapes[OPPONENT][0] if OPPONENT in shapes else shapes.get(HISTORY, (0,))[0]
        self.history: nn.GRU | None = None
        if HISTORY in shapes:
            self.history = nn.GRU(shapes[HISTORY][2], encoder_size, batch_first=True)
            self.opponent_size += encoder_size
        self.output_size = hidden
        self.head: nn.Linear | None = None
        self.normalize: Normalize | None = None

    def add_head(self, classes: int) -> None:
        """Add the head that predicts an opponent's action or type from its hidden layer."""
        self.head = nn.Linear(self.hidden, classes)

    def parts(self, observation: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return state (B, S) and opponents (B, M, F') of an observation.

        Raises:
            ValueError: sizes other than those the network was built for.
        """
        if torch.is_tensor(observation):
            observation = {STATE: observation}
        observation = {name: part for name, part in observation.items() if name != MASK_KEY}
        if len(observation) == 1 and STATE not in observation:  # beside a mask, without opponent features
            (alone,) = observation.values()
            observation = {STATE: alone.flatten(1).float()}
        got = {name: tuple(part.shape[1:]) for name, part in observation.items()}
        if got != self.shapes:
            raise ValueError(
                f"DRON's network got observations of sizes {got}, expected {self.shapes}: the env runner and the "
                "learner build different opponent features; give both the same `training(features=, history=)`"
            )
        opponent = observation.get(OPPONENT)
        if self.history is not None:
            window = observation[HISTORY]
            b, m = window.shape[:2]
            code = self.history(window.flatten(0, 1))[0][:, -1].view(b, m, -1)
            opponent = code if opponent is None else torch.cat([opponent, code], dim=-1)
        state = observation[STATE]
        return state if self.normalize is None else self.normalize(state), opponent

    def opponent_hidden(self, observation: Any) -> torch.Tensor:
        """Return the hidden layer that reads each opponent, (B, M, h)."""
        raise NotImplementedError

    def predict(self, observation: Any) -> torch.Tensor:
        """Return the supervised head's logits, (B, M, C)."""
        assert self.head is not None
        return self.head(self.opponent_hidden(observation))


def _pooled(hidden: torch.Tensor) -> torch.Tensor:
    """Average (B, M, h) over the opponents."""
    return hidden[:, 0] if hidden.shape[1] == 1 else hidden.mean(dim=1)


class FlatEncoder(Encoder):
    """[state, opponents] -> h -> h."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], hidden: int, encoder_size: int):
        super().__init__(shapes, hidden, encoder_size)
        inputs = self.state_size + self.opponents * self.opponent_size
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )

    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        state, opponent = self.parts(batch[Columns.OBS])
        inputs = state if opponent is None else torch.cat([state, opponent.flatten(1)], dim=-1)
        return {ENCODER_OUT: self.layers(inputs)}


class ConcatEncoder(Encoder):
    """(opponent -> h, averaged over opponents; state -> h) -> concatenated -> h."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], hidden: int, encoder_size: int):
        super().__init__(shapes, hidden, encoder_size)
        self.opponent = nn.Linear(self.opponent_size, hidden)
        self.state = nn.Linear(self.state_size, hidden)
        self.both = nn.Linear(2 * hidden, hidden)

    def opponent_hidden(self, observation: Any) -> torch.Tensor:
        return torch.relu(self.opponent(self.parts(observation)[1]))

    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        state, opponent = self.parts(batch[Columns.OBS])
        seen = _pooled(torch.relu(self.opponent(opponent)))
        both = torch.cat([seen, torch.relu(self.state(state))], dim=-1)
        return {ENCODER_OUT: torch.relu(self.both(both))}


class MixtureEncoder(Encoder):
    """The trunk of the experts, state -> h -> h, and behind it their weights: (B, h + K).

    Args:
        experts: K.
        gate_inputs: `state_and_opponent` as in the authors' code, or `opponent` as in the paper's figure.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        hidden: int,
        encoder_size: int,
        experts: int = 3,
        gate_inputs: str = "state_and_opponent",
    ):
        super().__init__(shapes, hidden, encoder_size)
        self.experts, self.gate_sees_state = experts, gate_inputs == "state_and_opponent"
        self.trunk = nn.Sequential(
            nn.Linear(self.state_size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.gate_hidden = nn.Linear(self.opponent_size + self.gate_sees_state * self.state_size, hidden)
        self.gate = nn.Linear(hidden, experts)
        self.output_size = hidden + experts

    def _gate_hidden(self, state: torch.Tensor, opponent: torch.Tensor) -> torch.Tensor:
        if self.gate_sees_state:
            opponent = torch.cat([opponent, state[:, None].expand(-1, self.opponents, -1)], dim=-1)
        return torch.relu(self.gate_hidden(opponent))

    def opponent_hidden(self, observation: Any) -> torch.Tensor:
        state, opponent = self.parts(observation)
        assert opponent is not None
        return self._gate_hidden(state, opponent)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        state, opponent = self.parts(batch[Columns.OBS])
        assert opponent is not None
        weights = torch.softmax(self.gate(_pooled(self._gate_hidden(state, opponent))), dim=-1)
        return {ENCODER_OUT: torch.cat([self.trunk(state), weights], dim=-1), GATE: weights}


class MixtureHead(nn.Module):
    """K linear experts and their weighted sum: (B, h + K) -> (B, outputs)."""

    def __init__(self, hidden: int, experts: int, outputs: int):
        super().__init__()
        self.hidden, self.count, self.outputs = hidden, experts, outputs
        self.experts = nn.Linear(hidden, experts * outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.flatten(0, -2)
        features, weights = rows[:, : self.hidden], rows[:, self.hidden :]
        values = self.experts(features).view(-1, self.count, self.outputs)
        mixed = torch.bmm(weights.unsqueeze(1), values).squeeze(1)
        return mixed if inputs.dim() == 2 else mixed.unflatten(0, inputs.shape[:-1])
