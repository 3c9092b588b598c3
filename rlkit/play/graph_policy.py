"""A policy made of graphs, from a bundle or an ONNX file: acts like the checkpoint it came from. Imports no ray.

A `Member` is one agent's graph with the names of its inputs and outputs; `GraphPolicy` keeps what each episode has
seen, fills the inputs, and has the methods of `rlkit.play.policy.Policy`. What inputs mean that are neither
observation, state nor noise, their `feed` says:

    DRON's features       {"kind": "opponents", "opponents": […], "discrete": true, "size": 5, "start": 0,
                           "alone": true, "events": false}
    MADDPG's ensembles    {"kind": "sub_policy", "team": "…", "size": 3}

Legend: B rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.algos.sampling.actions import ActionMap
from rlkit.errors import UsageError
from rlkit.play.answers import ALONE, Answer
from rlkit.roster import flat

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: see `rlkit.play.export.graph`.

    Attributes:
        name: without the agent.
        role: obs, state, noise or given; action, state or output.
        shape: without B.
        dtype: numpy's name.
        note: of noise: its distribution, uniform (0 to 1) or normal.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    note: str = ""


@dataclass(frozen=True)
class Graph:
    """What runs, and its ports.

    Attributes:
        run: arrays (B, ...) by input name -> by output name.
        inputs, outputs: in the graph's order.
    """

    run: Run
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Member:
    """One agent: whom it is played by, what it sees and does.

    Attributes:
        module: id of the module.
        greedy, sampled: its graphs; None for one that was not exported.
        feeds: of the inputs that a connector needs.
    """

    module: str
    observation_space: gym.Space
    action_space: gym.Space
    greedy: Graph | None
    sampled: Graph | None
    feeds: tuple[Mapping[str, Any], ...] = ()


@dataclass
class Module:
    """What stands for an RLModule in `Agent.modules`: only its Q-values are known, where it has them."""

    name: str
    inference_only: bool = True

    def is_stateful(self) -> bool:
        return False


class QModule(Module):
    """A module whose graph puts out Q-values."""

    def compute_q_values(self, batch: Any) -> Any:
        raise UsageError(f"module {self.name!r} is a graph; ask the agent: agent.q_values(observation)")


@dataclass
class _Memory:
    """An episode: what waits for an action, the states, what opponents have done since, and the first step's flags."""

    name: str
    observations: dict[Any, Any] = field(default_factory=dict)
    infos: dict[Any, Any] = field(default_factory=dict)
    states: dict[Any, Arrays] = field(default_factory=dict)
    heard: dict[Any, dict[str, Any]] = field(default_factory=dict)
    acted: dict[Any, Any] = field(default_factory=dict)


class GraphPolicy:
    """The agents of a bundle or file.

    Args:
        members: agent -> its member; `ALONE` in an environment with one agent.
        observation_space, action_space: of the environment, Dicts by agent where there are several.
        env_steps: environment steps trained.
        normalized: whether Box actions were scaled from a module's [-1, 1].
    """

    def __init__(
        self,
        members: Mapping[Any, Member],
        observation_space: gym.Space,
        action_space: gym.Space,
        env_steps: int = 0,
        normalized: bool = True,
    ):
        self.members, self.env_steps = dict(members), env_steps
        self._maps = {agent: ActionMap(m.action_space, normalized, True) for agent, m in self.members.items()}
        self.observation_space, self.action_space = observation_space, action_space
        self.multi_agent = ALONE not in self.members
        self.modules: dict[str, Any] = {}
        for member in self.members.values():
            graph = member.greedy or member.sampled
            q = graph is not None and any(port.name == "q_values" for port in graph.outputs)
            module = QModule(member.module, inference_only=False) if q else Module(member.module)
            self.modules[member.module] = module

    @property
    def memoryless(self) -> bool:
        """Whether an action depends on the latest observation alone."""
        graphs = (g for m in self.members.values() for g in (m.greedy, m.sampled) if g is not None)
        fed = any(member.feeds for member in self.members.values())
        return not fed and not any(port.role == "state" for graph in graphs for port in graph.inputs)

    def action_map(self, agent: Any) -> ActionMap:
        """Return what turns an action of the environment into the module's: an index from 0, numbers in [-1, 1]."""
        return self._maps[agent]

    @property
    def watches_others(self) -> bool:
        """Whether the actions of other agents are among its inputs."""
        return any(member.feeds for member in self.members.values())

    def hear(self, memory: _Memory, actions: Mapping[Any, Any]) -> None:
        """Tell which actions agents that others play took in this step, as a module puts them out."""
        memory.acted |= actions

    def begin(self, name: str, data: Mapping[str, Any] | None = None) -> _Memory:
        """Return the memory of a new episode; which sub-policy of an ensemble plays follows from its name."""
        return _Memory(name, heard={agent: {} for agent, member in self.members.items() if member.feeds})

    def see(
        self,
        memory: _Memory,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        """Tell what `reset` (the first call) or `step` returned; multi-agent: the environment's dicts."""
        for agent, action in memory.acted.items():
            for heard in memory.heard.values():
                heard[str(agent)] = action
        memory.acted = {}
        if not self.multi_agent:
            memory.observations, memory.infos = {ALONE: observation}, {ALONE: info or {}}
            return
        flags = [f for f in (terminated, truncated) if isinstance(f, Mapping)]
        memory.observations = {a: o for a, o in observation.items() if not any(f.get(a) for f in flags)}
        memory.infos = dict(info or {})

    def act(
        self,
        memories: Sequence[_Memory],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        """Answer the latest observation of each episode: see `rlkit.play.policy.Policy.act`."""
        groups: dict[int, tuple[Graph, list[tuple[int, Any]]]] = {}
        for index, memory in enumerate(memories):
            for agent in memory.observations:
                graph = self._graph(agent, explore)
                groups.setdefault(id(graph), (graph, []))[1].append((index, agent))
        answers = [Answer() for _ in memories]
        for graph, where in groups.values():
            outs = _in_blocks(graph.run, self._inputs(graph, memories, where), block)
            actions = [(port.name, outs[port.name]) for port in graph.outputs if port.role == "action"]
            states = {
                port.name.removeprefix("next_"): outs[port.name]
                for port in graph.outputs
                if port.role == "state"
            }
            for row, (index, agent) in enumerate(where):
                space = self.members[agent].action_space
                action = _nested(space, iter([values[row] for _, values in actions]))
                answers[index].actions[agent] = action
                if self.multi_agent:  # what opponents hear, and episodes hold
                    own = self._maps[agent].back(action)
                    answers[index].module_actions[agent] = memories[index].acted[agent] = own
                memories[index].states[agent] = {name: values[row] for name, values in states.items()}
                if q_values and "q_values" in outs:
                    answers[index].q_values[agent] = outs["q_values"][row]
        return answers

    def _graph(self, agent: Any, explore: bool) -> Graph:
        member = self.members.get(agent)
        if member is None:
            raise UsageError(f"unknown agent {agent!r}; agents: {list(self.members)}")
        graph = member.sampled if explore else member.greedy
        if graph is None:
            had = "greedy" if explore else "sampled"
            raise UsageError(
                f"this file holds the {had} choice alone; export the other one, or a bundle with both"
            )
        return graph

    def _inputs(self, graph: Graph, memories: Sequence[_Memory], where: Sequence[tuple[int, Any]]) -> Arrays:
        """Return the inputs of a graph, (B, ...) each."""
        columns: dict[str, list[Any]] = {port.name: [] for port in graph.inputs if port.role != "noise"}
        zeros = {
            port.name: np.zeros(port.shape, port.dtype)
            for port in graph.inputs
            if port.role in ("state", "given")
        }
        for index, agent in where:
            memory, member = memories[index], self.members[agent]
            parts = iter(flat(member.observation_space, memory.observations[agent]))
            given = {} if not member.feeds else self._given(member, memory, agent)
            states = memory.states.get(agent, {})
            for port in graph.inputs:
                if port.role == "obs":
                    columns[port.name].append(next(parts))
                elif port.role == "state":
                    columns[port.name].append(states.get(port.name, zeros[port.name]))
                elif port.role == "given":
                    columns[port.name].append(given.get(port.name, zeros[port.name]))
        filled = {
            port.name: np.asarray(columns[port.name], port.dtype)
            if port.role != "noise"
            else self._noise(port, len(where))
            for port in graph.inputs
        }
        return {name: np.ascontiguousarray(values) for name, values in filled.items()}

    def _noise(self, port: Port, rows: int) -> np.ndarray:
        """Draw from numpy's global generator, which evaluations seed per episode."""
        draw = np.random.random_sample if port.note == "uniform" else np.random.standard_normal
        return draw((rows, *port.shape)).astype(port.dtype)

    def _given(self, member: Member, memory: _Memory, agent: Any) -> dict[str, Any]:
        """Return what an agent's connectors need beside its observation."""
        found: dict[str, Any] = {}
        for feed in member.feeds:
            if feed["kind"] == "sub_policy":
                found["sub_policy"] = zlib.crc32(f"{memory.name}/{feed['team']}".encode()) % int(feed["size"])
            else:
                found |= _opponents(feed, memory, agent, begun=agent in memory.states)
        return found


def _opponents(feed: Mapping[str, Any], memory: _Memory, agent: Any, begun: bool) -> dict[str, Any]:
    """Return what the opponents of an agent have done since its last observation: see `rlkit.algos.opponents.graph`."""
    names, info = list(feed["opponents"]), memory.infos.get(agent) or {}
    if feed["alone"]:
        if not begun:
            return {}
        told = info.get("opponent_action")
        if told is None:
            raise UsageError(
                f"infos has {sorted(info)}, expected 'opponent_action': give what the environment returned beside the "
                "observation, agent.act(observation, info=info)"
            )
        taken = [told] if len(names) == 1 else list(told)
    else:
        heard = memory.heard[agent]
        taken = [heard.pop(name, None) for name in names]
        heard.clear()
    found: dict[str, Any] = {"opponent_seen": [action is not None for action in taken]}
    like = next((np.asarray(action) for action in taken if action is not None), None)
    if like is None:
        return {}
    blank = np.zeros_like(like)
    rows = [blank if action is None else np.asarray(action) for action in taken]
    found["opponent_action"] = [row - int(feed["start"]) for row in rows] if feed["discrete"] else [
        row.reshape(-1) for row in rows
    ]  # fmt: skip
    if feed["events"]:
        if "opponent_moves" not in info:
            if begun:
                raise UsageError(
                    f"infos has {sorted(info)}, expected 'opponent_moves' and 'ball_lost' for the features"
                )
            return {}
        moves = np.asarray(info["opponent_moves"], np.float32)
        found |= {"opponent_moves": moves.reshape(len(names), -1), "ball_lost": info["ball_lost"]}
    return found


def _in_blocks(run: Run, inputs: Arrays, block: int | None) -> Arrays:
    """Call `run` on every `block` rows, the last ones padded with a copy; join the outputs."""
    rows = len(next(iter(inputs.values())))
    if block is None or rows == block:
        return run(inputs)
    outs: list[Arrays] = []
    for start in range(0, rows, block):
        part = {name: values[start : start + block] for name, values in inputs.items()}
        count = min(block, rows - start)
        if count < block:
            part = {n: np.concatenate([v, np.repeat(v[:1], block - count, axis=0)]) for n, v in part.items()}
        outs.append({name: values[:count] for name, values in run(part).items()})
    return {name: np.concatenate([out[name] for out in outs]) for name in outs[0]}


def _nested(space: gym.Space, leaves: Any) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _nested(part, leaves) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_nested(part, leaves) for part in space.spaces)
    value = next(leaves)
    # Gymnasium takes an array without dimensions for an element of such a Box, and a number only with a warning
    return np.asarray(value) if isinstance(space, gym.spaces.Box) and not space.shape else value
