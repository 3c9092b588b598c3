"""mpe2 stepped as one world gives what mpe2's own parallel environments give, bit for bit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mpe2
import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from rlkit.algos.sampling.joint_envs import Copies, Together, copies
from rlkit.algos.sampling.joint_rows import TeamLayout
from rlkit.envs import make_env
from rlkit.envs.make import make_env as make_checked
from rlkit.envs.mpe import WorldSteps, world_steps
from rlkit.errors import EnvError

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


class Vector:
    """What the joint runner sees of copies: RLlib's vector environment without its bookkeeping."""

    def __init__(self, count: int, **options: Any):
        self.envs = [make_checked("pettingzoo/mpe2.simple_spread_v3", options) for _ in range(count)]

    def reset(self, seed: Any = None) -> tuple[list[Any], list[Any]]:
        found = [env.reset(seed=one) for env, one in zip(self.envs, seed, strict=True)]
        return [pair[0] for pair in found], [pair[1] for pair in found]


def vectors(**options: Any) -> tuple[Copies, Copies]:
    """The same copies, stepped one by one and as they are by themselves."""
    one, other = Vector(4, **options), Vector(4, **options)
    env = one.envs[0]
    spaces = (
        {agent: space(agent) for agent in env.possible_agents}
        for space in (env.get_observation_space, env.get_action_space)
    )
    layout = TeamLayout("spread", *spaces)
    return Copies(one, layout), copies(other, layout)


def play(apart: Copies, quick: Copies, steps: int) -> None:
    """Step both with the same random actions, and compare every number and the state of every copy."""
    rng, count = np.random.default_rng(0), len(apart.envs)
    for _ in range(steps):
        actions = {
            agent: (rng.random((count, *space.shape)) * 1.4 - 0.2).astype(np.float32)
            if space.shape
            else rng.integers(space.n, size=count)
            for agent, space in apart.roster.action_spaces.items()
        }
        expected, found = apart.step(actions), quick.step(actions)
        for name in ("rewards", "terminateds", "truncateds", "over"):
            assert getattr(expected, name).tobytes() == getattr(found, name).tobytes(), name
        assert [x.tobytes() for x in apart.obs] == [x.tobytes() for x in quick.obs]
        for one, other in zip(apart.envs, quick.envs, strict=True):
            assert np.array_equal(one.unwrapped.state(), other.unwrapped.state())
            assert one.agents == other.agents
        ended = np.flatnonzero(found.over)
        if len(ended):
            apart.reset_where(ended)
            quick.reset_where(ended)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("agents", [2, 3, 11])
def test_copies_of_spread_stepped_together_give_the_same_numbers(agents, continuous):
    apart, quick = vectors(N=agents, continuous_actions=continuous, max_cycles=8)
    assert isinstance(quick, Together)
    for each in (apart, quick):
        each.reset([5, 6, 7, 8])
        for row, env in enumerate(each.envs):  # copies at different steps of their episodes
            env.unwrapped.env.raw.max_cycles += row
    play(apart, quick, 50)
    assert quick.batch is not None


def test_a_copy_with_other_rules_ends_the_common_step():
    apart, quick = vectors(max_cycles=5)
    for each in (apart, quick):
        each.reset([1, 2, 3, 4])
    play(apart, quick, 3)
    for each in (apart, quick):  # what a curriculum may do; it counts from the next episode on
        each.envs[2].unwrapped.env.raw.world.damping = 0.9
        each.reset([1, 2, 3, 4])
    assert quick.batch is None
    play(apart, quick, 12)


@pytest.mark.parametrize(
    "options",
    [
        {"terminate_on_success": True},
        {"curriculum": True},
        {"num_agent_neighbors": 1},
        {"benchmark_data": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_the_common_step_does_not_know_is_stepped_copy_by_copy(options):
    assert not isinstance(vectors(**options)[1], Together)


def test_the_common_step_names_who_went_wrong():
    _, quick = vectors(continuous_actions=True)
    quick.reset([1, 2, 3, 4])
    actions = {agent: np.zeros((4, 5), np.float32) for agent in quick.roster.agents}
    actions["agent_1"][2] = np.nan
    with pytest.raises(EnvError, match=r"'agent_1', step 1 of episode 1: observation: got nan at index 0"):
        quick.step(actions)
    _, quick = vectors()
    quick.reset([1, 2, 3, 4])
    with pytest.raises(EnvError, match=r"step\(\) in step 1 of episode 1 raised .* not in action space"):
        quick.step({agent: np.full(4, 7) for agent in quick.roster.agents})


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
