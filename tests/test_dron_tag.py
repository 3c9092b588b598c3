"""The prey against frozen hunters: what it sees, and that the hunters do what they are named for."""

from __future__ import annotations

import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from rlkit.algos.dron import DRONConfig
from rlkit.envs.tag_pool import LEAD_SECONDS, RING, TagPool, chase, lead, surround

register_env("tag_pool", lambda context: TagPool(**context))


def test_hunters_aim_where_their_policy_says():
    prey, velocity = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    np.testing.assert_allclose(chase(prey, velocity, 0), [1, 0])
    np.testing.assert_allclose(lead(prey, velocity, 0), [1, 2 * LEAD_SECONDS])
    places = np.array([surround(prey, velocity, i) for i in range(3)])
    np.testing.assert_allclose(np.hypot(*(places - prey).T), RING)
    np.testing.assert_allclose(places.mean(axis=0), prey, atol=1e-9)
    near = np.array([0.1, 0.1])
    np.testing.assert_allclose(surround(near, velocity, 1), near)


def test_a_prey_that_stands_still_is_caught_and_the_type_stays_for_a_game():
    env = TagPool(max_cycles=40)
    types = set()
    for seed in range(8):
        obs, info = env.reset(seed=seed)
        kind, total, over = info["opponent_type"], 0.0, False
        while not over:
            obs, reward, terminated, truncated, info = env.step(0)
            assert info["opponent_type"] == kind
            assert info["opponent_action"].shape == (3,)
            total, over = total + reward, terminated or truncated
        types.add(kind)
        assert total < -20
    assert len(types) > 1
    assert env.observation_space.contains(obs)


def test_the_same_seed_gives_the_same_game():
    games = []
    for _ in range(2):
        env = TagPool()
        env.reset(seed=4)
        games.append([env.step(t % 5)[0] for t in range(20)])
    np.testing.assert_array_equal(*games)


def test_three_hunters_have_features_each():
    config = DRONConfig().environment("tag_pool").env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(
        opponents=["adversary_0", "adversary_1", "adversary_2"], features=["last_action", "clock"], supervise="type",
        opponent_types=3,
    )  # fmt: skip
    config.validate()
    episode = SingleAgentEnvRunner(config=config).sample()[0]
    observed = episode.observations.data["opponent"]
    assert observed.shape[1:] == (3, 6)
    told = [info["opponent_action"] for info in episode.infos.data[1:]]
    np.testing.assert_array_equal(observed[1:, :, :5].argmax(axis=2), told)
    assert all(info["dron_type"].shape == (3,) for info in episode.infos.data[1:])


@pytest.mark.parametrize(
    ("opponents", "message"),
    [
        ({"chas": 1}, "did you mean 'chase'"),
        ({"lead": 0}, "expected a positive number"),
        ({}, "no opponents"),
    ],
)
def test_bad_pools_are_refused(opponents, message):
    with pytest.raises(ValueError, match=message):
        TagPool(opponents)
