"""The connector that shows a learner its opponents: observations become `{state, opponent, history}`.

It stands in the env-to-module pipeline and writes into the episodes, so that the module that acts, the replay
buffer and the learner get the same arrays. It works with any RLlib algorithm and env runner:

    config.env_runners(env_to_module_connector=lambda env, spaces, device: OpponentFeatures())

Where opponents' actions come from:
- multi-agent: the episode itself. Learners and opponents are agents of the environment.
- single-agent: `infos["opponent_action"]` of each step, an action, or a list of them for several opponents.
Events beside actions (`infos["opponent_moves"]`, `infos["ball_lost"]`, see `rlkit.envs.soccer`) are needed
for three of the features. `infos["opponent_type"]` is read for the type label alone.

Labels for supervision go the other way, into `infos`, never into observations: the step that follows the
observation at time t carries `dron_action`, what the opponents did at time t, and `dron_type`, their type at
t.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rlkit import rllib
from rlkit.algos.opponent_history import STATISTICS, ActionCode, FeatureOptions, OpponentHistory
from rlkit.errors import EnvError

STATE, OPPONENT, HISTORY = "state", "opponent", "history"
ACTION, MOVES, LOST, TYPE = "opponent_action", "opponent_moves", "ball_lost", "opponent_type"
ACTION_LABEL, TYPE_LABEL = "dron_action", "dron_type"
UNKNOWN = -1  # label of an opponent that did not act

Opponents = Sequence[str] | Mapping[str, Sequence[str]]

MAX_ROWS = 8192
POOL = 4096


def opponents_of(agent: str, agents: Sequence[str], opponents: Opponents) -> list[str]:
    """Return which agents `agent` models, in the environment's order.

    Args:
        opponents: globs of the modelled agents, for everybody else; or {glob of learners: globs of
            opponents}.
    """
    if isinstance(opponents, Mapping):
        globs = [g for learner, gs in opponents.items() if fnmatch.fnmatchcase(agent, learner) for g in gs]
    else:
        globs = list(opponents)
    return [o for o in agents if o != agent and any(fnmatch.fnmatchcase(o, g) for g in globs)]


@dataclass
class _Learner:
    """One learner's spaces and histories."""

    space: gym.Space
    opponents: list[str]
    code: ActionCode
    history: OpponentHistory
    out: gym.spaces.Dict

    def waits(self, episode: Any) -> bool:
        """Whether the newest observation is the environment's own (an agent that did not step has none)."""
        data = episode.observations.data
        return bool(data) and not (isinstance(data[-1], dict) and data[-1].keys() == self.out.spaces.keys())

    def states(self, observations: Sequence[Any]) -> np.ndarray:
        """Return raw observations as (B, S) float32."""
        if isinstance(self.space, gym.spaces.Box) and len(self.space.shape) == 1:
            return np.asarray(observations, np.float32)
        flat = [gym.spaces.flatten(self.space, observation) for observation in observations]
        return np.stack(flat).astype(np.float32)


class OpponentFeatures(ConnectorV2):
    """Build opponent features from what has been observed before the current step.

    Args:
        opponents: whom to model: globs of agents, or {glob of learners: globs}. Single-agent environments:
            names without wildcards give the number of opponents, anything else means one.
        features, window, clock_horizon: see `FeatureOptions`; `window` > 0 adds `history`.
        opponent_actions: actions of a single-agent environment's opponents; None: as many as the learner's.
        label_actions, label_types: write labels into the infos.
        shuffle: a placebo: give each row the features of another episode.

    Raises:
        ValueError: no agent matches, or a feature cannot be built from the opponents' actions.
        EnvError: later, infos without what the features need.
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        opponents: Opponents = ("*",),
        features: Sequence[str] = FeatureOptions().features,
        window: int = 0,
        clock_horizon: int = 100,
        opponent_actions: int | None = None,
        label_actions: bool = False,
        label_types: bool = False,
        shuffle: bool = False,
        **kwargs: Any,
    ):
        options = {
            "opponents": opponents, "features": tuple(features), "window": window, "clock_horizon": clock_horizon,
            "opponent_actions": opponent_actions, "label_actions": label_actions, "label_types": label_types,
            "shuffle": shuffle,
        }  # fmt: skip
        self.options = FeatureOptions(tuple(features), window, clock_horizon)
        self.opponents, self.opponent_actions = opponents, opponent_actions
        self.label_actions, self.label_types = label_actions, label_types
        self.placebo = Placebo() if shuffle else None
        self._learners: dict[str | None, _Learner] = {}
        self._rows: dict[tuple[str, str | None], int] = {}  # (episode, agent) -> row
        self._free: list[int] = []
        self._times: dict[int, int] = {}  # row -> time of its last observation
        self._types: dict[int, Any] = {}
        self._heard: dict[int, dict[str, int]] = {}  # row -> opponent -> actions heard so far
        super().__init__(input_observation_space, input_action_space, **options, **kwargs)

    # Spaces -----------------------------------------------------------------------------------------------

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        """Return the space of what this connector writes; remembers it for each learner."""
        self._learners = {}
        if not _by_agent(input_observation_space, input_action_space):
            learner = self._alone(input_observation_space, input_action_space)
            self._learners[None] = learner
            return learner.out
        agents = list(input_observation_space.spaces)
        spaces = {}
        for agent, space in input_observation_space.spaces.items():
            opponents = opponents_of(agent, agents, self.opponents)
            if opponents:
                self._learners[agent] = self._learner(agent, space, opponents, input_action_space)
            spaces[agent] = self._learners[agent].out if opponents else space
        if not self._learners:
            raise ValueError(
                f"opponents: {_shown(self.opponents)} matches no opponent of any agent; the agents are {agents}"
            )
        return gym.spaces.Dict(spaces)

    def _alone(self, space: gym.Space, actions: gym.Space) -> _Learner:
        names = [] if isinstance(self.opponents, Mapping) else list(self.opponents)
        if not names or any(c in name for name in names for c in "*?["):
            names = ["opponent"]
        opponent = actions if self.opponent_actions is None else gym.spaces.Discrete(self.opponent_actions)
        return self._build(space, names, ActionCode(opponent))

    def _learner(self, agent: str, space: gym.Space, opponents: list[str], actions: Any) -> _Learner:
        codes = {o: ActionCode(actions[o]) for o in opponents}
        sizes = {o: code.size for o, code in codes.items()}
        if len({(code.size, code.discrete) for code in codes.values()}) > 1:
            raise ValueError(
                f"opponents: {agent!r} models agents with different actions ({sizes}); "
                "expected actions of one size"
            )
        code, expected = codes[opponents[0]], self.opponent_actions or getattr(actions[agent], "n", None)
        if self.label_actions and code.discrete and code.size != expected:
            raise ValueError(
                f"supervise: the opponents of {agent!r} have {code.size} actions, expected {expected}; "
                f"set opponent_actions: {code.size}"
            )
        return self._build(space, opponents, code)

    def _build(self, space: gym.Space, opponents: list[str], code: ActionCode) -> _Learner:
        if self.label_actions and not code.discrete:
            raise ValueError(
                f"supervise: action needs opponents with Discrete actions, got {code.space}; "
                "use supervise: type or none"
            )
        flat = gym.spaces.flatten_space(space)
        if not isinstance(flat, gym.spaces.Box):
            raise ValueError(f"observations: got {space}, expected a space that can be flattened to a vector")
        size = int(np.prod(flat.shape))
        history = OpponentHistory(self.options, len(opponents), code.size, size)
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
        parts: dict[str, gym.Space] = {STATE: gym.spaces.Box(low, high, (size,), np.float32)}
        if history.size:
            parts[OPPONENT] = _unbounded(len(opponents), history.size)
        if self.options.window:
            parts[HISTORY] = _unbounded(len(opponents), self.options.window, history.entry_size)
        if isinstance(space, gym.spaces.Dict) and space.spaces.keys() == parts.keys():
            raise ValueError(f"observations: got {space}, whose keys this connector uses itself; rename one")
        return _Learner(space, opponents, code, history, gym.spaces.Dict(parts))

    # The step ---------------------------------------------------------------------------------------------

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        todo: dict[str | None, list[tuple[Any, Any]]] = {}  # learner -> (its episode, the joint one or None)
        for episode in episodes:
            if isinstance(episode, MultiAgentEpisode):
                for agent, own in episode.agent_episodes.items():
                    if agent in self._learners and self._learners[agent].waits(own):
                        todo.setdefault(agent, []).append((own, episode))
            elif self._learners[None].waits(episode):
                todo.setdefault(None, []).append((episode, None))
        for agent, parts in todo.items():
            self._write(agent, self._learners[agent], parts)
        return batch

    def _write(self, agent: str | None, learner: _Learner, parts: list[tuple[Any, Any]]) -> None:
        history = learner.history
        rows = [self._row(agent, own, joint) for own, joint in parts]
        fresh = [i for i, (own, _) in enumerate(parts) if own.t == 0 or rows[i] not in self._times]
        for i in fresh:
            self._heard[rows[i]] = {}
            self._times.pop(rows[i], None)
        stepped = [
            i
            for i, (own, joint) in enumerate(parts)
            if (rows[i] in self._times and self._times[rows[i]] < own.t)
            or (
                joint is not None
                and rows[i] not in self._times
                and (not self.options.needs_events or MOVES in own.infos.data[-1])
                and _moved_first(learner, joint)
            )
        ]
        where = np.array(rows)
        history.reset(where[fresh])
        if stepped:
            self._update(learner, where[stepped], [parts[i] for i in stepped])
        states = learner.states([own.observations.data[-1] for own, _ in parts])
        history.observe(where, states)
        columns: dict[str, Any] = {STATE: states}
        if history.size:
            columns[OPPONENT] = history.features(where)
        if self.options.window:
            columns[HISTORY] = history.windows(where)
        if self.placebo is not None:
            self.placebo.exchange(where, columns)
        for i in fresh:
            parts[i][0].observation_space = learner.out
        names = list(columns)
        for i, (values, (own, joint)) in enumerate(
            zip(zip(*columns.values(), strict=True), parts, strict=True)
        ):
            own.observations.data[-1] = dict(zip(names, values, strict=True))
            self._times[rows[i]] = own.t
            if self.label_types:
                self._types[rows[i]] = self._type_of(own, joint)
            if own.is_done:
                self._release(own if joint is None else joint, agent)

    def _row(self, agent: str | None, own: Any, joint: Any) -> int:
        key = ((own if joint is None else joint).id_, agent)
        row = self._rows.get(key)
        if row is None:
            if not self._free and len(self._rows) >= MAX_ROWS:  # of episodes that were dropped halfway
                for old in list(self._rows)[: MAX_ROWS // 2]:
                    self._forget(old)
            row = self._rows[key] = self._free.pop() if self._free else len(self._rows)
        return row

    def _release(self, episode: Any, agent: str | None) -> None:
        self._forget((episode.id_, agent))

    def _forget(self, key: tuple[str, str | None]) -> None:
        row = self._rows.pop(key)
        self._free.append(row)
        for notes in (self._times, self._types, self._heard):
            notes.pop(row, None)

    def _update(self, learner: _Learner, rows: np.ndarray, parts: list[tuple[Any, Any]]) -> None:
        """Add the step that led to the newest observation of each episode."""
        count, m = len(parts), len(learner.opponents)
        infos = [own.infos.data[-1] for own, _ in parts]
        taken = [
            self._taken(learner, int(row), joint) if joint is not None else self._told(learner, info, own)
            for row, info, (own, joint) in zip(rows, infos, parts, strict=True)
        ]
        flat = [action for actions in taken for action in actions]
        actions = learner.code.encode(flat).reshape(count, m, -1)
        seen = np.array([action is not None for action in flat]).reshape(count, m)
        moves = lost = None
        if self.options.needs_events:
            moves = np.stack(
                [self._event(info, MOVES, own) for info, (own, _) in zip(infos, parts, strict=True)]
            )
            moves = moves.reshape(count, m, 1 + STATISTICS).astype(np.float32)
            lost = np.array(
                [self._event(info, LOST, own) for info, (own, _) in zip(infos, parts, strict=True)]
            )
        learner.history.update(rows, actions, seen, moves=moves, lost=lost)
        if self.label_actions or self.label_types:
            for row, (own, _), info, actions_taken in zip(rows, parts, infos, taken, strict=True):
                if int(row) not in self._times:
                    continue  # before the learner's first observation
                labels: dict[str, Any] = dict(info)
                if self.label_actions:
                    labels[ACTION_LABEL] = np.array([learner.code.index(a) for a in actions_taken])
                if self.label_types:
                    labels[TYPE_LABEL] = np.broadcast_to(np.asarray(self._types[int(row)]), (m,)).astype(
                        np.int64
                    )
                own.infos.data[-1] = labels

    def _told(self, learner: _Learner, info: Mapping[str, Any], episode: Any) -> list[Any]:
        """What a single-agent environment says its opponents did."""
        if ACTION not in info:
            raise EnvError(
                f"step {episode.t}: infos has {sorted(info)}, expected {ACTION!r}: this environment shows no "
                "opponent to model; use one with opponents (multi-agent, or one that tells their actions), "
                "or algorithm: DQN"
            )
        action = info[ACTION]
        if len(learner.opponents) == 1:
            return [action]
        if len(action) != len(learner.opponents):
            raise EnvError(
                f"step {episode.t}: infos[{ACTION!r}] has {len(action)} actions, expected one for each of "
                f"{learner.opponents}"
            )
        return list(action)

    def _taken(self, learner: _Learner, row: int, episode: Any) -> list[Any]:
        """What each opponent did since this learner's last observation; None if it did not act."""
        heard = self._heard.setdefault(row, {})
        hanging = rllib.hanging_actions(episode)
        taken: list[Any] = []
        for opponent in learner.opponents:
            own = episode.agent_episodes.get(opponent)
            times = (own.t if own is not None else 0) + (opponent in hanging)
            if times <= heard.get(opponent, 0):
                taken.append(None)
                continue
            heard[opponent] = times
            taken.append(hanging[opponent] if opponent in hanging else own.actions.data[-1])
        return taken

    def _event(self, info: Mapping[str, Any], key: str, episode: Any) -> Any:
        if key not in info:
            without = [
                name for name in ("last_action", "clock", "frequencies") if name in self.options.features
            ]
            raise EnvError(
                f"step {episode.t}: infos has {sorted(info)}, expected {key!r} for the features "
                f"{list(self.options.needs_events)}; leave those out: features: {without}"
            )
        return info[key]

    def _type_of(self, own: Any, joint: Any) -> Any:
        info = own.infos.data[-1]
        if TYPE not in info:
            who = f"agent {own.agent_id!r}, " if joint is not None else ""
            raise EnvError(
                f"{who}step {own.t}: infos has {sorted(info)}, expected {TYPE!r}, the label of supervise: type; "
                "let the environment put it there, or use supervise: action or none"
            )
        return info[TYPE]


def _moved_first(learner: _Learner, joint: MultiAgentEpisode) -> bool:
    """Whether opponents have acted before the learner's first observation, as in turn-based games."""
    hanging = rllib.hanging_actions(joint)
    return any(
        o in hanging or (o in joint.agent_episodes and joint.agent_episodes[o].t) for o in learner.opponents
    )


class Placebo:
    """Gives each row the columns of another episode, drawn from those seen lately; zeros if there is none."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.seen: dict[str, np.ndarray] = {}
        self.owners = np.full(POOL, -1)
        self.filled = self.next = 0

    def exchange(self, rows: np.ndarray, columns: dict[str, Any]) -> None:
        """Replace all columns but the state in place."""
        draws = self.rng.integers(max(self.filled, 1), size=(4, len(rows)))
        others = self.owners[draws] != rows
        pick = np.take_along_axis(draws, others.argmax(axis=0)[None], axis=0)[0]
        found = others.any(axis=0) & (self.filled > 0)
        put = (self.next + np.arange(len(rows))) % POOL
        for name in set(columns) - {STATE}:
            own = columns[name]
            pool = self.seen.setdefault(name, np.zeros((POOL, *own.shape[1:]), np.float32))
            columns[name] = np.where(found.reshape(-1, *(1,) * (own.ndim - 1)), pool[pick], 0).astype(
                np.float32
            )
            pool[put] = own
        self.owners[put] = rows
        self.next = int((self.next + len(rows)) % POOL)
        self.filled = min(self.filled + len(rows), POOL)


def _by_agent(observations: gym.Space, actions: gym.Space) -> bool:
    """Whether spaces are those of several agents: both Dicts, with the same keys."""
    dicts = isinstance(observations, gym.spaces.Dict) and isinstance(actions, gym.spaces.Dict)
    return dicts and set(observations.spaces) == set(actions.spaces)


def _unbounded(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def _shown(opponents: Opponents) -> Any:
    return dict(opponents) if isinstance(opponents, Mapping) else list(opponents)
