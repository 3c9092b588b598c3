"""VMAS: batches with a random stream of their own, and one copy under RLlib's multi-agent API."""

from __future__ import annotations

import pytest

pytest.importorskip("vmas")

import numpy as np
import torch

from rlkit.envs import VmasBatch, available, checked, make_env
from rlkit.errors import EnvError, UsageError

QUICK = ("vmas/balance", "vmas/simple_spread", "vmas/simple_speaker_listener", "vmas/wheel")
SCENARIOS = sorted(name for name in available() if name.startswith("vmas/"))


def _random(batch: VmasBatch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    shape = {agent: (batch.num_envs, *space.shape) for agent, space in batch.action_spaces.items()}
    return {agent: torch.rand(size, generator=generator) * 2 - 1 for agent, size in shape.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SCENARIOS]
)
def test_every_scenario_keeps_its_contract_and_is_drawn(name: str) -> None:
    env = checked(make_env(name, {"max_steps": 3, "render_mode": "rgb_array"}))
    env.reset(seed=1)
    steps = 0
    while steps < 3:
        steps += 1
        actions = {agent: space.sample() for agent, space in env.action_spaces.items()}
        _, rewards, terminateds, truncateds, _ = env.step(actions)
        assert list(rewards) == env.possible_agents
        if terminateds["__all__"] or truncateds["__all__"]:
            break
    assert terminateds["__all__"] or (truncateds["__all__"] and steps == 3)
    picture = env.render()
    assert picture.shape == (500, 500, 3)
    assert (picture != 255).any()


def test_shapes_of_a_batch() -> None:
    batch = VmasBatch("simple_speaker_listener", 6, seed=0)
    observations = batch.reset()
    sizes = {agent: tuple(value.shape) for agent, value in observations.items()}
    assert sizes == {agent: (6, *batch.observation_spaces[agent].shape) for agent in batch.possible_agents}
    observations, rewards, terminated, truncated, _ = batch.step(
        {agent: torch.zeros(6, *space.shape) for agent, space in batch.action_spaces.items()}
    )
    assert rewards.shape == (6, 2)
    assert terminated.shape == truncated.shape == (6,)
    assert terminated.dtype == truncated.dtype == torch.bool


def test_a_batch_has_its_own_random_stream() -> None:
    def first_observations(disturbed: bool) -> list[torch.Tensor]:
        batch = VmasBatch("balance", 3, seed=7)
        seen = []
        for _ in range(3):
            if disturbed:  # another batch, and torch itself, draw in between
                VmasBatch("balance", 2, seed=1).reset()
                torch.rand(5)
            seen.append(batch.reset()["agent_0"])
        return seen

    alone, disturbed = first_observations(False), first_observations(True)
    assert all(torch.equal(a, b) for a, b in zip(alone, disturbed, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_stepping_leaves_torchs_own_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    batch = VmasBatch("balance", 2, seed=0)
    batch.reset()
    assert torch.equal(torch.rand(4), expected)


def test_seeds_repeat_and_no_seed_does_not() -> None:
    batch = VmasBatch("simple_spread", 2, seed=1)
    first, again, other = batch.reset(5)["agent_0"], batch.reset(5)["agent_0"], batch.reset(6)["agent_0"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    unseeded = [VmasBatch("simple_spread", 2).reset()["agent_0"] for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_only_the_ended_copies_start_anew() -> None:
    batch = VmasBatch("simple_spread", 4, seed=0, max_steps=9)
    generator = torch.Generator().manual_seed(0)
    batch.reset()
    observations, *_ = batch.step(_random(batch, generator))
    before = observations["agent_0"]
    after = batch.reset_where(torch.tensor([False, True, False, False]))["agent_0"]
    same = [torch.equal(before[i], after[i]) for i in range(4)]
    assert same == [True, False, True, True]
    for _ in range(8):
        *_, truncated, _ = batch.step(_random(batch, generator))
    assert truncated.tolist() == [True, False, True, True]  # the restarted copy has one step to go


def test_one_copy_plays_what_a_batch_of_one_plays() -> None:
    env = make_env("vmas/simple_spread", {"max_steps": 5})
    batch = VmasBatch("simple_spread", 1, max_steps=5)
    observations, _ = env.reset(seed=4)
    expected = batch.reset(4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        actions = _random(batch, generator)
        assert all(np.array_equal(observations[a], expected[a][0]) for a in env.possible_agents)
        observations, rewards, terminateds, truncateds, _ = env.step(
            {a: v[0].numpy() for a, v in actions.items()}
        )
        expected, stacked, *_ = batch.step(actions)
        assert list(rewards.values()) == pytest.approx(stacked[0].tolist())
    assert truncateds["__all__"]
    assert not terminateds["__all__"]
    assert env.agents == []


def test_discrete_actions() -> None:
    env = make_env("vmas/simple_spread", {"continuous_actions": False})
    env.reset(seed=0)
    assert all(space.n == 9 for space in env.action_spaces.values())
    env.step({agent: space.sample() for agent, space in env.action_spaces.items()})
    parts = make_env("vmas/simple_reference", {"continuous_actions": False, "multidiscrete_actions": True})
    parts.reset(seed=0)
    parts.step({agent: space.sample() for agent, space in parts.action_spaces.items()})


def test_an_argument_the_scenario_does_not_use_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"env_config.n_agent: .*did you mean 'n_agents'"):
        make_env("vmas/balance", {"n_agent": 4})
    with pytest.raises(UsageError, match="num_envs_per_env_runner"):
        make_env("vmas/balance", {"num_envs": 4})


@pytest.mark.parametrize("part", ["observation", "reward"])
def test_a_batch_in_training_names_who_is_no_number(part: str) -> None:
    from rlkit.algos.sampling.joint_envs import NativeBatch
    from rlkit.algos.sampling.joint_rows import TeamLayout

    batch = VmasBatch("simple_spread", 3)
    envs = NativeBatch(batch, TeamLayout("spread", batch.observation_spaces, batch.action_spaces))
    envs.reset([0])
    actions = {a: np.zeros((3, *space.shape), np.float32) for a, space in batch.action_spaces.items()}
    envs.step(actions)
    agent, step = batch.possible_agents[1], batch.step

    def broken(given: dict) -> tuple:
        observations, rewards, *rest = step(given)
        (observations[agent] if part == "observation" else rewards)[2, 1] = torch.nan
        return observations, rewards, *rest

    batch.step = broken  # type: ignore[method-assign]
    with pytest.raises(
        EnvError, match=f"environment 2, agent '{agent}', step 2 of its episode: {part}.*: got nan"
    ):
        envs.step(actions)
