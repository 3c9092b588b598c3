"""Intrinsic rewards: their formulas, that novelty wears off, and that runners learn from each other."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import cloudpickle
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import make_multi_agent
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.algos.dqn import DQNConfig as OwnDQNConfig
from rlkit.algos.ppo import PPOConfig as OwnPPOConfig
from rlkit.algos.sampling.episode_runner import SingleEpisodeRunner
from rlkit.callbacks.base import _take_numbered
from rlkit.exploration import configure, create
from rlkit.exploration.bonus import CountBonus
from rlkit.exploration.counts import StateCounter
from rlkit.exploration.runner import ModuleStates
from rlkit.models import module_spec

cloudpickle.register_pickle_by_value(sys.modules[__name__])

BOX = gym.spaces.Box(-10.0, 10.0, (3,), np.float32)


class Walk(gym.Env):
    """10 steps to the right from 0; the reward is always 1."""

    observation_space = gym.spaces.Box(0.0, 20.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.t = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.array([self.t], np.float32), 1.0, False, self.t == 10, {}


def walking(exploration: dict[str, Any], base: Any = PPOConfig, **runners: Any) -> Any:
    config = base().environment(Walk).debugging(seed=0)
    config.env_runners(rollout_fragment_length=5, num_envs_per_env_runner=2, **runners)
    configure(config, exploration)
    return config


@pytest.mark.parametrize("base", [PPOConfig, DQNConfig])
def test_counts_pay_the_inverse_root_of_visits(base: Any) -> None:
    config = walking({"type": "CountBased", "eta": 3.0, "bins": 20}, base, explore=True)
    runner = SingleAgentEnvRunner(config=config)
    visits: dict[int, int] = {}
    for _ in range(6):
        for episode in runner.sample():
            for place, reward in zip(episode.get_observations()[1:, 0], episode.get_rewards(), strict=True):
                visits[int(place)] = visits.get(int(place), 0) + 1
                assert reward == pytest.approx(1.0 + 3.0 / np.sqrt(visits[int(place)]))
    metrics = runner.get_metrics()
    assert metrics["episode_return_mean"].peek() == 10.0
    assert metrics["edited_return"]["IntrinsicRewards"].peek() > 15.0
    assert 0 < metrics["exploration"]["default_policy"]["bonus"].peek() < 1


def test_coefficients_follow_their_schedule_and_switches_turn_them_off() -> None:
    config = walking({"type": "CountBased", "eta": [[0, 1.0], [100, 0.0]], "bins": 20})
    runner = SingleAgentEnvRunner(config=config)
    assert max(e.get_rewards().max() for e in runner.sample()) == pytest.approx(2.0)
    runner.num_env_steps_sampled_lifetime = 100
    assert all((e.get_rewards() == 1.0).all() for e in runner.sample())
    for off in ({"in_evaluation": True}, {"explore": False}):
        config = walking({"type": "CountBased", "eta": 1.0})
        for name, value in off.items():
            setattr(config, name, value)
        runner = SingleAgentEnvRunner(config=config)
        assert all((e.get_rewards() == 1.0).all() for e in runner.sample())


@pytest.mark.parametrize(
    ("kind", "actions"),
    [
        ("RND", gym.spaces.Discrete(2)),
        ("Curiosity", gym.spaces.Discrete(2)),
        ("Curiosity", gym.spaces.MultiDiscrete([2, 3])),
        ("Curiosity", gym.spaces.Box(-1, 1, (2,), np.float32)),
    ],
)
def test_novelty_wears_off_where_one_has_been(kind: str, actions: gym.Space) -> None:
    rng = np.random.default_rng(0)
    actions.seed(0)
    model = create({"type": kind}).bonus(BOX, actions, seed=0)  # type: ignore[attr-defined]

    def batch(size: int, place: float) -> tuple[Any, Any, Any]:
        observations = rng.normal(place, 0.1, (size, 3)).astype(np.float32)
        taken = np.array([actions.sample() for _ in range(size)])
        return observations, taken, observations + 0.1

    model(*(np.concatenate(pair) for pair in zip(batch(50, 0.0), batch(50, 3.0), strict=True)))
    before = model(*batch(100, 0.0)).mean()
    for _ in range(300):
        values = model(*batch(64, 0.0))
        assert values.shape == (64,)
        assert (values >= 0).all()
    after, elsewhere = model(*batch(100, 0.0)).mean(), model(*batch(100, 3.0)).mean()
    assert after < 0.5 * before
    assert elsewhere > 3 * after


class Table(Walk):
    """Actions are a table of choices that begin at 5, observations come with a mask of them if asked."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.masked = bool((config or {}).get("masked"))
        if self.masked:
            self.action_space = gym.spaces.Discrete(2)
            mask = gym.spaces.Box(0, 1, (2,), np.int8)
            self.observation_space = gym.spaces.Dict(observation=Walk.observation_space, action_mask=mask)
        else:
            self.action_space = gym.spaces.MultiDiscrete([[2, 3], [2, 2]], start=[[5, 5], [5, 5]])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observation, info = super().reset()
        return self.shown(observation), info

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        observation, *rest = super().step(action)
        return self.shown(observation), *rest

    def shown(self, observation: Any) -> Any:
        mask = np.array([1, self.t % 2], np.int8)
        return {"observation": observation, "action_mask": mask} if self.masked else observation


def test_curiosity_takes_the_actions_of_the_module() -> None:
    config = OwnPPOConfig().environment(Table).env_runners(rollout_fragment_length=10)
    configure(config, {"type": "Curiosity"})
    runner = SingleEpisodeRunner(config=config)
    (episode,) = runner.sample()
    assert (np.array(episode.get_rewards()) > 1.0).all()
    model = next(c for c in runner._callbacks if hasattr(c, "kept")).kept["default_policy"]
    assert model.nets["inverse"][-1].out_features == 9


def test_counts_of_masked_observations_leave_out_the_mask() -> None:
    config = OwnPPOConfig().environment(Table, env_config={"masked": True})
    config.env_runners(rollout_fragment_length=20)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [4]}))
    configure(config, {"type": "CountBased", "eta": 1.0, "bins": 2})  # places 0 to 9, and 10: two cells
    (first, *_) = SingleEpisodeRunner(config=config).sample()
    np.testing.assert_allclose(
        np.array(first.get_rewards())[:9], 1 + 1 / np.sqrt(np.arange(1, 10)), rtol=1e-6
    )


def test_ucb_counts_masked_observations_and_obeys_the_mask() -> None:
    config = OwnDQNConfig().environment(Table, env_config={"masked": True})
    config.env_runners(rollout_fragment_length=40)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [4]}))
    configure(config, {"type": "UpperConfidenceBound", "bins": 20})
    runner = SingleEpisodeRunner(config=config)
    for episode in runner.sample():
        masks = episode.get_observations()["action_mask"][:-1]
        taken = np.array(episode.get_actions())
        assert masks[np.arange(len(taken)), taken].all()
    explorer = next(c for c in runner._callbacks if hasattr(c, "kept")).kept["default_policy"]
    assert explorer.report()["states_seen"] == 11


def test_models_save_and_restore_exactly() -> None:
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(32, 3)).astype(np.float32), rng.integers(2, size=32), rng.normal(size=(32, 3)))
    for kind in ("CountBased", "RND", "Curiosity"):
        exploration = create({"type": kind})
        model = exploration.bonus(BOX, gym.spaces.Discrete(2), seed=0)  # type: ignore[attr-defined]
        for _ in range(3):
            model(*batch)
        other = exploration.bonus(BOX, gym.spaces.Discrete(2), seed=1)  # type: ignore[attr-defined]
        other.set_state(model.get_state())
        for _ in range(2):
            np.testing.assert_array_equal(model(*batch), other(*batch))


def test_runners_add_up_their_counts_and_average_their_networks() -> None:
    bonuses = [CountBonus(StateCounter(Walk.observation_space, bins=20)) for _ in range(3)]
    for i, bonus in enumerate(bonuses):
        bonus(None, None, np.full((i + 1, 1), 5.0))
    for _ in range(2):  # the second round has nothing new
        sent = [bonus.send() for bonus in bonuses]
        for i, bonus in enumerate(bonuses):
            bonus.receive(sent[i], sent[:i] + sent[i + 1 :])
    for bonus in bonuses:
        assert bonus.counter.counts_of(bonus.counter.cells(np.array([[5.0]])))[0, 0] == 6
    exploration = create({"type": "RND"})
    models = [exploration.bonus(BOX, gym.spaces.Discrete(2), seed=0) for _ in range(2)]  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for model in models:
        model(None, None, rng.normal(size=(8, 3)))
    own = [model.send() for model in models]
    for model, mine, theirs in zip(models, own, own[::-1], strict=True):
        model.receive(mine, [theirs])
        for name, value in model.send().items():
            np.testing.assert_allclose(value, (own[0][name] + own[1][name]) / 2, rtol=1e-6)


def test_each_module_of_several_agents_has_its_own_bonus() -> None:
    config = (
        PPOConfig()
        .environment(make_multi_agent(Walk), env_config={"num_agents": 3})
        .multi_agent(
            policies={"shared", "alone"},
            policy_mapping_fn=lambda agent, *_, **__: "alone" if agent == 0 else "shared",
            policies_to_train=["shared"],
        )
        .env_runners(rollout_fragment_length=5)
        .debugging(seed=0)
    )
    configure(config, {"type": "CountBased", "eta": 1.0, "bins": 20})
    runner = MultiAgentEnvRunner(config=config)
    (episode,) = runner.sample()
    rewards = {agent: np.array(single.get_rewards()) for agent, single in episode.agent_episodes.items()}
    np.testing.assert_array_equal(rewards[0], 1.0)  # not trained
    np.testing.assert_allclose(sorted(r[0] for a, r in rewards.items() if a), [1 + 1 / np.sqrt(2), 2.0])


def test_who_plays_may_depend_on_the_episode() -> None:
    config = (
        PPOConfig()
        .environment(make_multi_agent(Walk), env_config={"num_agents": 2})
        .multi_agent(
            policies={"first", "second"},
            policy_mapping_fn=lambda agent, episode, **_: (
                "first" if hash(episode.id_) % 2 == agent else "second"
            ),
        )
        .env_runners(rollout_fragment_length=5)
        .debugging(seed=0)
    )
    configure(config, {"type": "CountBased", "eta": 1.0, "bins": 20})
    (episode,) = MultiAgentEnvRunner(config=config).sample()
    for single in episode.agent_episodes.values():
        np.testing.assert_array_equal(single.get_rewards(), 2.0)


@pytest.mark.parametrize(
    ("number", "runners", "expected"),
    [
        (1, 3, {"m": {"rng": "one", "counts": 10}}),
        (3, 3, {"m": {"counts": 20}}),  # there was no third: another's, with random numbers of its own
        (0, 3, {}),  # beside remote runners the local one does not sample
        (0, 0, {"m": {"counts": 10}}),
    ],
)
def test_more_or_fewer_runners_go_on_with_what_was_counted(
    number: int, runners: int, expected: dict[str, Any]
) -> None:
    states = {0: {}, 1: {"m": {"rng": "one", "counts": 10}}, 2: {"m": {"rng": "two", "counts": 20}}}
    runner = SimpleNamespace(worker_index=number, config=SimpleNamespace(num_env_runners=runners))
    callback = ModuleStates()
    _take_numbered(callback, states, runner)
    assert callback.get_runner_state() == expected
    _take_numbered(callback, {0: states[1]}, runner)  # saved by a local runner that sampled
    assert callback.get_runner_state() == (states[1] if number == 0 else {"m": {"counts": 10}})


def test_remote_runners_share_what_they_counted(ray_local: None) -> None:
    config = walking({"type": "CountBased", "eta": 1.0, "bins": 20}, num_env_runners=2)
    config.training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=1)
    algorithm = config.build_algo()
    try:
        algorithm.train()
        (callback,) = algorithm.callbacks
        states = [s["default_policy"] for s in callback.call_runners("get_runner_state", indices=[1, 2])]
        totals = [s["counts"].sum() for s in states]
        assert totals[0] == totals[1] >= 40
        algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner._callbacks[0].kept.clear(), remote_worker_ids=[2], local_env_runner=False
        )
        callback.on_env_runners_recreated(
            algorithm=algorithm, env_runner_indices=[2], is_evaluation=False, env_runner_group=None
        )
        (again,) = callback.call_runners("get_runner_state", indices=[2])
        assert again["default_policy"]["counts"].sum() == totals[0]
    finally:
        algorithm.stop()
