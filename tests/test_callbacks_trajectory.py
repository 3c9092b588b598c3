"""Trajectories: what a postprocessor sees, edits and adds; the same whatever the fragments are."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.algos.sampling.episode_runner import EpisodeRunner
from rlkit.callbacks import (
    CallbackError,
    MergeAgentObservations,
    MonteCarloReturns,
    RewardScale,
    RewardShaping,
    TrajectoryPostprocessor,
)


class Countdown(gym.Env):
    """Ends by itself after 11 steps; the observation is [episode, step], the reward the step squared."""

    observation_space = gym.spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.episode = -1

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.episode, self.step_number = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.step_number += 1
        observation = np.array([self.episode, self.step_number], np.float32)
        return observation, float(self.step_number**2), self.step_number == 11, False, {"n": self.step_number}


class TurnsAndDropouts(MultiAgentEnv):
    """Agent a acts at every step, b at even steps only, c ends after step 5; 12 steps in all."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b", "c"]
        box = gym.spaces.Box(-100, 100, (2,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, box)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(3))

    def _acting(self) -> list[str]:
        names = ["a"]
        if self.t % 2 == 0:
            names.append("b")
        if self.t <= 5:
            names.append("c")
        return names

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return {name: np.array([ord(name), 0], np.float32) for name in self._acting()}, {}

    def step(self, actions: dict[str, int]) -> Any:
        rewards = {name: float(self.t) for name in actions}
        self.t += 1
        observations = {name: np.array([ord(name), self.t], np.float32) for name in self._acting()}
        terminated = {"__all__": self.t == 12}
        if self.t == 5:
            terminated["c"] = True
        if self.t > 5:
            observations.pop("c", None)
        return observations, rewards, terminated, {"__all__": False}, {}


class Recorder(TrajectoryPostprocessor):
    """Keeps copies of everything it is given, and doubles the rewards."""

    def __init__(self, scope: str = "fragment"):
        super().__init__(scope=scope)
        self.seen: list[tuple[Any, ...]] = []

    def postprocess_trajectory(self, trajectory: Any, others: Any) -> None:
        self.seen.append(
            (
                trajectory.id,
                trajectory.agent,
                trajectory.start,
                trajectory.observations.copy(),
                trajectory.rewards.copy(),
                {
                    name: (o.present.copy(), o.observations.copy(), o.actions.copy(), o.rewards.copy())
                    for name, o in others.items()
                },
                trajectory.env_steps.copy(),
                trajectory.terminated,
            )
        )
        trajectory.rewards = trajectory.rewards * 2
        trajectory.columns["t"] = np.arange(trajectory.start, trajectory.start + len(trajectory))


def single(fragment: int | str, *callbacks: Any, config: Any = None, envs: int = 3) -> SingleAgentEnvRunner:
    config = (config or PPOConfig()).environment(Countdown).callbacks(list(callbacks))
    if fragment == "complete_episodes":
        config.env_runners(batch_mode="complete_episodes", num_envs_per_env_runner=envs)
    else:
        config.env_runners(rollout_fragment_length=fragment, num_envs_per_env_runner=envs)
    return SingleAgentEnvRunner(config=config.training(gamma=0.9))


def multi(fragment: int, *callbacks: Any) -> MultiAgentEnvRunner:
    config = (
        PPOConfig()
        .environment(TurnsAndDropouts)
        .multi_agent(policies={"a", "b", "c"}, policy_mapping_fn=lambda agent, *_, **__: agent)
        .env_runners(rollout_fragment_length=fragment, num_envs_per_env_runner=1)
        .callbacks(list(callbacks))
        .training(gamma=0.9)
    )
    return MultiAgentEnvRunner(config=config)


def collect(runner: Any, steps: int) -> list[Any]:
    episodes: list[Any] = []
    while sum(e.env_steps() for e in episodes) < steps:
        episodes += runner.sample()
    return episodes


def whole_rewards(episodes: list[Any]) -> dict[tuple[float, int], float]:
    """{(episode number, step): reward the learner sees}, over whatever pieces the episodes came in."""
    out = {}
    for episode in episodes:
        observations = episode.get_observations(slice(0, len(episode)))
        for (number, step), reward in zip(observations, episode.get_rewards(), strict=True):
            out[float(number), int(step)] = float(reward)
    return out


@pytest.mark.parametrize("fragment", [1, 7, 200, "complete_episodes"])
def test_whole_episodes_are_the_same_for_every_fragment_length(fragment: Any) -> None:
    runner = single(fragment, Recorder.bind(scope="episode"), envs=1)
    episodes = collect(runner, 44)
    recorder = runner._callbacks[0]
    for number, (_, _, start, observations, rewards, _, _, terminated) in enumerate(recorder.seen[:4]):
        assert start == 0
        assert terminated
        np.testing.assert_array_equal(observations, [[number, t] for t in range(12)])
        np.testing.assert_array_equal(rewards, [(t + 1) ** 2 for t in range(11)])
    for episode in episodes[:4]:
        episode.validate()
        assert len(episode) == 11
        np.testing.assert_array_equal(episode.get_extra_model_outputs("t"), range(11))
        np.testing.assert_array_equal(episode.get_rewards(), [2 * (t + 1) ** 2 for t in range(11)])
        assert [info.get("n") for info in episode.get_infos()] == [None, *range(1, 12)]


@pytest.mark.parametrize("scope", ["fragment", "episode"])
@pytest.mark.parametrize("fragment", [1, 7, 200, "complete_episodes"])
def test_stepwise_edits_do_not_depend_on_fragments_or_scope(fragment: Any, scope: str) -> None:
    runner = single(fragment, Recorder.bind(scope=scope), RewardShaping.bind(weights=[0.0, 1.0]), envs=1)
    seen = whole_rewards(collect(runner, 33))
    for number in range(3):
        for t in range(11):
            potential = 0.9 * (t + 1 if t < 10 else 0) - t  # 0 at the terminal state
            assert seen[number, t] == pytest.approx(2 * (t + 1) ** 2 + potential)


@pytest.mark.parametrize("fragment", [1, 7, 200])
def test_reported_return_is_the_environments_own(fragment: int) -> None:
    plain, edited = single(fragment), single(fragment, RewardScale.bind(scale=100.0))
    for _ in range(210 // fragment):
        plain.sample()
        samples = edited.sample()
        assert all((e.get_rewards() >= 100).all() for e in samples)
    expected, metrics = plain.get_metrics(), edited.get_metrics()
    own = float(sum((t + 1) ** 2 for t in range(11)))
    assert metrics["episode_return_mean"].peek() == expected["episode_return_mean"].peek() == own
    assert metrics["edited_return"]["RewardScale"].peek() == 100 * own


def test_two_of_one_class_report_returns_of_their_own() -> None:
    scales = RewardScale.bind(scale=0.1, agents=["a"]), RewardScale.bind(scale=10.0, agents=["b"])
    runner = multi(12, *scales)
    runner.sample()
    metrics = runner.get_metrics()
    # a: 0 to 11, b: the even ones of them, c: 0 to 4
    returns = {name: value.peek() for name, value in metrics["edited_return"].items()}
    assert returns == {"RewardScale": pytest.approx(46.6), "RewardScale_2": pytest.approx(316.6)}
    agents = metrics["edited_return_by_agent"]["RewardScale_2"]
    assert {agent: value.peek() for agent, value in agents.items()} == pytest.approx(
        {"a": 6.6, "b": 300.0, "c": 10.0}
    )


def test_monte_carlo_returns_follow_the_recursion() -> None:
    runner = single(4, MonteCarloReturns.bind(column="mc"), envs=2)
    for episode in collect(runner, 44):
        expected = [sum(0.9 ** (k - t) * (k + 1) ** 2 for k in range(t, 11)) for t in range(11)]
        np.testing.assert_allclose(episode.get_extra_model_outputs("mc"), expected, rtol=1e-6)


def test_forced_reset_releases_what_was_held_back() -> None:
    runner = single(4, Recorder.bind(scope="episode"), envs=1)
    assert runner.sample() == []
    pieces = runner.sample(num_timesteps=1, force_reset=True)
    assert [(len(p), p.is_done) for p in pieces] == [(4, False)]


def test_evaluation_runners_are_left_alone() -> None:
    config = PPOConfig().environment(Countdown).callbacks([RewardScale.bind(scale=100.0)])
    config.in_evaluation = True
    runner = SingleAgentEnvRunner(config=config)
    (episode,) = runner.sample(num_episodes=1)
    assert episode.get_rewards()[0] == 1.0


@pytest.mark.parametrize("fragment", [1, 5, 200])
def test_other_agents_are_aligned_in_time(fragment: int) -> None:
    runner = multi(fragment, Recorder.bind(scope="episode"))
    samples = [e for e in collect(runner, 24) if e.is_done]
    by_agent = {agent: row for row in runner._callbacks[0].seen[:3] for agent in [row[1]]}
    assert sorted(by_agent) == ["a", "b", "c"]
    _, _, _, observations, rewards, others, env_steps, _ = by_agent["a"]
    np.testing.assert_array_equal(env_steps, range(12))
    np.testing.assert_array_equal(observations[:, 1], range(13))
    np.testing.assert_array_equal(rewards, range(12))
    present, seen, actions, other_rewards = others["b"]
    np.testing.assert_array_equal(present, [t % 2 == 0 for t in range(12)])
    np.testing.assert_array_equal(seen[:, 1], [t if t % 2 == 0 else 0 for t in range(13)])
    np.testing.assert_array_equal(other_rewards, [t if t % 2 == 0 else 0 for t in range(12)])
    assert len(actions) == 12
    present, _, _, _ = others["c"]
    np.testing.assert_array_equal(present, [t < 5 for t in range(12)])
    _, _, _, _, rewards, others, env_steps, _ = by_agent["b"]
    np.testing.assert_array_equal(env_steps, range(0, 12, 2))
    assert others["a"][0].all()
    np.testing.assert_array_equal(others["a"][1][:, 1], range(0, 13, 2))
    for episode in samples:
        episode.validate()
        assert episode.agent_episodes["a"].get_rewards()[3] == 6.0
        assert list(episode.agent_episodes["b"].get_extra_model_outputs("t")) == list(range(6))


def test_merged_observations_hold_zeros_for_the_absent() -> None:
    runner = multi(200, MergeAgentObservations.bind())
    episode = next(e for e in collect(runner, 12) if e.is_done)
    outputs = episode.agent_episodes["a"].extra_model_outputs
    merged = np.array(outputs["others_obs"])
    assert merged.shape == (12, 4)
    np.testing.assert_array_equal(merged[:, 1], [t if t % 2 == 0 else 0 for t in range(12)])
    np.testing.assert_array_equal(merged[:, 3], [t if t <= 5 else 0 for t in range(12)])
    actions = np.array(outputs["others_actions"])
    assert actions.shape == (12, 6)
    np.testing.assert_array_equal(actions.sum(1), [(t % 2 == 0) + (t < 5) for t in range(12)])
    np.testing.assert_array_equal(np.array(outputs["others_present"])[:, 0], [t % 2 == 0 for t in range(12)])


class Counted(TurnsAndDropouts):
    """Observations are whole numbers, actions a table of choices and choices that begin at 5."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.observation_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(13))
        self.action_spaces = {
            "a": gym.spaces.Discrete(3, start=5),
            "b": gym.spaces.MultiDiscrete([[2, 3], [2, 2]]),
            "c": gym.spaces.Discrete(3),
        }

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observations, infos = super().reset()
        return {agent: self.t for agent in observations}, infos

    def step(self, actions: dict[str, Any]) -> Any:
        for agent, action in actions.items():
            assert self.action_spaces[agent].contains(action), (agent, action)
        observations, *rest = super().step(dict.fromkeys(actions, 0))
        return {agent: self.t for agent in observations}, *rest


def test_merged_observations_may_be_flat_already_and_actions_are_the_modules() -> None:
    from rlkit.algos.ppo import PPOConfig as OwnPPOConfig

    config = (
        OwnPPOConfig()
        .environment(Counted)
        .multi_agent(policies={"a", "b", "c"}, policy_mapping_fn=lambda agent, *_, **__: agent)
        .env_runners(
            rollout_fragment_length=200,
            num_envs_per_env_runner=1,
            env_to_module_connector=lambda *_: FlattenObservations(multi_agent=True),
        )
        .callbacks([MergeAgentObservations.bind()])
    )
    episode = next(e for e in collect(EpisodeRunner(config=config), 12) if e.is_done)
    outputs = {a: one.extra_model_outputs for a, one in episode.agent_episodes.items()}
    merged = np.array(outputs["c"]["others_obs"])  # of a, then of b
    np.testing.assert_array_equal(merged[:, :13], np.eye(13)[:5])
    np.testing.assert_array_equal(merged[:, 13:].sum(1), [1, 0, 1, 0, 1])
    actions = np.array(outputs["c"]["others_actions"])
    assert actions.shape == (5, 3 + 9)
    np.testing.assert_array_equal(actions[:, :3], np.eye(3)[episode.agent_episodes["a"].get_actions()[:5]])
    np.testing.assert_array_equal(actions[:, 3:].sum(1), [4, 0, 4, 0, 4])


def edit_with(**changes: Any) -> type[TrajectoryPostprocessor]:
    class Edit(TrajectoryPostprocessor):
        def postprocess_trajectory(self, trajectory: Any, others: Any) -> None:
            for name, change in changes.items():
                if name in ("rewards", "observations", "actions"):
                    setattr(trajectory, name, change(getattr(trajectory, name)))
                else:
                    trajectory.columns[name] = change(trajectory.rewards)

    return Edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": lambda r: np.float64(1.0)}, r"rewards has shape \(\), expected \(5,\)"),
        ({"rewards": lambda r: r[:1]}, r"rewards has shape \(1,\), expected \(5,\)"),
        ({"rewards": lambda r: r[:, None]}, r"rewards has shape \(5, 1\)"),
        ({"rewards": lambda r: r.astype(str)}, "rewards has dtype <U"),
        ({"rewards": lambda r: np.where(np.arange(5) == 3, np.nan, r)}, "rewards is nan at step 3"),
        ({"extra": lambda r: np.array([np.inf] * 5)}, "extra is inf at step 0"),
        ({"extra": lambda r: np.zeros(4)}, r"extra has shape \(4,\), expected \(5, …\)"),
        ({"observations": lambda o: o[:-1]}, r"observations has shape \(5, 2\), expected \(6, 2\)"),
        ({"actions": lambda a: a + 0.5}, "actions has dtype float64, expected int"),
    ],
)
def test_wrong_edits_are_errors_that_name_everything(change: Any, message: str) -> None:
    runner = single(5, edit_with(**change), envs=1)
    with pytest.raises(CallbackError, match=message) as caught:
        runner.sample()
    text = str(caught.value)
    assert "callback Edit failed in postprocess_trajectory (episode " in text
    assert "steps 0 to 5" in text


def test_an_edited_observation_reaches_the_learner_but_not_the_source() -> None:
    runner = single(5, edit_with(observations=lambda o: o + 1), envs=1)
    (episode,) = runner.sample()
    np.testing.assert_array_equal(episode.get_observations()[:, 1], range(1, 7))
    held = runner._ongoing_episodes_for_metrics[episode.id_][0]
    np.testing.assert_array_equal(held.get_observations()[:, 1], range(6))


def test_untouched_episodes_pass_through_uncopied() -> None:
    class Look(TrajectoryPostprocessor):
        def postprocess_trajectory(self, trajectory: Any, others: Any) -> None:
            assert trajectory.peek_rewards().sum() > 0

    runner = single(5, Look, envs=1)
    (episode,) = runner.sample()
    assert episode is runner._ongoing_episodes_for_metrics[episode.id_][0]


def test_lists_instead_of_arrays_are_edited_too() -> None:
    config = DQNConfig()
    config.env_runners(episodes_to_numpy=False)
    runner = single(5, Recorder.bind(scope="episode"), config=config, envs=1)
    episode = collect(runner, 11)[0]
    assert not episode.is_numpy
    assert episode.get_rewards() == [2 * (t + 1) ** 2 for t in range(11)]
    episode.to_numpy().validate()
