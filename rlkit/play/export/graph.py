"""One agent's whole way from an observation to an action as a torch module, with named inputs and outputs.

    observation, what connectors need, noise, state  ->  action, what it was chosen by, next state

Everything stands in the graph: connectors (`rlkit.algos.sampling.graph`), mask, recurrent state, the choice
(`rlkit.play.export.choosing`) and the scaling to the environment's space. All tensors have a first dimension B of rows,
which may be any number. Names are those of a file's inputs and outputs, behind `<agent>/` where there are several:

    obs, obs/<key>          an observation, leaf by leaf for Dict and Tuple
    state/<name>            zeros when an episode begins, else what came out as next_state/<name>
    noise                   for sampled actions
    <name>                  of a connector: see `Piece.inputs`
    action, action/<key>    for the environment
    q_values, action_dist_inputs

Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch import nn

from rlkit.algos.sampling import acting
from rlkit.algos.sampling.connectors import ACTING, extras
from rlkit.algos.sampling.graph import Piece, Tensor, as_module_input, leaves, nest, pieces_of
from rlkit.errors import UsageError
from rlkit.play.export.choosing import Choosing, ForEnv
from rlkit.play.policy import Policy
from rlkit.roster import flat

OBS, STATE, NOISE, GIVEN, ACTION, OUTPUT = "obs", "state", "noise", "given", "action", "output"


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: see above, without the agent.
        role: obs, state, noise or given (what a connector needs); action, state or output.
        tensor: without B.
        note: of noise: its distribution.
    """

    name: str
    role: str
    tensor: Tensor
    note: str = ""

    def zeros(self, rows: int) -> torch.Tensor:
        return torch.zeros(rows, *self.tensor.shape, dtype=self.tensor.torch_dtype)


class AgentGraph(nn.Module):
    """The graph of one agent, or of all that share a module, spaces and connectors.

    Args:
        policy: of the checkpoint.
        agent: its id; None in an environment with one agent.
        sample: actions are drawn by the input `noise`, else greedy.

    Attributes:
        module_id: which module it plays.
        normalized: whether Box actions are scaled from the module's [-1, 1].
        inputs, outputs: in the order of `forward`.

    Raises:
        UsageError: a part that cannot be exported; names it.
    """

    def __init__(self, policy: Policy, agent: Any, sample: bool):
        super().__init__()
        self.agent, self.sample, self.normalized = agent, sample, policy.normalized
        self.module_id = module_of(policy, agent)
        module = policy.modules[self.module_id]
        if extras(policy.module_to_env, ACTING, policy.multi_agent) != []:
            names = [type(piece).__name__ for piece in policy.module_to_env.connectors]
            raise UsageError(
                f"the module-to-env pipeline {names} has connectors of its own and cannot be exported"
            )
        observation, action = policy.observation_space, policy.action_space
        self.observation_space: gym.Space = observation if agent is None else observation[agent]
        self.action_space: gym.Space = action if agent is None else action[agent]
        self.pieces = nn.ModuleList(pieces_of(policy.env_to_module, agent, policy.multi_agent))
        self.choosing = Choosing(module, sample, policy.schedule_steps if sample else 0)
        self.for_env = ForEnv(policy.action_map(agent))
        self.stateful = module.is_stateful()
        self.first_state = acting.initial_state(module) if self.stateful else {}
        if any(bool(value.any()) for _, value in _named(self.first_state)):
            raise UsageError(
                f"module {self.module_id!r} begins an episode with a state that is not zero, which a graph cannot "
                "know; let get_initial_state return zeros"
            )
        self.inputs = self._inputs()
        self.outputs = self._outputs()

    def _inputs(self) -> list[Port]:
        ports = [
            Port("/".join((OBS, *path)), OBS, Tensor.of(space))
            for path, space in leaves(self.observation_space)
        ]
        for piece in self.pieces:
            ports += [Port(name, GIVEN, tensor) for name, tensor in piece.inputs.items()]
        if self.choosing.noise is not None:
            kind, width = self.choosing.noise
            ports.append(Port(NOISE, NOISE, Tensor((width,)), kind))
        return ports + self._states()

    def _states(self) -> list[Port]:
        ports = [
            Port(
                f"{STATE}/{name}", STATE, Tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."))
            )
            for name, value in _named(self.first_state)
        ]
        for piece in self.pieces:
            ports += [Port(f"{STATE}/{name}", STATE, tensor) for name, tensor in piece.state.items()]
        return ports

    def _outputs(self) -> list[Port]:
        """Run the graph once on zeros, to learn what comes out."""
        outs = self(*(port.zeros(2) for port in self.inputs))
        ports = [
            Port("/".join((ACTION, *path)), ACTION, Tensor.of(space))
            for path, space in leaves(self.action_space)
        ]
        states = self._states()
        if len(outs) > len(ports) + len(states):
            name = self.choosing.output_name
            ports.append(Port(name, OUTPUT, Tensor(tuple(outs[len(ports)].shape[1:]))))
        return ports + [Port(f"next_{p.name}", p.role, p.tensor) for p in states]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for the inputs, both in their order."""
        given = dict(zip((port.name for port in self.inputs), tensors, strict=True))
        observed = iter(value for name, value in given.items() if name.split("/")[0] == OBS)
        batch: dict[str, Any] = {Columns.OBS: nest(self.observation_space, observed)}
        states: list[torch.Tensor] = []
        for piece in self.pieces:
            batch, after = self._through(piece, batch, given)
            states += after.values()
        batch[Columns.OBS] = as_module_input(batch[Columns.OBS])
        if self.stateful:
            batch[Columns.OBS] = acting.with_time(batch[Columns.OBS])
            batch[Columns.STATE_IN] = _filled(self.first_state, given)
        chosen, numbers, state = self.choosing(batch, given.get(NOISE))
        own = [dict(_named(state))[name] for name, _ in _named(self.first_state)]
        actions = flat(self.action_space, self.for_env(chosen))
        return (*actions, *([] if numbers is None else [numbers]), *own, *states)

    @staticmethod
    def _through(
        piece: Any, batch: dict[str, Any], given: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        assert isinstance(piece, Piece)
        before = {name: given[f"{STATE}/{name}"] for name in piece.state}
        batch, after = piece(batch, {name: given[name] for name in piece.inputs}, before)
        return batch, {name: after[name] for name in piece.state}


def module_of(policy: Policy, agent: Any) -> str:
    """Return the module that plays an agent.

    Raises:
        UsageError: the mapping looks at the episode, or has no such module.
    """
    if policy.mapping is None:
        return DEFAULT_MODULE_ID
    try:
        module_id = policy.mapping(agent, None)
    except Exception as error:
        raise UsageError(
            f"which module plays agent {agent!r} depends on the episode ({type(error).__name__}: {error}); an export "
            "needs a policy_mapping_fn that reads the agent's id alone"
        ) from error
    if module_id not in policy.modules:
        raise UsageError(f"agent {agent!r} is played by {module_id!r}, which the checkpoint lacks")
    return module_id


def graphs_of(policy: Policy, sample: bool) -> dict[Any, AgentGraph]:
    """Return the graph of each agent, in the order of their spaces.

    Raises:
        UsageError: see `AgentGraph`; modules that act jointly.
    """
    if policy.acts_jointly:
        raise UsageError(
            f"{type(policy.modules).__name__} lets modules see each other's batches and has no export"
        )
    if not policy.multi_agent:
        return {None: AgentGraph(policy, None, sample)}
    spaces: Any = policy.observation_space
    return {agent: AgentGraph(policy, agent, sample) for agent in spaces.spaces}


class Team(nn.Module):
    """The graphs of all agents side by side: inputs and outputs of the first, then of the next."""

    def __init__(self, graphs: Mapping[Any, AgentGraph]):
        super().__init__()
        self.graphs = nn.ModuleList(graphs.values())
        several = len(graphs) > 1 or None not in graphs
        self.inputs = [(_full(agent, p, several), p) for agent, g in graphs.items() for p in g.inputs]
        self.outputs = [(_full(agent, p, several), p) for agent, g in graphs.items() for p in g.outputs]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest, outs = list(tensors), []
        for graph in self.graphs:
            count = len(graph.inputs)
            outs += graph(*rest[:count])
            rest = rest[count:]
        return tuple(outs)


def _full(agent: Any, port: Port, several: bool) -> str:
    return f"{agent}/{port.name}" if several else port.name


def _named(tree: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """Return name and tensor of every leaf of nested dicts and tuples."""
    if torch.is_tensor(tree):
        return [(path, tree)]
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return [leaf for key, part in items for leaf in _named(part, f"{path}/{key}" if path else str(key))]


def _filled(tree: Any, given: Mapping[str, torch.Tensor], path: str = STATE) -> Any:
    """Return nested dicts and tuples with the given tensors in the place of their own."""
    if torch.is_tensor(tree):
        return given[path]
    if isinstance(tree, Mapping):
        return {key: _filled(part, given, f"{path}/{key}") for key, part in tree.items()}
    return tuple(_filled(part, given, f"{path}/{i}") for i, part in enumerate(tree))
