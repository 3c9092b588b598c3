"""Episodes are the environment's: agents that come, go and take turns, fragments of any length, all runners."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from case_envs import ALL, SEVERAL, Two, Waves, Witness, by_hand
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.error import MultiAgentEnvError

from rlkit import registry
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.algos.sampling.episode_runner import EpisodeRunner, SingleEpisodeRunner
from rlkit.algos.sampling.team_runner import TeamEnvRunner
from rlkit.errors import UsageError
from rlkit.launch.build import build
from rlkit.recipe import Recipe
from rlkit.rllib.episodes import EnvEpisode

IMPORTS = ("case_envs",)
pytestmark = pytest.mark.usefixtures("ray_local")


def config_of(
    env: str,
    algorithm: str = "PPO",
    *,
    fragment: int = 5,
    batch: int = 60,
    arrays: bool = True,
    **given: Any,
) -> Any:
    """Return a config; with `arrays` false PPO learns from episodes, as where a callback reads them."""
    runners = {"num_env_runners": 0, "rollout_fragment_length": fragment, **given.pop("runners", {})}
    training: dict[str, Any] = {}
    if algorithm.endswith("PPO"):
        batch = max(batch, fragment * runners.get("num_envs_per_env_runner", 1))
        training = {"train_batch_size": batch, "minibatch_size": batch // 2, "num_epochs": 1}
    elif algorithm.endswith(("DQN", "MADDPG")):
        training = {"train_batch_size": 16, "num_steps_sampled_before_learning_starts": 30}
    config: dict[str, Any] = {"training": training, "env_runners": runners}
    if algorithm == "rllib/DQN" and env in SEVERAL:
        training["replay_buffer_config"] = {"type": "MultiAgentEpisodeReplayBuffer"}
    if algorithm.endswith(("DQN", "MADDPG")):
        config["reporting"] = {"min_sample_timesteps_per_iteration": batch}
    recipe: dict[str, Any] = {
        "name": "case", "algorithm": algorithm, "env": f"case_{env}", "seed": 0, "config": config,
        "model": {"name": "mlp", "hiddens": [8]}, "stop": {"iterations": 2}, **given,
    }  # fmt: skip
    if env in SEVERAL:
        recipe.setdefault("policies", "shared")
    registry.begin(IMPORTS)
    built = build(Recipe.from_dict(recipe)).callbacks([Witness])
    if not arrays:
        built.array_fragments = False
    return built


def witnessed(runner: Any) -> list[dict[str, Any]]:
    return [one for callback in runner._callbacks if isinstance(callback, Witness) for one in callback.seen]


def check_by_hand(env: str, seen: list[dict[str, Any]], **env_config: Any) -> None:
    assert seen
    for one in seen:
        right = by_hand(SEVERAL[env](**env_config), one["number"], one["actions"])
        acting = {agent: value for agent, value in right["returns"].items() if agent in right["steps"]}
        assert one["length"] == right["length"]
        assert one["returns"] == acting
        assert {agent: len(taken) for agent, taken in one["actions"].items()} == right["steps"]
        assert one["ends"] == right["ends"]


@pytest.fixture
def stopped() -> Iterator[list[Algorithm]]:
    algorithms: list[Algorithm] = []
    yield algorithms
    for algorithm in algorithms:
        algorithm.stop()


@pytest.mark.parametrize("fragment", [1, 5, 200])
@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("env", SEVERAL)
def test_a_runner_s_episodes_and_metrics_are_those_of_the_environment(
    env: str, envs: int, fragment: int
) -> None:
    runner = EpisodeRunner(config_of(env, fragment=fragment, runners={"num_envs_per_env_runner": envs}))
    while len(witnessed(runner)) < 12:
        runner.sample()
    metrics = runner.get_metrics()
    seen = witnessed(runner)
    check_by_hand(env, seen)
    truth = [by_hand(SEVERAL[env](), one["number"], one["actions"]) for one in seen]
    assert metrics["episode_len_mean"].peek() == pytest.approx(np.mean([one["length"] for one in truth]))
    returns = [sum(one["returns"].values()) for one in truth]
    assert metrics["episode_return_mean"].peek() == pytest.approx(np.mean(returns))
    agents = {agent for one in truth for agent in one["returns"]}
    for agent in agents:
        own = [one["returns"][agent] for one in truth if agent in one["returns"]]
        assert metrics["agent_episode_returns_mean"][agent].peek() == pytest.approx(np.mean(own))
        steps = [one["steps"].get(agent, 0) for one in truth if agent in one["returns"]]
        assert metrics["agent_steps"][agent].peek() == pytest.approx(np.mean(steps))


def test_each_action_is_one_agent_step() -> None:
    runner = EpisodeRunner(config_of("turns", fragment=200))
    runner.sample(num_timesteps=150)
    metrics = runner.get_metrics()
    assert metrics["num_env_steps_sampled"].peek() == 150
    assert {agent: value.peek() for agent, value in metrics["num_agent_steps_sampled"].items()} == {
        "a": 75,
        "b": 75,
    }
    assert metrics["agent_episode_returns_mean"]["a"].peek() == 55
    assert metrics["agent_episode_returns_mean"]["b"].peek() == 55


def test_a_fixed_team_of_numbered_agents_reports_its_steps_and_returns(
    monkeypatch: pytest.MonkeyPatch, stopped: list[Algorithm]
) -> None:
    monkeypatch.setattr(Two, "names", (0, 1))
    monkeypatch.setattr(Two, "see", lambda *_: np.zeros(2, np.float32))

    def step(self: Two, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == {0, 1}
        self.t += 1
        seen = {agent: self.see(agent) for agent in self.names}
        return seen, {0: 1.0, 1: 2.0}, {ALL: self.t == 5}, {ALL: False}, {}

    monkeypatch.setattr(Two, "step", step)
    found = build_algorithm(config_of("two"), stopped).train()["env_runners"]
    assert found["agent_episode_returns_mean"] == {"0": 5.0, "1": 10.0}
    assert found["agent_steps"] == {"0": 5.0, "1": 5.0}
    assert found["num_agent_steps_sampled"] == {"0": 60, "1": 60}


def test_a_reset_in_the_middle_starts_a_new_episode() -> None:
    runner = EpisodeRunner(config_of("wander", fragment=7))
    for _ in range(6):
        runner.sample()
        runner.sample(num_timesteps=4, force_reset=True)
    runner.sample(num_episodes=3)
    check_by_hand("wander", witnessed(runner))


@pytest.mark.parametrize("algorithm", ["PPO", "DQN", "rllib/DQN"])
@pytest.mark.parametrize(
    ("env", "team", "length"), [("waves", 60, 30), ("turns", 110, 10), ("wander", None, None)]
)
def test_an_algorithm_trains_and_reports_the_environment_s_returns(
    algorithm: str, env: str, team: float | None, length: float | None, stopped: list[Algorithm]
) -> None:
    own = build_algorithm(config_of(env, algorithm, fragment=5 if algorithm.endswith("PPO") else 1), stopped)
    results = [own.train() for _ in range(2)]
    assert [r["env_runners"]["num_env_steps_sampled"] >= 60 for r in results] == [True, True]
    if team is not None:
        assert results[-1]["env_runners"]["episode_return_mean"] == team
        assert results[-1]["env_runners"]["episode_len_mean"] == length
    check_by_hand(env, witnessed(own.env_runner))


@pytest.mark.parametrize(("algorithm", "env"), [("PPO", "waves"), ("DQN", "wander"), ("IMPALA", "turns")])
def test_remote_runners_do_the_same(algorithm: str, env: str, stopped: list[Algorithm]) -> None:
    own = build_algorithm(config_of(env, algorithm, batch=120, runners={"num_env_runners": 1}), stopped)
    for _ in range(20):  # an iteration of IMPALA lasts a second, however many steps that gives
        result = own.train()
        if result["env_runners"]["num_env_steps_sampled_lifetime"] >= 60:
            break
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 60
    if env == "waves":
        assert result["env_runners"]["episode_return_mean"] == 60
    (seen,) = own.env_runner_group.foreach_env_runner(witnessed, local_env_runner=False)
    check_by_hand(env, seen)


@pytest.mark.parametrize("env", ["two", "waves", "turns", "wander"])
def test_maddpg_takes_the_environment_or_says_what_to_write(env: str, stopped: list[Algorithm]) -> None:
    refusals = {"two": [], "waves": [({}, "sampling: episodes")]}.get(
        env, [({}, "sampling: episodes"), ({"sampling": "episodes"}, "batch_mode: complete_episodes")]
    )
    for runners, fix in refusals:
        refused = build_algorithm(config_of(env, "MADDPG", runners=runners), stopped)
        with pytest.raises(UsageError, match=fix):
            refused.train()
    whole = {"sampling": "episodes", "batch_mode": "complete_episodes"}
    own = build_algorithm(config_of(env, "MADDPG", runners=whole if refusals else {}), stopped)
    assert own.train()["env_runners"]["num_env_steps_sampled"] >= 60
    check_by_hand(env, witnessed(own.env_runner))


def build_algorithm(config: Any, stopped: list[Algorithm]) -> Any:
    algorithm = config.build_algo()
    stopped.append(algorithm)
    return algorithm


@pytest.mark.parametrize("end", Two.ENDS)
def test_the_last_value_counts_for_those_that_were_cut_and_for_no_other(
    end: str, stopped: list[Algorithm]
) -> None:
    config = config_of("two", batch=20, arrays=False, env_config={"end": end}).training(
        gamma=0.5, lambda_=0.0
    )
    algorithm = build_algorithm(config, stopped)
    episodes = algorithm.env_runner.sample(num_timesteps=20)
    check_by_hand("two", witnessed(algorithm.env_runner), end=end)
    agents = [(one.agent_id, len(one)) for ma in episodes for one in ma.agent_episodes.values()]
    learner = algorithm.learner_group._learner
    module = learner.module["shared"]
    value = float(module.compute_values({Columns.OBS: torch.tensor([[0.5, -0.5]])})[0])
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=episodes, shared_data={})[
        "shared"
    ]
    targets = iter(batch["value_targets"].tolist())
    for agent, steps in agents:
        own = [next(targets) for _ in range(steps + 1)][:steps]  # GAE adds a step to each
        counts = Two.ENDS[end][2]["ab".index(agent)]
        expected = [1 + 0.5 * value] * (steps - 1) + [1 + (0.5 * value if counts else 0.0)]
        assert own == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("end", Two.ENDS)
def test_a_team_on_arrays_has_the_same_targets(end: str, stopped: list[Algorithm]) -> None:
    config = config_of("two", batch=18, fragment=9, env_config={"end": end}).training(gamma=0.5, lambda_=0.0)
    algorithm = build_algorithm(config, stopped)
    (fragment,) = algorithm.env_runner.sample(num_timesteps=9)  # an episode of 5, and 4 steps of the next
    check_by_hand("two", witnessed(algorithm.env_runner), end=end)
    learner = algorithm.learner_group._learner
    value = float(learner.module["shared"].compute_values({Columns.OBS: torch.tensor([[0.5, -0.5]])})[0])
    columns = learner.rows_of("shared", [fragment.of_module("shared")])
    expected = np.full((9, 2), 1 + 0.5 * value)
    expected[4] = [1 + (0.5 * value if counts else 0.0) for counts in Two.ENDS[end][2]]
    assert columns["value_targets"].reshape(9, 2).numpy() == pytest.approx(expected, abs=1e-5)


def test_a_fragment_s_end_is_bootstrapped_from_its_last_observation(stopped: list[Algorithm]) -> None:
    config = config_of("two", batch=20, fragment=3, arrays=False).training(gamma=0.5, lambda_=0.0)
    algorithm = build_algorithm(config, stopped)
    episodes = algorithm.env_runner.sample(num_timesteps=3)
    learner = algorithm.learner_group._learner
    value = float(learner.module["shared"].compute_values({Columns.OBS: torch.tensor([[0.5, -0.5]])})[0])
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=episodes, shared_data={})[
        "shared"
    ]
    mask = np.asarray(batch["loss_mask"])
    assert np.asarray(batch["value_targets"])[mask].tolist() == pytest.approx([1 + 0.5 * value] * 6, abs=1e-5)


@pytest.mark.slow
def test_ppo_learns_the_value_of_an_endless_task_that_is_cut() -> None:
    config = config_of("two", batch=200, fragment=10, runners={"num_envs_per_env_runner": 4}).training(
        gamma=0.5, lambda_=1.0, lr=3e-3, num_epochs=10, vf_clip_param=100.0, use_kl_loss=False
    )
    algorithm = config.build_algo()
    try:
        for _ in range(20):
            algorithm.train()
        module = algorithm.get_module("shared")
        value = algorithm.learner_group._learner.module["shared"].compute_values(
            {Columns.OBS: torch.tensor([[0.5, -0.5]])}
        )
        assert module is not None
        assert float(value[0]) == pytest.approx(2.0, abs=0.1)
    finally:
        algorithm.stop()


@pytest.mark.parametrize("fragment", [1, 4, 200])
@pytest.mark.parametrize("algorithm", ["PPO", "rllib/DQN", "DQN"])
def test_on_episode_end_sees_whole_episodes_with_one_agent(
    algorithm: str, fragment: int, stopped: list[Algorithm]
) -> None:
    own = build_algorithm(config_of("seven", algorithm, batch=20, fragment=fragment), stopped)
    for _ in range(4):
        result = own.train()
    assert {(one["length"], one["return"]) for one in witnessed(own.env_runner)} == {(7, 28.0)}
    for measure, right in {"len": 7, "return": 28}.items():
        for kind in ("mean", "min", "max"):
            assert result["env_runners"][f"episode_{measure}_{kind}"] == right


def test_rlkit_samples_with_its_own_runners_and_leaves_others_alone() -> None:
    assert config_of("waves").env_runner_cls is TeamEnvRunner
    assert config_of("waves", "rllib/DQN").env_runner_cls is EpisodeRunner
    assert config_of("waves", "IMPALA").env_runner_cls is EpisodeRunner
    assert config_of("seven", "rllib/DQN").env_runner_cls is SingleEpisodeRunner
    assert config_of("seven", "DQN").env_runner_cls is ArrayEnvRunner
    assert config_of("seven", "PPO").env_runner_cls is ArrayEnvRunner


class TestRefusals:
    """What no episode can hold is said with agent and step."""

    def episode(self) -> EnvEpisode:
        episode = EnvEpisode(agent_to_module_mapping_fn=lambda *_, **__: "shared")
        episode.add_env_reset(observations={"a": 0, "b": 0})
        return episode

    def step(
        self, episode: EnvEpisode, seen: dict, acted: str, rewards: dict, ended: dict, cut: dict
    ) -> None:
        flags = {ALL: False, **ended}, {ALL: False, **cut}
        episode.add_env_step(
            seen, dict.fromkeys(acted, 1), rewards, terminateds=flags[0], truncateds=flags[1]
        )

    def test_an_agent_that_comes_back(self) -> None:
        episode = self.episode()
        self.step(episode, {"a": 1, "b": 1}, "ab", {"a": 1.0, "b": 1.0}, {"a": True}, {})
        episode = episode.cut(1)
        with pytest.raises(
            MultiAgentEnvError, match=r"agent 'a', step 2: got an observation.*done in step 1"
        ):
            self.step(episode, {"a": 2, "b": 2}, "b", {"b": 1.0}, {}, {})

    def test_a_reward_for_a_dead_agent(self) -> None:
        episode = self.episode()
        self.step(episode, {"b": 1}, "ab", {"a": 1.0, "b": 1.0}, {"a": True}, {})
        with pytest.raises(MultiAgentEnvError, match=r"agent 'a', step 2: got a reward.*done in step 1"):
            self.step(episode, {"b": 2}, "b", {"a": 5.0, "b": 1.0}, {}, {})

    def test_a_cut_agent_without_its_last_observation(self) -> None:
        episode = self.episode()
        with pytest.raises(MultiAgentEnvError, match=r"agent 'a', step 1: got no last observation"):
            self.step(episode, {"b": 1}, "ab", {"a": 1.0, "b": 1.0}, {}, {"a": True})

    def test_nobody_left_and_the_episode_not_over(self) -> None:
        episode = self.episode()
        with pytest.raises(MultiAgentEnvError, match=r"step 1: no agent is left .*'a'.*'b'"):
            self.step(episode, {"a": 1, "b": 1}, "ab", {"a": 1.0, "b": 1.0}, {"a": True}, {"b": True})


@pytest.mark.parametrize("fragment", [1, 2, 3])
def test_getters_find_the_last_step_in_every_chunk(fragment: int) -> None:
    """`get_actions(-1)` in `on_episode_step`, whatever chunk the episode is in."""
    env = Waves()
    episode = EnvEpisode(agent_to_module_mapping_fn=lambda *_, **__: "shared")
    episode.add_env_reset(observations=env.reset()[0])
    for t in range(12):
        actions = {agent: 100 * t + int(agent) for agent in sorted(episode.get_agents_to_act())}
        seen, rewards, ended, cut, _ = env.step(actions)
        episode.add_env_step(seen, actions, rewards, terminateds=ended, truncateds=cut)
        assert episode.get_actions(-1) == actions
        assert episode.get_rewards(-1) == rewards
        assert set(episode.get_observations(-1)) == set(seen)
        if (t + 1) % fragment == 0:
            episode = episode.cut(len_lookback_buffer=1)


def test_a_finished_episode_becomes_arrays_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """RLlib's runner asks each finished episode of a sample again after every step of it."""
    env, asked = Waves(), Counter[int]()
    one_agent = SingleAgentEpisode.to_numpy
    monkeypatch.setattr(
        SingleAgentEpisode, "to_numpy", lambda self: asked.update([id(self)]) or one_agent(self)
    )
    episode = EnvEpisode(agent_to_module_mapping_fn=lambda *_, **__: "shared")
    episode.add_env_reset(observations=env.reset()[0])
    while not episode.is_done:
        actions = dict.fromkeys(sorted(episode.get_agents_to_act()), 0)
        seen, rewards, ended, cut, _ = env.step(actions)
        episode.add_env_step(seen, actions, rewards, terminateds=ended, truncateds=cut)
    for _ in range(3):
        assert episode.to_numpy().is_numpy
    assert set(asked.values()) == {1}


def test_chunks_of_an_episode_survive_copies() -> None:
    episode = EnvEpisode(agent_to_module_mapping_fn=lambda *_, **__: "shared")
    episode.add_env_reset(observations={"a": 0})
    episode.add_env_step({}, {"a": 1}, {"a": 2.0}, terminateds={ALL: False}, truncateds={ALL: False})
    following = copy.deepcopy(episode).cut(0)
    following.add_env_step({"a": 5}, {}, {"a": 3.0}, terminateds={ALL: False}, truncateds={ALL: False})
    one = following.agent_episodes["a"]
    assert (one.get_observations(), one.get_actions(), one.get_rewards()) == ([0, 5], [1], [5.0])
