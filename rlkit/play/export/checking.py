"""A written file against the Agent it came from: the same episodes through both, before the file gets its name.

Observations are drawn from the spaces, masks with at least one allowed action, for episodes of several steps, so that
states and opponents count. The environment is not made: an export needs no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import RlkitError, UsageError
from rlkit.play.answers import ALONE
from rlkit.play.graph_policy import GraphPolicy
from rlkit.roster import MASK_KEY, choices_of, has_mask

EPISODES, STEPS = 8, 12
TOLERANCE = 1e-5
BOUND = 1e6  # a Box whose bounds lie further out is drawn from a normal distribution


@dataclass(frozen=True)
class Comparison:
    """What was compared: actions by the agents, how many differ, and the largest difference of numbers.

    Attributes:
        actions: how many.
        different: those that are another choice, or whose numbers differ by more than `TOLERANCE`.
        error: the largest difference of numbers, relative to the value where that is above 1; infinite where one side
            alone is infinite, and for NaN on either side: an Agent that puts out NaN is broken, not well copied.
    """

    actions: int = 0
    different: int = 0
    error: float = 0.0

    def with_choice(self, ours: Any, theirs: Any) -> Comparison:
        """Add one action made of choices."""
        same = np.array_equal(np.asarray(ours), np.asarray(theirs))
        return Comparison(self.actions + 1, self.different + int(not same), self.error)

    def with_numbers(self, ours: Any, theirs: Any, action: bool) -> Comparison:
        """Add an array of numbers, an action or what one was chosen by."""
        a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        if a.shape != b.shape:
            raise UsageError(f"got the shape {b.shape}, expected {a.shape}")
        told = a != b  # equal infinities have no difference
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(a[told] - b[told]) / np.maximum(np.abs(a[told]), 1.0)
        error = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
        return Comparison(
            self.actions + action, self.different + (action and error > TOLERANCE), max(self.error, error)
        )


def compare(policy: Any, made: GraphPolicy, seed: int = 0) -> Comparison:
    """Play drawn observations through a checkpoint's policy and a file's, greedy.

    Raises:
        UsageError: the file cannot answer.
    """
    rng = np.random.default_rng(seed)
    sides = [([side.begin(f"check-{i}") for i in range(EPISODES)], side) for side in (policy, made)]
    result = Comparison()
    spaces: Any = policy.observation_space
    agents = list(spaces.spaces) if policy.multi_agent else [ALONE]
    feeds = {agent: made.members[agent].feeds for agent in agents}
    for step in range(STEPS):
        for i in range(EPISODES):
            seen = {
                a: draw(spaces[a] if policy.multi_agent else spaces, rng, made.members[a].action_space)
                for a in agents
            }
            infos = {a: _info(feeds[a], made, rng) for a in agents}
            for memories, side in sides:
                if policy.multi_agent:
                    reward = dict.fromkeys(agents, 0.0)
                    side.see(
                        memories[i],
                        dict(seen),
                        dict(infos),
                        reward if step else 0.0,
                        _flags(agents),
                        _flags(agents),
                    )
                else:
                    side.see(memories[i], seen[ALONE], infos[ALONE])
        try:
            ours, theirs = [side.act(memories, q_values=True) for memories, side in sides]
        except RlkitError as error:
            raise UsageError(f"the exported policy fails in step {step} of the check: {error}") from error
        for own, other in zip(ours, theirs, strict=True):
            for agent in agents:
                space = made.members[agent].action_space
                result = compare_actions(space, own.actions[agent], other.actions[agent], result)
                if agent in other.q_values:
                    result = result.with_numbers(own.q_values[agent], other.q_values[agent], action=False)
    return result


def _flags(agents: list[Any]) -> dict[Any, bool]:
    return {**dict.fromkeys(agents, False), "__all__": False}


def compare_actions(space: gym.Space, ours: Any, theirs: Any, result: Comparison) -> Comparison:
    """Return a comparison with one action of a space added, each part of a Dict or Tuple by itself."""
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            result = compare_actions(part, ours[key], theirs[key], result)
        return result
    if isinstance(space, gym.spaces.Tuple):
        for part, own, other in zip(space.spaces, ours, theirs, strict=True):
            result = compare_actions(part, own, other, result)
        return result
    continuous = isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)
    return result.with_numbers(ours, theirs, True) if continuous else result.with_choice(ours, theirs)


def draw(space: gym.Space, rng: np.random.Generator, actions: gym.Space | None = None) -> Any:
    """Return an observation; of an unbounded Box standard normal numbers, of a mask one with allowed actions.

    Args:
        actions: of the agent that observes; without them a mask is drawn like other numbers.
    """
    if isinstance(space, gym.spaces.Dict):
        found = {key: draw(part, rng) for key, part in space.spaces.items()}
        if actions is not None and has_mask(space) and choices_of(actions):
            mask = space[MASK_KEY]
            parts = mask.spaces if isinstance(mask, gym.spaces.Tuple) else [mask]
            dtype = parts[0].dtype
            drawn = [_allowed(size, rng).astype(dtype) for size in choices_of(actions)]
            found[MASK_KEY] = tuple(drawn) if isinstance(mask, gym.spaces.Tuple) else np.concatenate(drawn)
        return found
    if isinstance(space, gym.spaces.Tuple):
        return tuple(draw(part, rng) for part in space.spaces)
    if isinstance(space, gym.spaces.Discrete):
        return np.int64(space.start + rng.integers(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return (space.start + rng.integers(space.nvec)).astype(space.dtype)
    if isinstance(space, gym.spaces.MultiBinary):
        return rng.integers(2, size=space.shape).astype(space.dtype)
    low, high = (np.clip(side.astype(np.float64), -BOUND, BOUND) for side in (space.low, space.high))
    even, bounded = rng.uniform(low, high), (np.abs(low) < BOUND) & (np.abs(high) < BOUND)
    return np.where(bounded, even, np.clip(rng.standard_normal(space.shape), low, high)).astype(space.dtype)


def _allowed(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return (size,) bool with at least one true."""
    allowed = rng.random(size) < 0.5
    allowed[rng.integers(size)] = True
    return allowed


def _info(feeds: Any, made: GraphPolicy, rng: np.random.Generator) -> dict[str, Any]:
    """Return what an environment would tell an agent whose connector reads opponents."""
    info: dict[str, Any] = {}
    for feed in feeds:
        if feed["kind"] != "opponents":
            continue
        info["opponent_type"] = 0  # the label of supervise: type, which the connector wants to see
        count = len(feed["opponents"])
        if feed["alone"]:
            info["opponent_action"] = _actions(feed, count, rng)
        if feed["events"]:
            info["opponent_moves"] = rng.integers(-1, 2, size=(count, 5)).astype(np.float32)
            info["ball_lost"] = float(rng.integers(2))
    return info


def _actions(feed: Mapping[str, Any], count: int, rng: np.random.Generator) -> Any:
    size = int(feed["size"])
    if feed["discrete"]:
        drawn: list[Any] = [int(feed["start"] + rng.integers(size)) for _ in range(count)]
    else:
        drawn = [rng.uniform(-1, 1, size).astype(np.float32) for _ in range(count)]
    return drawn[0] if count == 1 else drawn


def compare_graphs(path: Any, graphs: Mapping[Any, Any]) -> Comparison:
    """Compare a .pt2 or ONNX file with the graphs it came from, on the same drawn inputs, noise among them.

    The greedy graphs themselves are compared with the Agent where an ONNX file or a bundle is written; here every
    output counts, with a number of rows that is another one for each agent.
    """
    import torch

    from rlkit.play.export.graph import Team

    team, rng, result = Team(graphs).eval(), np.random.default_rng(0), Comparison()
    run = _runner(path, [name for name, _ in team.inputs])
    for _ in range(STEPS):
        fed: list[torch.Tensor] = []
        for graph in graphs.values():
            rows = int(rng.integers(1, EPISODES + 1))
            seen = [draw(graph.observation_space, rng, graph.action_space) for _ in range(rows)]
            fed += [_filled(port, place, graph, seen, rng) for place, port in enumerate(graph.inputs)]
        with torch.no_grad():
            ours, theirs = team(*fed), run(fed)
        for (_, port), own, other in zip(team.outputs, ours, theirs, strict=True):
            whole = not own.is_floating_point()
            for a, b in zip(own.numpy(), np.asarray(other), strict=True):
                action = port.role == "action"
                result = result.with_choice(a, b) if action and whole else result.with_numbers(a, b, action)
    return result


def _filled(port: Any, place: int, graph: Any, seen: list[Any], rng: np.random.Generator) -> Any:
    """Return a drawn input (rows, ...) of a graph."""
    import torch

    from rlkit.roster import flat

    if port.role == "obs":
        values = np.stack([np.asarray(flat(graph.observation_space, one)[place]) for one in seen])
    elif port.role == "noise" and port.note == "uniform":
        values = rng.random((len(seen), *port.tensor.shape))
    elif port.tensor.dtype == "bool":
        values = rng.random((len(seen), *port.tensor.shape)) < 0.5
    elif port.tensor.dtype.startswith("int"):
        values = np.zeros((len(seen), *port.tensor.shape))
    else:
        values = rng.standard_normal((len(seen), *port.tensor.shape))
    return torch.from_numpy(np.ascontiguousarray(values)).to(port.tensor.torch_dtype)


def _runner(path: Any, names: list[str]) -> Any:
    if str(path).endswith(".pt2"):
        import torch

        traced = torch.export.load(path).module()
        return lambda fed: [out.detach().numpy() for out in traced(*fed)]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda fed: session.run(None, {n: x.numpy() for n, x in zip(names, fed, strict=True)})
