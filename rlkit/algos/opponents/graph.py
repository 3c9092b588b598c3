"""`OpponentFeatures` on tensors, for exports: what happened since the last observation goes in, histories are state.

The same numbers as `OpponentHistory`, row by row. The first call of an episode (state zero) adds no step, as the
connector does; what `inputs` hold then counts for nothing, except where opponents move before the learner's first
observation: give `opponent_seen` true for those that did.

    opponent_action   (B, M) int64, indices from 0; (B, M, A) float32 for Box actions
    opponent_seen     (B, M) bool, whether the opponent has acted since the last observation
    opponent_moves    (B, M, 5) float32, where the features need events (see `rlkit.envs.soccer`)
    ball_lost         (B,) float32, likewise

Legend: B rows, M opponents, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns

from rlkit.algos.opponents.history import DECAY, STATISTICS
from rlkit.algos.opponents.inputs import ACTION, HISTORY, LOST, MOVES, OPPONENT, STATE, LearnerInputs
from rlkit.algos.sampling.graph import Flatten, Piece, Tensor
from rlkit.errors import UsageError
from rlkit.roster import MASK_KEY

SEEN, BEGUN = "opponent_seen", "begun"


class OpponentGraph(Piece):
    """The opponents of one learner.

    Args:
        inputs: the learner's, see `LearnerInputs`.
        moves_first: opponents may act before the learner's first observation, as in an environment with several agents.

    Raises:
        UsageError: a placebo, whose features are those of other episodes; or observations that cannot be flattened.
    """

    def __init__(self, inputs: LearnerInputs, moves_first: bool):
        super().__init__()
        if inputs.placebo is not None:
            raise UsageError(
                "shuffle_features is a placebo that shows other games' opponents; it cannot be exported"
            )
        self.options, self.code, self.moves_first = inputs.options, inputs.code, moves_first
        self.opponents = inputs.opponents
        self.space: gym.Space = inputs.out
        self.flatten, self.key = Flatten(inputs.seen, ()), inputs.key
        m, a, self.state_size = len(inputs.opponents), inputs.code.size, inputs.out[STATE].shape[0]
        acted = Tensor((m,), "int64") if inputs.code.discrete else Tensor((m, a))
        self.inputs = {ACTION: acted, SEEN: Tensor((m,), "bool")}
        if self.options.needs_events:
            self.inputs |= {MOVES: Tensor((m, 1 + STATISTICS)), LOST: Tensor(())}
        if moves_first and not inputs.code.discrete:
            raise UsageError(
                f"opponents {inputs.opponents} act in {inputs.code.space}: opponent features of Box actions have an "
                "export only in an environment with one agent"
            )
        self.feed = {
            "kind": "opponents", "opponents": list(map(str, inputs.opponents)), "discrete": inputs.code.discrete,
            "size": inputs.code.size, "start": int(getattr(inputs.code.space, "start", 0)), "alone": not moves_first,
            "events": bool(self.options.needs_events),
        }  # fmt: skip
        shapes = {name: shape for name, shape in inputs.history.shapes().items() if 0 not in shape}
        self.state = {BEGUN: Tensor(())} | {name: Tensor(shape) for name, shape in shapes.items()}

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        begun = state[BEGUN]
        if self.moves_first:
            steps = torch.maximum(begun, given[SEEN].any(dim=-1).float())
        else:
            steps = begun
        after = self._updated(given, state)
        after = {
            name: torch.where(_wide(steps, value) > 0.5, value, state[name]) for name, value in after.items()
        }
        observed = batch[Columns.OBS]
        seen = observed if self.key is None else observed[self.key]
        states = self.flatten({Columns.OBS: seen}, {}, {})[0][Columns.OBS]
        columns = {STATE: states}
        if self.key is not None:
            columns[MASK_KEY] = observed[MASK_KEY]
        if OPPONENT in self.space.spaces:
            columns[OPPONENT] = self._features(after)
        if self.options.window:
            columns[HISTORY] = after["window"]
            after["state"] = states
        after[BEGUN] = torch.ones_like(begun)
        return {**batch, Columns.OBS: columns}, after

    def _updated(
        self, given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """`OpponentHistory.update` for every row."""
        seen = given[SEEN]
        mark = seen.float()
        if self.code.discrete:
            every = torch.arange(self.code.size, device=mark.device)
            actions = (given[ACTION].unsqueeze(-1) == every).float()
        else:
            actions = given[ACTION]
        actions = actions * mark.unsqueeze(-1)
        after = dict(state)
        after["clock"] = state["clock"] + 1.0
        if MOVES in given:
            moves = given[MOVES]
            without = (moves[..., :1] < 0.5).float()  # row 0: it had the ball
            row = torch.stack([1.0 - without, without], dim=-2) * mark[..., None, None]  # (B, M, 2, 1)
            decayed = DECAY * state["moves"] + moves[..., None, 1:]
            after["moves"] = torch.where(row > 0.5, decayed, state["moves"])
            shifted = torch.stack([state["last_moves"][:, :, 1], moves], dim=2)
            after["last_moves"] = torch.where(seen[..., None, None], shifted, state["last_moves"])
            after["lost"] = state["lost"] + given[LOST]
        if "last_action" in self.options.features:
            after["last_action"] = torch.where(seen[..., None], actions, state["last_action"])
        if "frequencies" in self.options.features:
            after["total"] = state["total"] + actions
            after["seen"] = state["seen"] + mark
        if self.options.window:
            b, m = mark.shape
            own = state["state"].unsqueeze(1).expand(b, m, self.state_size)
            entry = torch.cat([own, actions, torch.ones_like(mark).unsqueeze(-1)], dim=-1)
            after["window"] = torch.cat([state["window"][:, :, 1:], entry.unsqueeze(2)], dim=2)
        return after

    def _features(self, data: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`OpponentHistory.features` for every row."""
        b, m = data["seen"].shape
        parts = []
        for name in self.options.features:
            if name == "moves":
                parts.append(data["moves"].flatten(2) * (1 - DECAY))
            elif name == "last_moves":
                parts.append(data["last_moves"].flatten(2))
            elif name == "last_action":
                parts.append(data["last_action"])
            elif name == "lost":
                parts.append((data["lost"] / 10)[:, None, None].expand(b, m, 1))
            elif name == "clock":
                clock = (data["clock"] / self.options.clock_horizon).clamp(max=1.0)
                parts.append(clock[:, None, None].expand(b, m, 1))
            else:
                parts.append(data["total"] / data["seen"].clamp(min=1.0).unsqueeze(-1))
        return torch.cat(parts, dim=2)


def _wide(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return (B,) as (B, 1, ...) with the dimensions of another tensor."""
    return rows.reshape(-1, *(1,) * (like.dim() - 1))
