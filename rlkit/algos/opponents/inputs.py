"""What one learner sees of its opponents, for many rows at once: the part of `OpponentFeatures` without episodes.

Legend: B rows (one per episode), M opponents, F features, H window, S state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.algos.opponents.history import STATISTICS, ActionCode, FeatureOptions, OpponentHistory
from rlkit.algos.sampling import acting
from rlkit.errors import EnvError
from rlkit.roster import MASK_KEY, split_mask

STATE, OPPONENT, HISTORY = "state", "opponent", "history"
ACTION, MOVES, LOST, TYPE = "opponent_action", "opponent_moves", "ball_lost", "opponent_type"
ACTION_LABEL, TYPE_LABEL = "dron_action", "dron_type"
UNKNOWN = -1  # label of an opponent that did not act

POOL = 4096


class LearnerInputs:
    """The opponents, features and labels of one learner.

    Args:
        space: the environment's observation space of this learner. An action mask in it goes to the module as it is.
        actions: of this learner.
        opponents: names of the modelled opponents.
        code: how their actions become vectors.
        options: which features.
        label_actions, label_types: which labels to write into the infos.
        placebo: whose features each row gets instead of its own; None for its own.

    Attributes:
        out: the Dict space of what the module sees.
        history: of the rows.

    Raises:
        ValueError: a space that cannot be flattened, or action labels for opponents without Discrete actions.
    """

    def __init__(
        self,
        space: gym.Space,
        actions: gym.Space | None,
        opponents: Sequence[str],
        code: ActionCode,
        options: FeatureOptions,
        *,
        label_actions: bool = False,
        label_types: bool = False,
        placebo: Placebo | None = None,
    ):
        if label_actions and not code.discrete:
            raise ValueError(
                f"supervise: action needs opponents with Discrete actions, got {code.space}; "
                "use supervise: type or none"
            )
        seen, key, _ = split_mask(space, actions)
        flat = gym.spaces.flatten_space(seen)
        if not isinstance(flat, gym.spaces.Box):
            raise ValueError(f"observations: got {space}, expected a space that can be flattened to a vector")
        self.space, self.actions, self.seen, self.key = space, actions, seen, key
        self.opponents, self.code, self.options = list(opponents), code, options
        self.label_actions, self.label_types, self.placebo = label_actions, label_types, placebo
        size = int(np.prod(flat.shape))
        self.history = OpponentHistory(options, len(opponents), code.size, size)
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
        parts: dict[str, gym.Space] = {STATE: gym.spaces.Box(low, high, (size,), np.float32)}
        if self.history.size:
            parts[OPPONENT] = _unbounded(len(opponents), self.history.size)
        if options.window:
            parts[HISTORY] = _unbounded(len(opponents), options.window, self.history.entry_size)
        if key is not None:
            parts[MASK_KEY] = space[MASK_KEY]
        if isinstance(space, gym.spaces.Dict) and space.spaces.keys() == parts.keys():
            raise ValueError(f"observations: got {space}, whose keys this connector uses itself; rename one")
        self.out = gym.spaces.Dict(parts)
        self._vectors = isinstance(seen, gym.spaces.Box) and len(seen.shape) == 1

    def anew(self) -> LearnerInputs:
        """Return the same with an empty history of its own."""
        return LearnerInputs(
            self.space, self.actions, self.opponents, self.code, self.options, label_actions=self.label_actions,
            label_types=self.label_types, placebo=self.placebo,
        )  # fmt: skip

    @property
    def labels(self) -> bool:
        """Whether labels are written."""
        return self.label_actions or self.label_types

    def told(self, info: Mapping[str, Any], t: int) -> list[Any]:
        """Return what a single-agent environment says its opponents did.

        Raises:
            EnvError: it says nothing, or not for every opponent.
        """
        if ACTION not in info:
            raise EnvError(
                f"step {t}: infos has {sorted(info)}, expected {ACTION!r}: this environment shows no "
                "opponent to model; use one with opponents (multi-agent, or one that tells their actions), "
                "or algorithm: DQN"
            )
        action = info[ACTION]
        if len(self.opponents) == 1:
            return [action]
        if len(action) != len(self.opponents):
            raise EnvError(
                f"step {t}: infos[{ACTION!r}] has {len(action)} actions, expected one for each of {self.opponents}"
            )
        return list(action)

    def type_in(self, info: Mapping[str, Any], t: int, agent: str | None = None) -> Any:
        """Return the opponents' type from an info.

        Raises:
            EnvError: it is not there.
        """
        if TYPE not in info:
            who = f"agent {agent!r}, " if agent is not None else ""
            raise EnvError(
                f"{who}step {t}: infos has {sorted(info)}, expected {TYPE!r}, the label of supervise: type; "
                "let the environment put it there, or use supervise: action or none"
            )
        return info[TYPE]

    def check(self, info: Mapping[str, Any], t: int, *, alone: bool) -> None:
        """Raise what `step` and `told` would for this info; `alone`: of a single-agent environment.

        Raises:
            EnvError: names what is missing.
        """
        if alone:
            self.told(info, t)
        for key in (MOVES, LOST) if self.options.needs_events else ():
            self._event(info, key, t)

    def begin(self, rows: np.ndarray) -> None:
        """Start a new episode in each of these rows."""
        self.history.reset(rows)
        if self.placebo is not None:
            self.placebo.begin(rows)

    def step(
        self,
        rows: np.ndarray,
        infos: Sequence[Mapping[str, Any]],
        taken: Sequence[Sequence[Any]],
        times: Sequence[int],
    ) -> None:
        """Add one step to the histories of B rows.

        Args:
            rows: (B,).
            infos: the infos the step returned.
            taken: the opponents' actions in this step, M each; None for one that did not act.
            times: the rows' time after the step.
        """
        count, m = len(rows), len(self.opponents)
        flat = [action for actions in taken for action in actions]
        actions = self.code.encode(flat).reshape(count, m, -1)
        seen = np.array([action is not None for action in flat]).reshape(count, m)
        moves = lost = None
        if self.options.needs_events:
            told = [self._event(info, MOVES, t) for info, t in zip(infos, times, strict=True)]
            moves = np.stack(told).reshape(count, m, 1 + STATISTICS).astype(np.float32)
            lost = np.array([self._event(info, LOST, t) for info, t in zip(infos, times, strict=True)])
        self.history.update(rows, actions, seen, moves=moves, lost=lost)

    def _event(self, info: Mapping[str, Any], key: str, t: int) -> Any:
        if key not in info:
            without = [n for n in ("last_action", "clock", "frequencies") if n in self.options.features]
            raise EnvError(
                f"step {t}: infos has {sorted(info)}, expected {key!r} for the features "
                f"{list(self.options.needs_events)}; leave those out: features: {without}"
            )
        return info[key]

    def labelled(self, info: Mapping[str, Any], taken: Sequence[Any], kind: Any) -> dict[str, Any]:
        """Return an info with the labels of the observation before: the actions that followed it, and the type then."""
        labels: dict[str, Any] = dict(info)
        if self.label_actions:
            labels[ACTION_LABEL] = np.array([self.code.index(action) for action in taken])
        if self.label_types:
            labels[TYPE_LABEL] = np.broadcast_to(np.asarray(kind), (len(self.opponents),)).astype(np.int64)
        return labels

    def columns(self, rows: np.ndarray, observations: Any) -> dict[str, np.ndarray]:
        """Return what the module sees now: `state` (B, S), `opponent` (B, M, F), `history` (B, M, H, S + A + 1).

        Args:
            observations: the environment's, a list of B or nested arrays (B, ...). Its mask stays `action_mask` (B, A).
        """
        columns = {}
        if self.key is not None and isinstance(observations, list):
            columns[MASK_KEY] = np.stack([observation[MASK_KEY] for observation in observations])
            observations = [observation[self.key] for observation in observations]
        elif self.key is not None:
            columns[MASK_KEY], observations = observations[MASK_KEY].copy(), observations[self.key]
        if self._vectors:
            states = np.asarray(observations, np.float32)
        else:
            if not isinstance(observations, list):
                observations = [acting.row(observations, i) for i in range(len(rows))]
            flat = [gym.spaces.flatten(self.seen, observation) for observation in observations]
            states = np.stack(flat).astype(np.float32)
        self.history.observe(rows, states)
        columns[STATE] = states
        if self.history.size:
            columns[OPPONENT] = self.history.features(rows)
        if self.options.window:
            columns[HISTORY] = self.history.windows(rows)
        if self.placebo is not None:
            self.placebo.exchange(rows, columns)
        return columns


class Placebo:
    """Gives each row the columns of another episode, drawn from those seen lately; zeros if there is none.

    An env runner seeds `rng` with a stream of its own; elsewhere it begins alike, so that an evaluation repeats.
    """

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.seen: dict[str, np.ndarray] = {}
        self.owners = np.full(POOL, -1)  # the episode that each entry of the pool is of
        self.filled = self.next = self.begun = 0
        self.episodes = np.zeros(0, np.int64)  # of each row

    def begin(self, rows: np.ndarray) -> None:
        """Start a new episode in each of these rows."""
        missing = int(rows.max(initial=-1)) + 1 - len(self.episodes)
        if missing > 0:
            self.episodes = np.concatenate([self.episodes, np.full(missing, -1)])
        self.episodes[rows] = self.begun + np.arange(len(rows))
        self.begun += len(rows)

    def exchange(self, rows: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Replace all columns but the state in place."""
        episodes = self.episodes[rows]
        draws = self.rng.integers(max(self.filled, 1), size=(4, len(rows)))
        others = self.owners[draws] != episodes
        pick = np.take_along_axis(draws, others.argmax(axis=0)[None], axis=0)[0]
        found = others.any(axis=0) & (self.filled > 0)
        put = (self.next + np.arange(len(rows))) % POOL
        for name in set(columns) - {STATE, MASK_KEY}:
            own = columns[name]
            pool = self.seen.setdefault(name, np.zeros((POOL, *own.shape[1:]), np.float32))
            shown = found.reshape(-1, *(1,) * (own.ndim - 1))
            columns[name] = np.where(shown, pool[pick], 0).astype(np.float32)
            pool[put] = own
        self.owners[put] = episodes
        self.next = int((self.next + len(rows)) % POOL)
        self.filled = min(self.filled + len(rows), POOL)


def _unbounded(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)
