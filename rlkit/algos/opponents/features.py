"""The connector that shows a learner its opponents: observations become `{state, opponent, history}`.

It stands in the env-to-module pipeline and writes into the episodes, so that the module that acts, the replay
buffer and the learner get the same arrays. It works with any RLlib algorithm and env runner:

    config.env_runners(env_to_module_connector=lambda env, spaces, device: OpponentFeatures())

Where opponents' actions come from:
- multi-agent: the episode itself. Learners and opponents are agents of the environment.
- single-agent: `infos["opponent_action"]` of each step, an action, or a list of them for several opponents.
Events beside actions (`infos["opponent_moves"]`, `infos["ball_lost"]`, see `rlkit.envs.soccer`) are needed
for three of the features. `infos["opponent_type"]` is read for the type label alone.

Labels for supervision go the other way, into `infos`, never into observations: the step that follows the observation
at time t carries `dron_action`, what the opponents did at time t, and `dron_type`, their type then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rlkit import rllib
from rlkit.algos.opponents.graph import OpponentGraph
from rlkit.algos.opponents.history import ActionCode, FeatureOptions
from rlkit.algos.opponents.inputs import MOVES, UNKNOWN, LearnerInputs, Placebo
from rlkit.roster import matches, module_space

Opponents = Sequence[str] | Mapping[str, Sequence[str]]

MAX_ROWS = 8192


def opponents_of(agent: str, agents: Sequence[str], opponents: Opponents) -> list[str]:
    """Return which agents `agent` models, in the environment's order.

    Args:
        opponents: globs of the modelled agents, for everybody else; or {glob of learners: globs of opponents}.
    """
    if isinstance(opponents, Mapping):
        globs = [g for learner, gs in opponents.items() if matches(agent, [learner]) for g in gs]
    else:
        globs = list(opponents)
    return [o for o in agents if o != agent and matches(o, globs)]


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

    watches_others = True  # its inputs depend on agents that another policy may play

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
        self._learners: dict[str | None, LearnerInputs] = {}
        self._rows: dict[tuple[str, str | None], int] = {}  # (episode, agent) -> row
        self._free: list[int] = []
        self._times: dict[int, int] = {}  # row -> time of its last observation
        self._types: dict[int, Any] = {}
        self._heard: dict[int, dict[str, int]] = {}  # row -> opponent -> actions heard so far
        super().__init__(input_observation_space, input_action_space, **options, **kwargs)

    def seed_stream(self, rng: np.random.Generator) -> None:
        """Draw from the stream of an env runner (`rlkit.rllib.seeding`)."""
        if self.placebo is not None:
            self.placebo.rng = rng

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

    def _alone(self, space: gym.Space, actions: gym.Space) -> LearnerInputs:
        names = [] if isinstance(self.opponents, Mapping) else list(self.opponents)
        if not names or any(c in name for name in names for c in "*?["):
            names = ["opponent"]
        opponent = actions if self.opponent_actions is None else gym.spaces.Discrete(self.opponent_actions)
        return self._build(space, actions, names, ActionCode(opponent))

    def _learner(self, agent: str, space: gym.Space, opponents: list[str], actions: Any) -> LearnerInputs:
        codes = {o: ActionCode(module_space(actions[o])) for o in opponents}  # what episodes hold
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
        return self._build(space, actions[agent], opponents, code)

    def _build(
        self, space: gym.Space, actions: gym.Space, opponents: list[str], code: ActionCode
    ) -> LearnerInputs:
        return LearnerInputs(
            space, actions, opponents, code, self.options, label_actions=self.label_actions,
            label_types=self.label_types, placebo=self.placebo,
        )  # fmt: skip

    def check_infos(self, agent: str | None, info: Mapping[str, Any], t: int) -> None:
        """Look whether an info of a step that `agent` made (None: the only one) tells what its features need.

        Raises:
            EnvError: names what is missing.
        """
        if agent in self._learners:
            self._learners[agent].check(info, t, alone=agent is None)

    def arrays(self, num_envs: int) -> OpponentArrays | None:
        """Return the columnar twin of a single-agent environment's (`rlkit.algos.sampling.connectors`)."""
        return OpponentArrays(self._learners[None].anew(), num_envs) if None in self._learners else None

    def graph(self, agent: str | None) -> OpponentGraph | None:
        """Return the same on tensors (`rlkit.algos.sampling.graph`); None for an agent that models nobody."""
        learner = self._learners.get(agent)
        return None if learner is None else OpponentGraph(learner, moves_first=agent is not None)

    # The step ---------------------------------------------------------------------------------------------

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        todo: dict[str | None, list[tuple[Any, Any]]] = {}  # learner -> (its episode, the joint one or None)
        for episode in episodes:
            if isinstance(episode, MultiAgentEpisode):
                for agent, own in episode.agent_episodes.items():
                    if agent not in self._learners:
                        continue
                    if _waits(own, self._learners[agent]):
                        todo.setdefault(agent, []).append((own, episode))
                    elif own.is_done:
                        self._end_unobserved(self._learners[agent], own, (episode.id_, agent))
            elif _waits(episode, self._learners[None]):
                todo.setdefault(None, []).append((episode, None))
        for agent, parts in todo.items():
            self._write(agent, self._learners[agent], parts)
        return batch

    def _write(self, agent: str | None, learner: LearnerInputs, parts: list[tuple[Any, Any]]) -> None:
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
        learner.begin(where[fresh])
        if stepped:
            self._update(learner, where[stepped], [parts[i] for i in stepped])
        columns = learner.columns(where, [own.observations.data[-1] for own, _ in parts])
        for i in fresh:
            parts[i][0].observation_space = learner.out
        names = list(columns)
        for i, (values, (own, joint)) in enumerate(
            zip(zip(*columns.values(), strict=True), parts, strict=True)
        ):
            own.observations.data[-1] = dict(zip(names, values, strict=True))
            self._times[rows[i]] = own.t
            if self.label_types:
                agent_id = None if joint is None else own.agent_id
                self._types[rows[i]] = learner.type_in(own.infos.data[-1], own.t, agent_id)
            if own.is_done:
                self._release(own if joint is None else joint, agent)

    def _end_unobserved(self, learner: LearnerInputs, own: Any, key: tuple[str, str | None]) -> None:
        """The step of an agent that ended without a last observation has labels too: nobody saw what was done."""
        if key in self._rows:
            kind = self._types.get(self._rows[key], UNKNOWN)
            own.infos.data[-1] = learner.labelled(own.infos.data[-1], [None] * len(learner.opponents), kind)
            self._forget(key)

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

    def _update(self, learner: LearnerInputs, rows: np.ndarray, parts: list[tuple[Any, Any]]) -> None:
        """Add the step that led to the newest observation of each episode."""
        infos = [own.infos.data[-1] for own, _ in parts]
        taken = [
            learner.told(info, own.t) if joint is None else self._taken(learner, int(row), joint)
            for row, info, (own, joint) in zip(rows, infos, parts, strict=True)
        ]
        learner.step(rows, infos, taken, [own.t for own, _ in parts])
        if learner.labels:
            for row, (own, _), info, actions in zip(rows.tolist(), parts, infos, taken, strict=True):
                if row in self._times:  # else before the learner's first observation
                    own.infos.data[-1] = learner.labelled(info, actions, self._types.get(row))

    def _taken(self, learner: LearnerInputs, row: int, episode: Any) -> list[Any]:
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


class OpponentArrays:
    """`OpponentFeatures` of N single-agent environments at once.

    Args:
        inputs: what the learner sees, with a history of its own.
        num_envs: N.
    """

    def __init__(self, inputs: LearnerInputs, num_envs: int):
        self.inputs = inputs
        self.rows = np.arange(num_envs)
        self.types: list[Any] = [None] * num_envs

    def __call__(
        self, observations: Any, infos: list[Any], fresh: np.ndarray, times: np.ndarray
    ) -> tuple[Any, list[Any]]:
        """Add the steps that were just made to the histories; return what the module sees, and labelled infos."""
        inputs = self.inputs
        inputs.begin(np.flatnonzero(fresh))
        stepped = np.flatnonzero(~fresh)
        labelled = list(infos)
        if len(stepped):
            told, at = [infos[row] for row in stepped], times[stepped].tolist()
            taken = [inputs.told(info, t) for info, t in zip(told, at, strict=True)]
            inputs.step(stepped, told, taken, at)
            if inputs.labels:
                for row, info, acted in zip(stepped.tolist(), told, taken, strict=True):
                    labelled[row] = inputs.labelled(info, acted, self.types[row])
        columns = inputs.columns(self.rows, observations)
        if inputs.label_types:
            self.types = [inputs.type_in(info, int(t)) for info, t in zip(labelled, times, strict=True)]
        return columns, labelled


def _moved_first(learner: LearnerInputs, joint: MultiAgentEpisode) -> bool:
    """Whether opponents have acted before the learner's first observation, as in turn-based games."""
    hanging = rllib.hanging_actions(joint)
    return any(
        o in hanging or (o in joint.agent_episodes and joint.agent_episodes[o].t) for o in learner.opponents
    )


def _waits(episode: Any, learner: LearnerInputs) -> bool:
    """Whether the newest observation is the environment's own (an agent that did not step has none)."""
    data = episode.observations.data
    return bool(data) and not (isinstance(data[-1], dict) and data[-1].keys() == learner.out.spaces.keys())


def _by_agent(observations: gym.Space, actions: gym.Space) -> bool:
    """Whether spaces are those of several agents: both Dicts, with the same keys."""
    dicts = isinstance(observations, gym.spaces.Dict) and isinstance(actions, gym.spaces.Dict)
    return dicts and set(observations.spaces) == set(actions.spaces)


def _shown(opponents: Opponents) -> Any:
    return dict(opponents) if isinstance(opponents, Mapping) else list(opponents)
