"""Running normalisation: the numbers, that nothing counts twice, and that evaluations leave them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.utils import RunningMeanStd
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

import rlkit
from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.reward_norm import RewardNorm, discounted
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.algos.sampling.normalise import Moments, NormalizeObservations
from rlkit.errors import RunFailed, UsageError
from rlkit.play.export import export
from rlkit.play.policy import DirectPolicy
from rlkit.runs import manifest

BOX = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)


class Far(gym.Env):
    """Observations around (100, -3), a reward of 5 a step, episodes of 4 steps."""

    observation_space, action_space = BOX, gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.config = dict(config or {})

    def _seen(self) -> np.ndarray:
        return np.array([100.0, -3.0]) + self.np_random.normal(size=2) * [10.0, 0.1]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._seen(), 5.0, self.t == 4, False, {}


class Watch(RLlibCallback):
    """Makes runners sample RLlib's episodes, and looks at rewards."""

    def on_episode_step(self, *, episode: Any, **kwargs: Any) -> None:
        if len(episode):
            assert episode.get_rewards(-1) == 5.0


def config(**words: Any) -> PPOConfig:
    made = PPOConfig().environment(Far).debugging(seed=0)
    made.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    made.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
    made.training(normalize_observations=True, normalize_rewards=True).training(**words)
    return made.rl_module(model_config={"fcnet_hiddens": [16]})


def piece(runner: int | None = 0) -> NormalizeObservations:
    made = NormalizeObservations(BOX, gym.spaces.Discrete(2))
    made.runner = runner
    return made


# Observations ------------------------------------------------------------------------------------------------


def test_moments_are_gymnasiums_and_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(5.0, 3.0, (n, 2)) for n in (1, 4, 30)]
    found, theirs = Moments.prior((2,)), RunningMeanStd(shape=(2,))
    for batch in batches:
        found = found.and_(Moments.of(batch))
        theirs.update(batch)
    rows = np.concatenate(batches)
    np.testing.assert_allclose(found.mean, theirs.mean, rtol=1e-12)
    np.testing.assert_allclose(found.squares / found.count, theirs.var, rtol=1e-12)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.deviation, rows.std(axis=0), rtol=1e-4)


def test_observations_are_centred_scaled_and_clipped() -> None:
    ours = piece()
    ours.learn(np.array([[1.0, 10.0], [3.0, 30.0]]))  # means 2 and 20, deviations 1 and 10
    found = ours.rows([[3.0, 25.0], [99.0, -999.0]])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1.0, 0.5], [10.0, -10.0]], atol=0.01)


def test_a_frozen_connector_learns_nothing() -> None:
    still = piece(None)
    before = still.rows([[1.0, 2.0]])
    still.learn(np.full((5, 2), 1e6))
    np.testing.assert_array_equal(still.rows([[1.0, 2.0]]), before)


def test_merging_counts_every_observation_once_however_often_it_is_done() -> None:
    rng = np.random.default_rng(0)
    seen = {i: rng.normal(i, 1.0, (20 * i, 2)) for i in (1, 2, 3)}
    driver, runners = piece(), {i: piece(i) for i in seen}
    for i, rows in seen.items():
        runners[i].learn(rows[:5])
    for _ in range(3):  # runner 3 is silent the last two times
        merged = driver.merge_states([one.get_state() for i, one in runners.items() if i < 3 or _ == 0])
        for one in (driver, runners[1], runners[2]):
            one.set_state(merged)
    for i, rows in seen.items():
        runners[i].learn(rows[5:])
    driver.set_state(driver.merge_states([one.get_state() for one in runners.values()]))
    everything = np.concatenate(list(seen.values()))
    assert driver.total.count == pytest.approx(len(everything), abs=0.01)
    np.testing.assert_allclose(driver.total.mean, everything.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(driver.total.deviation, everything.std(axis=0), rtol=1e-3)


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)])
def test_other_observations_are_refused(space: gym.Space) -> None:
    with pytest.raises(UsageError, match="expected a Box of floats"):
        NormalizeObservations(space, gym.spaces.Discrete(2))


def test_both_ways_to_sample_normalise_alike() -> None:
    ours, theirs = config(), config().callbacks(Watch)
    both = []
    for one in (ours, theirs):
        one.validate()
        runner = ArrayEnvRunner(config=one, worker_index=0)
        runner.sample(num_timesteps=40)
        both.append(runner.pipelines[0].connectors[0].total)
    assert both[0].count == both[1].count > 40
    np.testing.assert_array_equal(both[0].mean, both[1].mean)
    np.testing.assert_array_equal(both[0].squares, both[1].squares)


# Rewards -----------------------------------------------------------------------------------------------------


def fragment(rewards: list[list[float]], ends: list[list[int]], fresh: list[list[int]]) -> ArrayFragment:
    given = np.array(rewards)
    ended = np.array(ends, bool)
    return ArrayFragment(
        np.zeros((len(given) + 1, given.shape[1], 1)), np.zeros(given.shape), given, ended,
        np.zeros_like(ended), np.array(fresh, bool), times=np.array([3] * given.shape[1]),
    )  # fmt: skip


def test_discounted_returns_begin_anew_with_each_episode() -> None:
    made = fragment(
        [[1, 2], [1, 2], [0, 2], [1, 2]], [[0, 0], [1, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [1, 0], [0, 0]]
    )
    values, behind = discounted(made, 0.5, np.array([4.0, 0.0]))
    # environment 0: 3 = .5 x 4 + 1, 2.5 and the end, a reset, 1; environment 1: 2, 3, 3.5, 3.75
    np.testing.assert_allclose(values, [3.0, 2.0, 2.5, 3.0, 3.5, 1.0, 3.75])
    np.testing.assert_allclose(behind, [1.0, 3.75])


def test_rewards_are_divided_by_the_deviation_of_returns_and_clipped() -> None:
    norm = RewardNorm(gamma=1.0)
    made = fragment([[1.0], [1.0], [1.0]], [[0], [0], [1]], [[0]] * 3)
    norm.learn([made], "m")  # returns 1, 2, 3: variance 2/3
    assert norm.deviation == pytest.approx(np.sqrt(2 / 3), rel=1e-3)
    np.testing.assert_allclose(norm.scaled(made).rewards, 1 / norm.deviation)
    assert norm.scaled(fragment([[1e6]], [[0]], [[0]])).rewards.tolist() == [[10.0]]
    assert made.rewards.tolist() == [[1.0]] * 3


def test_a_cut_changes_no_number_and_episodes_give_the_same() -> None:
    rewards, ends = [[1.0], [3.0], [2.0], [5.0]], [[0], [0], [0], [1]]
    whole, parts, episodes = RewardNorm(0.9), RewardNorm(0.9), RewardNorm(0.9)
    first = fragment(rewards, ends, [[0]] * 4)
    first.times = np.array([0])
    whole.learn([first], "m")
    halves = [fragment(rewards[i : i + 2], ends[i : i + 2], [[0]] * 2) for i in (0, 2)]
    halves[0].times = np.array([0])
    for half in halves:
        parts.learn([half], "m")
    episode = SingleAgentEpisode(observations=[0], observation_space=gym.spaces.Discrete(9))
    for i, (reward,) in enumerate(rewards):
        episode.add_env_step(i, 0, reward, terminated=bool(ends[i][0]))
        if i == 1:
            piece_of_it, episode = episode, episode.cut()
            episodes.learn([piece_of_it], "m")
    episodes.learn([episode], "m")
    for one in (parts, episodes):
        assert one.moments.count == pytest.approx(whole.moments.count)
        assert one.deviation == pytest.approx(whole.deviation, rel=1e-9)


def test_a_nan_reward_is_named_before_it_enters() -> None:
    norm = RewardNorm(0.9)
    with pytest.raises(RunFailed, match="module 'm': 1 of 1 rewards are NaN"):
        norm.learn([fragment([[np.nan]], [[0]], [[0]])], "m")
    assert np.isfinite(norm.deviation)


# In a run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint, and the algorithm that wrote it."""
    algorithm = config().build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert result["env_runners"]["episode_return_mean"] == 20.0
    path = tmp_path_factory.mktemp("normalised") / "checkpoint"
    algorithm.save_to_path(str(path))
    steps = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
    manifest.write(path, recipe={"env": "far", "env_config": {}}, iteration=2, env_steps=steps)
    yield path, algorithm
    algorithm.stop()


def test_the_learner_sees_scaled_rewards_and_targets(checkpoint: tuple[Path, Any]) -> None:
    _, algorithm = checkpoint
    # gamma .99: returns of 5, 9.95, 14.85, 19.7 in each episode, of deviation 5.5
    assert algorithm._reward_norm.deviation == pytest.approx(5.48, abs=0.1)


def test_evaluation_agent_and_export_use_the_numbers_and_leave_them(
    checkpoint: tuple[Path, Any], tmp_path: Path
) -> None:
    path, algorithm = checkpoint
    live = algorithm.env_runner.pipelines[0].connectors[0]
    count = live.total.count
    agent = rlkit.load(path)
    assert isinstance(agent.policy, DirectPolicy)
    rows = np.random.default_rng(0).normal([100.0, -3.0], [10.0, 0.1], (20, 2))
    (own,) = [c for c in agent.policy.env_to_module.connectors if isinstance(c, NormalizeObservations)]
    np.testing.assert_array_equal(own.rows(rows), live.rows(rows))
    assert np.abs(own.rows(rows)).mean() < 2.0
    actions = agent.act(rows)
    np.testing.assert_array_equal(rlkit.load(export(path, tmp_path / "policy").path).act(rows), actions)
    for _ in range(3):
        agent.act(rows + 1e6)
    assert own.total.count == live.total.count == count


def test_a_restored_algorithm_has_the_same_numbers(checkpoint: tuple[Path, Any]) -> None:
    path, algorithm = checkpoint
    again = config().build_algo()
    again.restore_from_path(str(path))
    live, restored = (one.env_runner.pipelines[0].connectors[0] for one in (algorithm, again))
    assert restored.total.count == live.total.count
    np.testing.assert_array_equal(restored.total.mean, live.total.mean)
    np.testing.assert_array_equal(restored.total.squares, live.total.squares)
    assert again._reward_norm.deviation == algorithm._reward_norm.deviation
    again.train()
    assert restored.total.count > live.total.count
    again.stop()


@pytest.mark.usefixtures("ray_local")
def test_remote_runners_share_what_they_saw() -> None:
    algorithm = config().env_runners(num_env_runners=2, num_envs_per_env_runner=1).build_algo()
    for _ in range(2):
        algorithm.train()
    counts = algorithm.env_runner_group.foreach_env_runner(_count, local_env_runner=False)
    driver = algorithm.env_runner.pipelines[0].connectors[0]
    algorithm.stop()
    # 2 x 64 steps, a reset after every 4 of them, the first observation of each runner
    assert driver.total.count == pytest.approx(128 * 5 / 4, abs=3)
    assert counts == [driver.total.count] * 2


def _count(env_runner: Any) -> float:
    return float(env_runner.pipelines[0].connectors[0].total.count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.learners(num_learners=2), "normalize_rewards: .* num_learners: 2"),
        (
            lambda c: c.multi_agent(policies={"a"}, policy_mapping_fn=lambda *_: "a"),
            "normalize_observations: got true for several agents",
        ),
    ],
)
def test_what_cannot_be_normalised_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(config()).validate()
