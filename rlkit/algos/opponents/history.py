"""What a player has seen of its opponents, as features: the numbers behind DRON's opponent input.

The features of He et al. (ICML 2016), section 5.1, in a repaired form. The authors' code
(github.com/hhexiy/opponent, soccer_framework.lua) keeps the move statistics in an IntTensor, which truncates
them to -1, 0, 1; never clears the last action, which is all ones after a few games; keeps the histories from
game to game; and computes action frequencies without using them. Here they are floats, one-hot, reset with
every episode, and used.

Everything at time t comes from what happened before t: the actions and events of the moves 0 .. t - 1.

Legend: R rows (one per episode and learner), M opponents, A action size, E = 4 move statistics, H window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.algos.dron_rules import FEATURES, NEED_EVENTS
from rlkit.errors import did_you_mean

STATISTICS = 4
DECAY = 0.8


@dataclass(frozen=True)
class FeatureOptions:
    """Which features there are.

    Args:
        features: names of `FEATURES` (`rlkit.algos.dron_rules`), in any order; empty for none.
        window: steps of opponent history for a learned encoder (H); 0 for none.
        clock_horizon: moves at which the clock reads 1.

    Raises:
        ValueError: an unknown or repeated name, a negative window, a horizon below 1.
    """

    features: tuple[str, ...] = tuple(FEATURES)
    window: int = 0
    clock_horizon: int = 100

    def __post_init__(self) -> None:
        for name in self.features:
            if name not in FEATURES:
                raise ValueError(
                    f"features: got {name!r}{did_you_mean(name, FEATURES)}; "
                    f"expected some of {', '.join(FEATURES)}"
                )
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features: got {list(self.features)}, expected each name once")
        object.__setattr__(self, "features", tuple(n for n in FEATURES if n in self.features))
        if self.window < 0:
            raise ValueError(f"history: got {self.window}, expected at least 0 steps")
        if self.clock_horizon < 1:
            raise ValueError(f"clock_horizon: got {self.clock_horizon}, expected at least 1 step")

    @property
    def needs_events(self) -> tuple[str, ...]:
        """The features among them that need events of the environment beside the opponents' actions."""
        return tuple(name for name in self.features if name in NEED_EVENTS)

    def size(self, action_size: int) -> int:
        """Return F, the features per opponent."""
        sizes = {
            "moves": 2 * STATISTICS,
            "last_moves": 2 * (1 + STATISTICS),
            "last_action": action_size,
            "lost": 1,
            "clock": 1,
            "frequencies": action_size,
        }
        return sum(sizes[name] for name in self.features)


@dataclass(frozen=True)
class ActionCode:
    """How an opponent's action becomes a vector: one-hot if Discrete (A = n), itself if Box (A = its length).

    Raises:
        ValueError: any other space.
    """

    space: gym.Space
    size: int = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.space, gym.spaces.Discrete):
            size = int(self.space.n)
        elif isinstance(self.space, gym.spaces.Box):
            size = int(np.prod(self.space.shape))
        else:
            raise ValueError(
                f"opponents: got actions {self.space}, expected Discrete or Box actions to build features from"
            )
        object.__setattr__(self, "size", size)

    @property
    def discrete(self) -> bool:
        """Whether actions are indices."""
        return isinstance(self.space, gym.spaces.Discrete)

    def index(self, action: Any) -> int:
        """Return an action's index from 0; -1 for None (unseen) and for continuous actions."""
        if action is None or not self.discrete:
            return -1
        return int(action) - int(self.space.start)

    def encode(self, actions: Sequence[Any]) -> np.ndarray:
        """Return actions as vectors, (len(actions), A) float32; None gives zeros."""
        out = np.zeros((len(actions), self.size), np.float32)
        if self.discrete:
            indices = np.array([self.index(a) for a in actions])
            seen = np.flatnonzero(indices >= 0)
            out[seen, indices[seen]] = 1.0
            return out
        for i, action in enumerate(actions):
            if action is not None:
                out[i] = np.asarray(action, np.float32).reshape(-1)
        return out


class OpponentHistory:
    """The histories of R rows, as arrays; grows as needed.

    Args:
        options: which features.
        opponents: M.
        action_size: A.
        state_size: length of the learner's own observation, kept beside each action in the window.
    """

    def __init__(self, options: FeatureOptions, opponents: int, action_size: int, state_size: int = 0):
        self.options, self.opponents, self.action_size = options, opponents, action_size
        self.state_size = state_size
        self.entry_size = state_size + action_size + 1
        self.size = options.size(action_size)
        self._rows = 0
        self._arrays: dict[str, np.ndarray] = {}
        self._grow(64)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of one row."""
        m = self.opponents
        return {
            "moves": (m, 2, STATISTICS),
            "last_moves": (m, 2, 1 + STATISTICS),
            "last_action": (m, self.action_size),
            "total": (m, self.action_size),
            "seen": (m,),
            "lost": (),
            "clock": (),
            "state": (self.state_size if self.options.window else 0,),
            "window": (m, self.options.window, self.entry_size),
        }

    def _grow(self, rows: int) -> None:
        for name, shape in self.shapes().items():
            new = np.zeros((rows, *shape), np.float32)
            if self._rows:
                new[: self._rows] = self._arrays[name]
            self._arrays[name] = new
        self._rows = rows

    def reset(self, rows: np.ndarray) -> None:
        """Forget everything about these rows."""
        if len(rows) and rows.max() >= self._rows:
            self._grow(max(2 * self._rows, int(rows.max()) + 1))
        for array in self._arrays.values():
            array[rows] = 0.0

    def update(
        self,
        rows: np.ndarray,
        actions: np.ndarray,
        seen: np.ndarray,
        *,
        moves: np.ndarray | None = None,
        lost: np.ndarray | None = None,
    ) -> None:
        """Add one step.

        Args:
            rows: (B,) which rows.
            actions: (B, M, A) the opponents' actions of this step.
            seen: (B, M) bool, whether the opponent acted.
            moves: (B, M, 1 + E) whether it had the ball, then the move statistics.
            lost: (B,) whether the ball was lost.
        """
        data, wanted = self._arrays, self.options.features
        seen_f = seen.astype(np.float32)
        data["clock"][rows] += 1.0
        if moves is not None:
            row_of = (moves[..., 0] < 0.5).astype(np.int64)  # row 0: it had the ball
            b, m = np.nonzero(seen)
            where = (rows[b], m, row_of[b, m])
            data["moves"][where] = DECAY * data["moves"][where] + moves[b, m, 1:]
            last = data["last_moves"][rows]
            last[:, :, 0] = np.where(seen[..., None], last[:, :, 1], last[:, :, 0])
            last[:, :, 1] = np.where(seen[..., None], moves, last[:, :, 1])
            data["last_moves"][rows] = last
        if "last_action" in wanted:
            data["last_action"][rows] = np.where(seen[..., None], actions, data["last_action"][rows])
        if "frequencies" in wanted:
            data["total"][rows] += actions * seen_f[..., None]
            data["seen"][rows] += seen_f
        if lost is not None:
            data["lost"][rows] += lost
        if self.options.window:
            window = data["window"][rows]
            window[:, :, :-1] = window[:, :, 1:]
            entry = window[:, :, -1]
            entry[..., : self.state_size] = data["state"][rows][:, None]
            entry[..., -1 - self.action_size : -1] = actions * seen_f[..., None]
            entry[..., -1] = 1.0
            data["window"][rows] = window

    def observe(self, rows: np.ndarray, states: np.ndarray) -> None:
        """Note what the learner observes now, (B, S); the next `update` puts it beside the actions."""
        if self.options.window:
            self._arrays["state"][rows] = states

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of these rows, (B, M, F) float32, within about [-1, 1]."""
        data, b, m = self._arrays, len(rows), self.opponents
        parts: list[np.ndarray] = []
        for name in self.options.features:
            if name == "moves":  # a sum of decayed +-1 stays within 1 / (1 - decay)
                parts.append(data["moves"][rows].reshape(b, m, -1) * (1 - DECAY))
            elif name == "last_moves":
                parts.append(data["last_moves"][rows].reshape(b, m, -1))
            elif name == "last_action":
                parts.append(data["last_action"][rows])
            elif name == "lost":
                parts.append(np.broadcast_to(data["lost"][rows, None, None] / 10, (b, m, 1)))
            elif name == "clock":
                clock = np.minimum(data["clock"][rows] / self.options.clock_horizon, 1.0)
                parts.append(np.broadcast_to(clock[:, None, None], (b, m, 1)))
            else:
                parts.append(data["total"][rows] / np.maximum(data["seen"][rows], 1.0)[..., None])
        return np.concatenate(parts, axis=2) if parts else np.zeros((b, m, 0), np.float32)

    def windows(self, rows: np.ndarray) -> np.ndarray:
        """Return the last H steps of these rows, oldest first, (B, M, H, S + A + 1) float32.

        An entry holds the learner's observation, the opponent's action, and 1; steps before the episode are 0.
        """
        return self._arrays["window"][rows]
