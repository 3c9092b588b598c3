"""Copies of mpe2's `simple_spread` stepped together, on arrays.

A step of one copy is a hundred operations on two numbers each, and takes most of the time of a training with small
networks. `SpreadTogether` keeps the positions and velocities of all copies in two arrays; the entities of every copy
hold views of them. So each copy is in the state that its own `step` would leave it in: its global state, its picture
and the end of its episodes are mpe2's. Every number is that of `WorldSteps`, bit for bit (tests/test_envs_mpe.py): the
same operations in the same order, and the exponentials of contact forces one by one, because numpy's have other last
bits.

Legend: E copies, N agents, M entities (agents, then landmarks), O numbers of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.wrappers import OrderEnforcing

from rlkit.envs.checked_agents import CheckedMultiAgentEnv
from rlkit.envs.mpe_physics import NO_CONTACT, known_version, softplus
from rlkit.envs.pettingzoo import _Parallel

SENSITIVITY = 5.0  # of actions, where an agent has no `accel`
MOVES = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # of discrete actions


def together(envs: Sequence[Any], stepper: type) -> SpreadTogether | None:
    """Return copies of one environment as `SpreadTogether`; None where they are anything else.

    Args:
        envs: the copies.
        stepper: `WorldSteps`.
    """
    # RLlib makes its copies with gymnasium.make, which wraps them
    inner = [env.env if type(env) is OrderEnforcing else env for env in envs]
    for env in inner:
        if type(env) is not CheckedMultiAgentEnv or type(env.env) is not _Parallel:
            return None
        if type(env.env.env) is not stepper or env.env._mask_from_info:
            return None
    rules = [_rules(env.env.env.raw) for env in inner] if known_version() else [None]
    first = rules[0]
    return None if first is None or any(other != first for other in rules) else SpreadTogether(inner, first)


class Stepped(NamedTuple):
    """What a step of all copies gave: rewards (E, N) float64, and which copies are over, (E,) bool, all truncated."""

    rewards: np.ndarray
    over: np.ndarray


class SpreadTogether:
    """E copies of `simple_spread`, which may be at different steps of their episodes.

    Args:
        envs: the checked copies, each with a `WorldSteps` inside.
        rules: what `_rules` says of all of them.

    Attributes:
        obs: (E, N, O) float32, of the agents in their own order.
    """

    def __init__(self, envs: Sequence[Any], rules: tuple[Any, ...]):
        self.envs, self.rules = list(envs), rules
        self.steppers: list[Any] = [env.env.env for env in envs]
        self.raws: list[Any] = [stepper.raw for stepper in self.steppers]
        world = self.raws[0].world
        agents, entities = world.agents, world.entities
        self.agents = [agent.name for agent in agents]
        count, landmarks = len(agents), len(entities) - len(agents)
        self.count, self.world = count, world
        self.pos = np.zeros((len(envs), len(entities), 2))
        self.vel = np.zeros_like(self.pos)
        self.obs = np.zeros((len(envs), count, 4 + 2 * landmarks + 4 * (count - 1)), np.float32)
        self._discrete = isinstance(self.raws[0].action_spaces[self.agents[0]], Discrete)
        sizes = np.array([agent.size for agent in agents])
        self._sizes = sizes[:, None] + sizes
        self._touching = np.where(np.eye(count, dtype=bool), -np.inf, self._sizes)  # nobody touches itself
        self._apart = np.triu(np.ones((count, count), bool), 1)  # each pair once
        self._mass = np.array([agent.mass for agent in agents])[:, None]
        self._others = np.array([[j for j in range(count) if j != i] for i in range(count)], np.int64)
        self._parts = np.cumsum([4, 2 * landmarks, 2 * (count - 1)])
        self._deltas = np.zeros((len(envs), count, len(entities), 2))
        self._distances = np.zeros(self._deltas.shape[:-1])

    def see(self, row: int) -> bool:
        """Take over a copy that has been reset; False if its rules are not those of the others any more."""
        raw = self.raws[row]
        if _rules(raw) != self.rules:
            return False
        for j, entity in enumerate(raw.world.entities):
            self.pos[row, j], self.vel[row, j] = entity.state.p_pos, entity.state.p_vel
            entity.state.p_pos, entity.state.p_vel = self.pos[row, j], self.vel[row, j]
        self._look(slice(row, row + 1))
        return True

    def step(self, actions: Mapping[str, np.ndarray]) -> Stepped:
        """Step all copies; those that are over stay as they are until their own `reset`.

        Args:
            actions: agent -> (E, …), elements of its space.
        """
        force = self._forces(self._moves(actions))
        pos, vel, world = self.pos[:, : self.count], self.vel[:, : self.count], self.world
        pos += vel * world.dt
        vel *= 1 - world.damping
        vel += force / self._mass * world.dt
        self._look(slice(None))
        rewards = self._rewards()
        over = np.zeros(len(self.raws), bool)
        for row, raw in enumerate(self.raws):
            raw.steps += 1
            if raw.steps >= raw.max_cycles:
                over[row] = True
                self.steppers[row].end(dict(zip(self.agents, rewards[row].tolist(), strict=True)))
                self.envs[row].env.agents = []
                self.envs[row].finished()
        if not np.isfinite(self.obs).all():
            self._not_finite()
        return Stepped(rewards, over)

    def _not_finite(self) -> None:
        for row, agent in np.argwhere(~np.isfinite(self.obs).all(axis=-1)).tolist():
            name, env = self.agents[agent], self.envs[row]
            env.contract.step = self.raws[row].steps
            env.contract.observation(env.get_observation_space(name), self.obs[row, agent], name)

    def _moves(self, actions: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the forces of the agents' own, (E, N, 2)."""
        given = np.stack([actions[agent] for agent in self.agents], axis=1)
        if self._discrete:
            if given.min() < 0 or given.max() >= len(MOVES):
                row = int(np.argmax(((given < 0) | (given >= len(MOVES))).any(axis=1)))
                self.envs[row].contract.step = self.raws[row].steps + 1
                self.envs[row].contract.raised(AssertionError("action is not in action space"))
            return MOVES[given] * SENSITIVITY
        given = given.clip(0.0, 1.0)
        moves = np.zeros((*given.shape[:2], 2))
        moves += given[..., 2::2] - given[..., 1::2]
        return moves * SENSITIVITY

    def _forces(self, force: np.ndarray) -> np.ndarray:
        """Add the forces between agents that are near each other, in the order of the world's own pairs."""
        world, count = self.world, self.count
        distances = self._distances[..., :count]
        gaps = distances - self._sizes
        near = (gaps <= NO_CONTACT * world.contact_margin) & self._apart
        chosen = np.flatnonzero(near)
        if not len(chosen):
            return force
        soft = [softplus(x) for x in (-gaps.reshape(-1)[chosen] / world.contact_margin).tolist()]
        push = np.array(soft) * world.contact_margin
        # of the second entity on the first one: the deltas are those from the first to the second
        delta = -self._deltas[:, :, :count].reshape(-1, 2)[chosen]
        pairs = world.contact_force * delta / distances.reshape(-1)[chosen][:, None] * push[:, None]
        between = np.zeros((len(force), count, count, 2))
        between.reshape(-1, 2)[chosen] = pairs
        between.swapaxes(1, 2)[near] = -pairs
        for j in range(count):
            force = between[:, :, j] + force
        return force

    def _look(self, rows: slice) -> None:
        """Measure copies anew: distances from each agent to everything, and what the agents observe."""
        pos, count = self.pos[rows], self.count
        deltas = self._deltas[rows]
        np.subtract(pos[:, None], pos[:, :count, None], out=deltas)
        squares = deltas * deltas
        np.sqrt(squares[..., 0] + squares[..., 1], out=self._distances[rows])
        obs, (first, second, third) = self.obs[rows], self._parts
        obs[..., :2], obs[..., 2:4] = self.vel[rows, :count], pos[:, :count]
        obs[..., first:second] = deltas[:, :, count:].reshape(*obs.shape[:2], -1)
        others = deltas[:, np.arange(count)[:, None], self._others]
        obs[..., second:third] = others.reshape(*obs.shape[:2], -1)

    def _rewards(self) -> np.ndarray:
        """Return the shared reward (minus what each landmark is away from the nearest agent) and collisions."""
        nearest = self._distances[..., self.count :].min(axis=1)
        shared = np.zeros(len(nearest))
        for landmark in range(nearest.shape[1]):
            shared -= nearest[:, landmark]
        hits = (self._distances[..., : self.count] < self._touching).sum(axis=2)
        ratio = self.raws[0].local_ratio
        rewards: np.ndarray = (shared * (1 - ratio))[:, None] + (0.0 - hits) * ratio
        return rewards


def _rules(raw: Any) -> tuple[Any, ...] | None:
    """Return everything that the arithmetic here takes from an environment; None where it knows another one."""
    from mpe2.simple_spread.simple_spread import ExtendedWorld, Scenario

    scenario, world = raw.scenario, raw.world
    if type(scenario) is not Scenario or type(world) is not ExtendedWorld:
        return None
    options = (
        scenario.curriculum, scenario.terminate_on_success, scenario.num_agent_neighbors,
        scenario.num_landmark_neighbors, raw.benchmark_data,
    )  # fmt: skip
    agents = [
        (a.name, a.size, a.mass, a.movable, a.collide, a.silent, a.max_speed, a.accel, a.u_noise, a.action_callback)
        for a in world.agents
    ]  # fmt: skip
    if any(options) or any(agent[3:] != (True, True, True, None, None, None, None) for agent in agents):
        return None
    if len(agents) < 2 or any(landmark.movable or landmark.collide for landmark in world.landmarks):
        return None
    return (
        *agents, len(world.landmarks), world.dt, world.damping, world.contact_force, world.contact_margin,
        raw.local_ratio, raw.continuous_actions,
    )  # fmt: skip


__all__ = ["SpreadTogether", "Stepped", "together"]
