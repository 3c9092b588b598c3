"""mpe2 stepped as one world gives what mpe2's own parallel environments give, bit for bit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mpe2
import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from rlkit.envs import make_env
from rlkit.envs.mpe import WorldSteps, world_steps

SCENARIOS = sorted(path.stem for path in Path(mpe2.__file__).parent.glob("simple*_v*.py"))


def content(values: dict[str, Any]) -> dict[str, Any]:
    return {
        agent: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
        for agent, v in values.items()
    }


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_gives_the_same_numbers(scenario, continuous):
    make = importlib.import_module(f"mpe2.{scenario}").parallel_env
    plain = make(continuous_actions=continuous, max_cycles=6)
    quick = world_steps(make(continuous_actions=continuous, max_cycles=6))
    assert isinstance(quick, WorldSteps)
    rng = np.random.default_rng(0)
    for seed in (3, None, None):
        found, expected = quick.reset(seed=seed), plain.reset(seed=seed or 9)
        if seed is None:  # go on with the same stream
            found, expected = quick.reset(seed=9), plain.reset(seed=9)
        assert content(found[0]) == content(expected[0])
        while plain.agents:
            assert quick.agents == plain.agents
            # Some of the continuous ones are clipped.
            actions = {
                a: (rng.random(plain.action_space(a).shape) * 1.4 - 0.2).astype(np.float32)
                if continuous
                else int(rng.integers(plain.action_space(a).n))
                for a in plain.agents
            }
            np.random.seed(5)  # worlds with noise draw from the global generator
            theirs = plain.step({a: np.copy(v) if continuous else v for a, v in actions.items()})
            np.random.seed(5)
            ours = quick.step(actions)
            for one, other in zip(ours, theirs, strict=True):
                assert content(dict(one)) == content(dict(other))
            assert np.array_equal(quick.state(), plain.state())
        assert quick.agents == []


@pytest.mark.parametrize("scenario", ["simple_spread_v3", "simple_tag_v3", "simple_world_comm_v3"])
def test_bodies_in_contact_give_the_same_numbers(scenario):
    make = importlib.import_module(f"mpe2.{scenario}").parallel_env
    plain, quick = make(max_cycles=4), world_steps(make(max_cycles=4))
    world, rules = quick.unwrapped.world, quick.unwrapped.scenario
    assert "apply_environment_force" in vars(world)
    assert "is_collision" in vars(rules)
    rng, touching = np.random.default_rng(1), 0
    for seed in range(20):
        for env in (plain, quick):
            env.reset(seed=seed)
            for entity in env.unwrapped.world.entities:
                entity.size = 0.4
        agents = plain.unwrapped.world.agents
        touching += any(
            np.linalg.norm(one.state.p_pos - other.state.p_pos) < 0.8
            for i, one in enumerate(agents)
            for other in agents[:i]
        )
        while plain.agents:
            actions = {a: int(rng.integers(plain.action_space(a).n)) for a in plain.agents}
            theirs, ours = plain.step(dict(actions)), quick.step(actions)
            assert content(ours[0]) == content(theirs[0])
            assert ours[1] == theirs[1]
    assert touching > 10


def test_pettingzoos_own_test_and_a_picture():
    env = world_steps(
        importlib.import_module("mpe2.simple_spread_v3").parallel_env(render_mode="rgb_array", max_cycles=5)
    )
    parallel_api_test(env, num_cycles=30)
    env.reset(seed=0)
    assert env.render().ndim == 3


def test_recipes_get_it_and_human_windows_do_not():
    env = make_env("pettingzoo/mpe2.simple_tag_v3", {})
    assert isinstance(env.unwrapped.env, WorldSteps)
    assert env.unwrapped.env.unwrapped.world.agents
    aec = make_env("pettingzoo/mpe2.simple_tag_v3", {"api": "aec"})
    assert not isinstance(aec.unwrapped.env, WorldSteps)
    own = importlib.import_module("mpe2.simple_tag_v3").parallel_env()
    own.aec_env.unwrapped.__class__ = type(
        "Mine", (type(own.unwrapped),), {"step": lambda self, action: None}
    )
    assert world_steps(own) is own


def test_terminal_states_end_an_episode():
    env = make_env("pettingzoo/mpe2.simple_spread_v3", {"terminate_on_success": True})
    env.reset(seed=0)
    raw = env.unwrapped.env.unwrapped
    for agent, landmark in zip(raw.world.agents, raw.world.landmarks, strict=True):
        agent.state.p_pos = landmark.state.p_pos.copy()
        agent.state.p_vel = np.zeros(2)
        agent.collide = False
    _, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
    assert terminated["__all__"]
    assert not truncated["__all__"]


@pytest.mark.parametrize("action", [np.zeros(3, np.float32), 7])
def test_actions_outside_the_space_are_refused(action):
    continuous = isinstance(action, np.ndarray)
    env = world_steps(
        importlib.import_module("mpe2.simple_spread_v3").parallel_env(continuous_actions=continuous)
    )
    env.reset(seed=0)
    with pytest.raises(AssertionError, match=r"shape|not in action space"):
        env.step(dict.fromkeys(env.agents, action))
