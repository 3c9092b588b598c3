"""Advantages against numbers computed by hand, and against RLlib's connector over episodes that end in every way."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.episodes import fragments_of
from rlkit.algos.onpolicy.gae import gae, standardised
from rlkit.algos.sampling.array_episodes import ArrayFragment

GAMMA, LAMBDA = 0.5, 0.5


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def advantages(rewards: Any, values: Any, terminated: Any, truncated: Any, fresh: Any) -> list[float]:
    fragment = ArrayFragment(
        obs=None,
        actions=None,
        rewards=column(*rewards).astype(np.float64),
        terminated=column(*terminated).astype(bool),
        truncated=column(*truncated).astype(bool),
        fresh=column(*fresh).astype(bool),
    )
    found = gae(
        fragment.rewards,
        column(*values),
        fragment.terminated,
        fragment.goes_on(),
        gamma=GAMMA,
        lambda_=LAMBDA,
    )
    return found[:, 0].tolist()


def test_an_episode_that_goes_on_bootstraps_from_the_last_observation() -> None:
    # δ = 1 + .5 x 4 - 2 = 1, 1 + .5 x 8 - 4 = 1; A_0 = 1 + .25 x 1
    assert advantages([1, 1], [2, 4, 8], [0, 0], [0, 0], [0, 0]) == [1.25, 1.0]


def test_a_terminated_step_bootstraps_from_nothing() -> None:
    # δ_1 = 1 - 4 = -3; A_0 = 1 + .25 x -3
    assert advantages([1, 1], [2, 4, 8], [0, 1], [0, 0], [0, 0]) == [0.25, -3.0]


def test_a_truncated_step_bootstraps_from_its_own_last_observation_and_carries_nothing_over() -> None:
    # step 0 is truncated and sees 4; row 1 is the reset, its next observation is worth 6; steps 2 and 3 are another
    # episode: δ_2 = 3 + .5 x 2 - 6 = -2, δ_3 = 1 + .5 x 2 - 2 = 0
    found = advantages([1, 0, 3, 1], [2, 4, 6, 2, 2], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0])
    assert found[0] == 1.0
    assert found[2:] == [-2.0, 0.0]


def test_a_terminated_episode_and_its_reset_do_not_touch_the_next_one() -> None:
    found = advantages([1, 0, 3], [2, 100, 6, 2], [1, 0, 0], [0, 0, 0], [0, 1, 0])
    assert found[0] == -1.0
    assert found[2] == -2.0


def test_both_flags_mean_terminated() -> None:
    assert advantages([1], [2, 100], [1], [1], [0]) == [-1.0]


def test_environments_do_not_mix() -> None:
    rewards, values = np.ones((2, 2)), np.array([[2, 0], [4, 0], [8, 0]], np.float32)
    terminated, goes_on = np.zeros((2, 2), bool), np.array([[True, True], [False, False]])
    found = gae(rewards, values, terminated, goes_on, gamma=GAMMA, lambda_=LAMBDA)
    assert found.tolist() == [[1.25, 1.25], [1.0, 1.0]]


def test_lambda_0_is_the_td_error_and_lambda_1_the_return_minus_the_value() -> None:
    rewards, values = np.array([[1.0], [2.0], [4.0]]), column(3, 5, 7, 8)
    terminated, goes_on = np.zeros((3, 1), bool), np.array([[True], [True], [False]])
    one_step = gae(rewards, values, terminated, goes_on, gamma=0.5, lambda_=0.0)
    assert one_step[:, 0].tolist() == [1 + 2.5 - 3, 2 + 3.5 - 5, 4 + 4 - 7]
    whole = gae(rewards, values, terminated, goes_on, gamma=0.5, lambda_=1.0)
    assert whole[0, 0] == pytest.approx(1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 8 - 3)


def test_large_advantages_are_standardised_too() -> None:
    found = standardised(np.array([1e30, -1e30, 3e30, 1e30], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, standardised(np.array([1, -1, 3, 1], np.float32)), atol=1e-6)


def test_standardised_advantages_that_are_all_alike_are_zero() -> None:
    assert standardised(np.array([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert standardised(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]


# RLlib's connector


def episode(rng: np.random.Generator, length: int, *, start: int, terminated: bool, truncated: bool) -> Any:
    outputs = {
        "action_logp": rng.standard_normal(length).astype(np.float32),
        "action_dist_inputs": rng.standard_normal((length, 2)).astype(np.float32),
        "weights_seq_no": np.zeros(length, np.int64),
    }
    made = SingleAgentEpisode(
        observations=list(rng.standard_normal((length + 1, 4)).astype(np.float32)),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
        infos=[{}] * (length + 1),
        actions=list(rng.integers(0, 2, length)),
        action_space=gym.spaces.Discrete(2),
        rewards=list(rng.standard_normal(length)),
        terminated=terminated,
        truncated=truncated,
        extra_model_outputs={name: list(values) for name, values in outputs.items()},
        t_started=start,
        len_lookback_buffer=0,
    )
    return made.to_numpy()


ENDS = {
    "terminated": {"terminated": True, "truncated": False},
    "truncated": {"terminated": False, "truncated": True},
    "cut": {"terminated": False, "truncated": False},
    "both flags": {"terminated": True, "truncated": True},
}


def test_advantages_and_value_targets_are_those_of_rllibs_connector() -> None:
    env = gym.make("CartPole-v1")
    config = PPOConfig().environment("CartPole-v1").training(gamma=0.97, lambda_=0.9)
    config.rl_module(model_config={"fcnet_hiddens": [16]}).validate()
    learner = config.build_learner(env=env)
    rng = np.random.default_rng(0)
    ends = [end for end in ENDS.values() for _ in range(3)]
    lengths = [1, 7, 3, 12, 1, 5, 9, 2, 4, 1, 8, 6]
    episodes = [
        episode(rng, length, start=3 * i, **end)
        for i, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]
    fragments = fragments_of(episodes, default_module=DEFAULT_MODULE_ID)
    ours = learner.rows_of(DEFAULT_MODULE_ID, [fragments[DEFAULT_MODULE_ID]])
    # RLlib's pipeline lengthens the episodes, so it comes last
    pipeline = learner._learner_connector
    theirs = pipeline(rl_module=learner.module, batch={}, episodes=episodes, shared_data={})
    theirs = theirs[DEFAULT_MODULE_ID]
    real = theirs["loss_mask"]
    assert int(real.sum()) == sum(lengths)
    np.testing.assert_allclose(ours["obs"], theirs["obs"][real])
    np.testing.assert_allclose(ours["action_logp"], theirs["action_logp"][real])
    targets = theirs[Postprocessing.VALUE_TARGETS][real]
    np.testing.assert_allclose(ours[Postprocessing.VALUE_TARGETS], targets, rtol=0, atol=1e-5)
    # RLlib standardises over the artificial rows too; over the real ones its advantages are ours but for two numbers
    advantages = theirs[Postprocessing.ADVANTAGES].numpy()[real.numpy()]
    again = (advantages - advantages.mean()) / advantages.std()
    np.testing.assert_allclose(ours[Postprocessing.ADVANTAGES], again, rtol=0, atol=1e-4)
