"""PPO on several env runners and several learners: what is sampled with which weights, and what stops a run."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.step import check_rewards
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.errors import RunFailed, UsageError
from rlkit.recipe import check

MODEL = {"fcnet_hiddens": [16], "fcnet_activation": "tanh"}


def config(**training: Any) -> PPOConfig:
    made = PPOConfig().environment("CartPole-v1").debugging(seed=0).rl_module(model_config=MODEL)
    made.env_runners(num_env_runners=2, num_envs_per_env_runner=1)
    return made.training(
        **{"train_batch_size_per_learner": 64, "minibatch_size": 32, "num_epochs": 2, **training}
    )


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("overlap", [False, True])
def test_runners_sample_ahead_with_the_weights_of_the_step_before(overlap: bool) -> None:
    algorithm = config(overlap_sampling=overlap).build_algo()
    learn, seen = algorithm.learn, []

    def watched(samples: list[Any], sampled: int) -> Any:
        ages = []
        for sample in samples:
            assert isinstance(sample, ArrayFragment)
            ages.append(sample.weights_seq_no)
        seen.append((sorted({one.runner for one in samples}), max(ages), sampled))
        return learn(samples, sampled)

    algorithm.learn = watched
    steps = [int(algorithm.train()["num_env_steps_sampled_lifetime"]) for _ in range(4)]
    algorithm.stop()
    runners, weights, sampled = zip(*seen, strict=True)
    assert list(runners) == [[1, 2]] * 4
    assert np.diff([0, *steps]).tolist() == list(sampled)  # what is on its way does not count yet
    assert all(64 <= count <= 70 for count in sampled)
    expected = [0, 0, 1, 2] if overlap else [0, 1, 2, 3]
    assert [number - weights[0] for number in weights] == expected


@pytest.mark.usefixtures("ray_local")
def test_two_learners_share_each_batch_and_end_with_equal_weights() -> None:
    made = config(normalize_observations=True).learners(num_learners=2, num_cpus_per_learner=0.5)
    algorithm = made.build_algo()
    before = _weights(algorithm)
    result = algorithm.train()
    first, second = _weights(algorithm)
    algorithm.stop()
    assert result["learners"][DEFAULT_MODULE_ID]["num_module_steps_trained"] > 0
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert any((value != before[0][name]).any() for name, value in first.items())


def _weights(algorithm: Any) -> list[dict[str, np.ndarray]]:
    return [answer.get() for answer in algorithm.learner_group.foreach_learner(_state)]


def _state(learner: Any) -> dict[str, np.ndarray]:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {name: value.detach().numpy().copy() for name, value in module.named_parameters()}


class Broken(gym.Env):
    """The third reward is inf."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.t = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(2, np.float32), float("inf") if self.t == 3 else 1.0, self.t == 9, False, {}


@pytest.mark.usefixtures("ray_local")
def test_an_infinite_reward_stops_rllibs_learner_pipeline_too() -> None:
    made = config().environment(Broken).env_runners(num_env_runners=0)
    algorithm = made.build_algo()
    algorithm._decided, algorithm._reason = True, "the test says so"
    before = _weights(algorithm)
    with pytest.raises(RunFailed, match=r"module 'default_policy': .* rewards are NaN or inf"):
        algorithm.train()
    after = _weights(algorithm)
    algorithm.stop()
    for name, value in before[0].items():
        np.testing.assert_array_equal(value, after[0][name])


@pytest.mark.usefixtures("ray_local")
def test_what_a_remote_learner_raises_ends_the_run_with_its_own_message() -> None:
    made = config().environment(Broken).env_runners(num_env_runners=0).learners(num_learners=1)
    algorithm = made.build_algo()
    try:
        with pytest.raises(RunFailed, match=r"module 'default_policy': .* rewards are NaN or inf"):
            algorithm.train()
    finally:
        algorithm.stop()


LEARNT_FROM_COLUMNS = {"stop_kl": 0.1, "vf_clip_range": 0.2, "normalize_rewards": True}


@pytest.mark.parametrize(("word", "value"), LEARNT_FROM_COLUMNS.items(), ids=LEARNT_FROM_COLUMNS)
def test_what_rllibs_pipeline_does_not_know_is_refused_for_several_learners(word: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{word}: got {value} with num_learners: 2, expected one learner"):
        config(**{word: value}).learners(num_learners=2).validate()
    made = config().learners(num_learners=2)
    made.rl_module(algorithm_config_overrides_per_module={DEFAULT_MODULE_ID: made.overrides(**{word: value})})
    with pytest.raises(ValueError, match=rf"{word}: (got )?{value} (with num_learners: 2|for module)"):
        made.validate()


def _as_they_are(*_: Any) -> list[Any]:
    return [Unchanged()]


class Unchanged(ConnectorV2):
    """A learner connector of the user's."""

    def __call__(self, *, batch: Any, **kwargs: Any) -> Any:
        return batch


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("word", ["stop_kl", "vf_clip_range"])
def test_what_rllibs_pipeline_does_not_know_is_refused_beside_a_learner_connector(word: str) -> None:
    made = config(learner_connector=_as_they_are, **{word: 1e-6}).env_runners(num_env_runners=0)
    algorithm = made.build_algo()
    with pytest.raises(UsageError, match=f"{word}: 1e-06 learns from columns, .* Unchanged reads episodes"):
        algorithm.train()
    algorithm.stop()


def test_finite_rewards_pass() -> None:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    episode = SingleAgentEpisode(observations=[0], observation_space=gym.spaces.Discrete(2))
    episode.add_env_step(1, 0, 1.0)
    check_rewards(episode)
    episode.add_env_step(1, 0, float("nan"))
    with pytest.raises(RunFailed, match="1 of 2 rewards"):
        check_rewards(episode)


@pytest.mark.usefixtures("ray_local")
def test_the_learning_rate_follows_its_schedule_by_env_steps() -> None:
    points = [[0, 1e-2], [128, 4e-3], [256, 0.0]]
    algorithm = config(lr=points).env_runners(num_env_runners=0, num_envs_per_env_runner=2).build_algo()
    for _ in range(4):
        steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
        (rate,) = (answer.get() for answer in algorithm.learner_group.foreach_learner(_rate))
        assert rate == pytest.approx(np.interp(steps, *zip(*points, strict=True)), rel=1e-5, abs=1e-9)
    algorithm.stop()
    assert rate == 0.0


def _rate(learner: Any) -> float:
    ((_, optimizer),) = learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
    return float(optimizer.param_groups[0]["lr"])


# What a recipe shows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("ppo_memory", ["config.env_runners.rollout_fragment_length=16"], "longer than a fragment of 16"),
        ("ppo_memory", ["config.training.train_batch_size_per_learner=512"], "fragment of 16 steps"),
        ("ppo_cartpole", ["config.training.overlap_sampling=true"], "needs remote env runners"),
        ("ppo_cartpole", ["config.training.minibatch_size=300"], "larger than the batch"),
        ("ppo_cartpole", ["config.training.lr=[[10, 1e-3], [20, 0]]"], "begins at step 0"),
        ("ppo_cartpole", ["config.training.clip_param=[[0, 0.2], [9, -1]]"], "at least 0"),
        ("ppo_cartpole", ["config.training.stop_kl=0.1", "config.learners.num_learners=2"], "is for one learner"),
        ("ppo_cartpole", ["config.training.vf_clip_range=1", "config.learners.num_learners=2"], "num_learners 2"),
        ("dqn_cartpole", ["config.training.normalize_rewards=true"], "DQN's training has no argument"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_by_the_check(recipe: str, overrides: list[str], message: str) -> None:
    problems = check(recipe, overrides=overrides)
    assert len(problems) == 1
    assert message in str(problems[0])
