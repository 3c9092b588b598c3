"""The distances of mpe2's worlds in plain floats.

mpe2 (1.1) computes each distance of two entities as `np.sqrt(np.sum(np.square(delta)))`: 5 us for two numbers, and
a step of `simple_spread` with three agents has 21 of them. The same arithmetic in Python floats gives the same bits
(tests/test_envs_mpe.py) in a tenth of the time.
"""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import numpy as np

# exp(-t) is 0 in double precision from t = 745.2 on
NO_CONTACT = 750.0
# scenarios whose `is_collision` is "nearer than the sum of the sizes" (mpe2 1.1)
COLLIDING = ("simple_spread", "simple_tag", "simple_world_comm")


def hasten(raw: Any) -> None:
    """Replace slow methods of an mpe2 environment's world and scenario, where they are mpe2's own (1.1).

    Args:
        raw: the `SimpleEnv`.
    """
    if not known_version():
        return
    _near_pairs(raw.world)
    scenario = raw.scenario
    module = type(scenario).__module__.split(".")
    if module[0] != "mpe2":
        return
    if module[-1] in COLLIDING:
        scenario.is_collision = _collide
    if module[-1] == "simple_spread":
        scenario.global_reward = _coverage


def known_version() -> bool:
    """Whether the installed mpe2 is one that the arithmetic here was compared with."""
    return importlib.metadata.version("mpe2").startswith("1.1.")


def _near_pairs(world: Any) -> None:
    """Let a world compute forces between pairs that can collide and are near, in its own order.

    `World.apply_environment_force` (mpe2 1.1, core.py) asks every pair. The force of a pair is proportional to
    log(1 + exp(-gap / margin)), which is 0 beyond `NO_CONTACT` margins.
    """
    from mpe2._mpe_utils.core import World

    names = ("apply_environment_force", "get_collision_force")
    if world.dim_p != 2 or any(getattr(type(world), name) is not getattr(World, name) for name in names):
        return

    def apply_environment_force(p_force: list[Any]) -> list[Any]:
        solid = [
            (i, entity, entity.state.p_pos.tolist())
            for i, entity in enumerate(world.entities)
            if entity.collide
        ]
        beyond = NO_CONTACT * world.contact_margin
        for k, (a, one, (x, y)) in enumerate(solid):
            for b, other, (u, v) in solid[k + 1 :]:
                dx, dy = x - u, y - v
                distance = math.sqrt(dx * dx + dy * dy)
                gap = distance - (one.size + other.size)
                if gap > beyond:
                    continue
                if distance == 0.0:
                    pair = world.get_collision_force(one, other)
                else:
                    push = softplus(-gap / world.contact_margin) * world.contact_margin
                    strength = world.contact_force
                    force = np.array([strength * dx / distance * push, strength * dy / distance * push])
                    pair = (force if one.movable else None, -force if other.movable else None)
                for at, part in zip((a, b), pair, strict=True):
                    if part is not None:
                        p_force[at] = part + (0.0 if p_force[at] is None else p_force[at])
        return p_force

    world.apply_environment_force = apply_environment_force


def softplus(x: float) -> float:
    """log(1 + exp(x)), in the way of `np.logaddexp(0, x)`."""
    return math.log1p(math.exp(x)) if x < 0.0 else x + math.log1p(math.exp(-x))


def _collide(one: Any, other: Any) -> bool:
    """Whether two entities are nearer than the sum of their sizes."""
    (x, y), (u, v) = one.state.p_pos.tolist(), other.state.p_pos.tolist()
    return math.sqrt((x - u) * (x - u) + (y - v) * (y - v)) < one.size + other.size


def _coverage(world: Any) -> float:
    """Minus the distance from each landmark to the nearest agent, summed: simple_spread's shared reward."""
    agents = [agent.state.p_pos.tolist() for agent in world.agents]
    reward = 0.0
    for landmark in world.landmarks:
        x, y = landmark.state.p_pos.tolist()
        reward -= min(math.sqrt((u - x) * (u - x) + (v - y) * (v - y)) for u, v in agents)
    return reward
