"""Environments that break their contract: the error comes in the same step and says where and what."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_samples import BOX, Scripted
from gymnasium.vector.utils import batch_space
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs import PettingZooEnv, checked, make_env
from rlkit.envs.checked_vector import CheckedVectorEnv
from rlkit.envs.make import make_env as make_recipe_env
from rlkit.errors import EnvError


class Single(gym.Env):
    """Returns `result` in step 2 and is fine before."""

    observation_space = BOX
    action_space = gym.spaces.Discrete(2)

    def __init__(self, **result: Any):
        self.result = result
        self.task = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        self.time += 1
        wrong = self.result if self.time == 2 else {}
        if isinstance(wrong.get("raises"), BaseException):
            raise wrong["raises"]
        if "all" in wrong:
            return wrong["all"]
        names = ("observation", "reward", "terminated", "truncated", "info")
        good = (np.zeros(2, np.float32), 1.0, False, False, {})
        return tuple(wrong.get(name, value) for name, value in zip(names, good, strict=True))

    def set_task(self, task: int) -> None:
        self.task = task

    def render(self) -> str:
        return "picture"


class Team(MultiAgentEnv):
    """Two agents, fine in step 1; `change` edits the five dicts of step 2 in place."""

    def __init__(self, change: Callable[..., Any] | None = None):
        self.possible_agents = ["a_0", "a_1"]
        self.agents = list(self.possible_agents)
        super().__init__()
        self.observation_spaces = dict.fromkeys(self.possible_agents, BOX)
        self.action_spaces = dict.fromkeys(self.possible_agents, gym.spaces.Discrete(2))
        self.change = change
        self.task = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.time = 0
        return {a: np.zeros(2, np.float32) for a in self.agents}, {}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.time += 1
        flags = {"a_0": False, "a_1": False, "__all__": False}
        here = list(actions)
        result = (
            {a: np.zeros(2, np.float32) for a in here},
            dict.fromkeys(here, 1.0),
            dict(flags),
            dict(flags),
            {},
        )
        if self.time == 2 and self.change is not None:
            return self.change(*result) or result
        return result

    def set_task(self, task: int) -> None:
        self.task = task


SINGLE = {
    "reward_nan": ({"reward": float("nan")}, "reward: got nan; expected one finite number"),
    "reward_inf": ({"reward": np.float32("inf")}, "reward: got"),
    "reward_none": ({"reward": None}, "reward: got None; expected one finite number"),
    "reward_huge": ({"reward": 10**400}, "reward: got 1000"),
    "reward_array": ({"reward": np.zeros(1)}, "reward: got ndarray"),
    "observation_nan": (
        {"observation": np.array([0, np.nan], np.float32)},
        "observation: got nan at index 1; expected finite numbers",
    ),
    "observation_shape": (
        {"observation": np.zeros(3, np.float32)},
        r"got shape \(3,\); expected shape \(2,\)",
    ),
    "observation_dtype": (
        {"observation": np.zeros(2)},
        r"got dtype float64; expected dtype float32. Fix: return observation.astype\(np.float32\)",
    ),
    "observation_bounds": (
        {"observation": np.array([0, 1.5], np.float32)},
        "got 1.5 at index 1; expected between -1.0 and 1.0",
    ),
    "observation_list": ({"observation": [0.0, 0.0]}, "got list of 2; expected an array of float32"),
    "terminated_int": ({"terminated": 1}, r"terminated: got 1 \(int\); expected True or False"),
    "truncated_none": ({"truncated": None}, "truncated: got None"),
    "info_none": ({"info": None}, "info: got NoneType None; expected a dict. Fix: return {}"),
    "reward_text": ({"reward": "1"}, "reward: got '1'; expected one finite number"),
    "exits": ({"raises": SystemExit(3)}, r"step\(\) in step 2 of episode 1 raised SystemExit: 3"),
    "raises_nothing_said": ({"raises": ValueError()}, "episode 1 raised ValueError$"),
    "four_values": ({"all": (np.zeros(2, np.float32), 1.0, False, {})}, r"step\(\): got 4 values; expected"),
    "raises": ({"raises": KeyError("door")}, r"step\(\) in step 2 of episode 1 raised KeyError: 'door'"),
}


@pytest.mark.parametrize("fault", SINGLE)
def test_a_single_agent_environment_is_caught_in_the_step(fault: str) -> None:
    result, words = SINGLE[fault]
    env = checked(Single(**result), name=f"Single-{fault}")
    env.reset()
    env.step(0)
    with pytest.raises(EnvError, match=words) as caught:
        env.step(0)
    assert f"Single-{fault}" in str(caught.value)
    assert "step 2" in str(caught.value)


def _edit(part: int, agent: str, value: Any) -> Callable[..., None]:
    def change(*results: dict) -> None:
        results[part][agent] = value

    return change


def _replace(part: int, value: Any) -> Callable[..., tuple]:
    return lambda *results: (*results[:part], value, *results[part + 1 :])


def _drop(part: int, agent: str) -> Callable[..., None]:
    def change(*results: dict) -> None:
        del results[part][agent]

    return change


def _everybody_done_in_two_ways(
    obs: dict, rewards: dict, terminateds: dict, truncateds: dict, infos: dict
) -> None:
    terminateds["a_0"], truncateds["a_1"] = True, True


def _cut_without_observation(
    obs: dict, rewards: dict, terminateds: dict, truncateds: dict, infos: dict
) -> None:
    truncateds["__all__"] = True
    obs.pop("a_1")


TEAM = {
    "reward": (_edit(1, "a_1", float("nan")), r"agent 'a_1', step 2 of episode 1: reward: got nan"),
    "reward_none": (_edit(1, "a_1", None), "agent 'a_1', step 2 of episode 1: reward: got None"),
    "observation": (_edit(0, "a_0", np.full(2, 9, np.float32)), "agent 'a_0'.*got 9.0 at index 0"),
    "dtype": (_edit(0, "a_0", np.zeros(2)), "agent 'a_0'.*got dtype float64"),
    "unknown": (_edit(0, "a_2", np.zeros(2, np.float32)), "the unknown agent 'a_2'; did you mean 'a_"),
    "unknown_reward": (_edit(1, "b", 1.0), "rewards: got the unknown agent 'b'"),
    "unknown_flag": (_edit(3, "b", False), "truncateds: got the unknown agent 'b'"),
    "rewards_list": (
        _replace(1, [1.0, 1.0]),
        r"step 2 of episode 1: rewards: got list \[1.0, 1.0\]; expected a dict \{agent: value\}",
    ),
    "observations_none": (_replace(0, None), "observations: got NoneType None; expected a dict"),
    "flags_none": (_replace(3, None), "truncateds: got NoneType None; expected a dict"),
    "infos_none": (_replace(4, None), "infos: got NoneType None; expected a dict"),
    "info_none": (_edit(4, "a_1", None), "agent 'a_1', step 2 of episode 1: info: got NoneType None"),
    "no_all": (_drop(2, "__all__"), "terminateds: got .* expected a key '__all__'"),
    "flag_type": (_edit(2, "a_1", 1), r"agent 'a_1'.*terminateds: got 1 \(int\)"),
    "no_reward": (_drop(1, "a_1"), "agent 'a_1'.*rewards: got none; expected the reward of the action"),
    "nobody_left": (_everybody_done_in_two_ways, "no agent is left"),
    "no_last_observation": (
        _cut_without_observation,
        "agent 'a_1'.*the last observation of a truncated agent",
    ),
}


def test_an_agent_that_terminates_needs_no_last_observation_where_others_are_cut_off() -> None:
    def change(obs: dict, rewards: dict, terminateds: dict, truncateds: dict, infos: dict) -> None:
        terminateds["a_1"], truncateds["a_0"], truncateds["__all__"] = True, True, True
        obs.pop("a_1")

    env = checked(Team(change), name="Team-two-ways")
    env.reset()
    env.step({"a_0": 0, "a_1": 0})
    observations, _, terminateds, _, _ = env.step({"a_0": 0, "a_1": 0})
    assert set(observations) == {"a_0"}
    assert terminateds["a_1"]


@pytest.mark.parametrize("fault", TEAM)
def test_a_team_is_caught_in_the_step(fault: str) -> None:
    change, words = TEAM[fault]
    env = checked(Team(change), name=f"Team-{fault}")
    env.reset()
    env.step({"a_0": 0, "a_1": 0})
    with pytest.raises(EnvError, match=words):
        env.step({"a_0": 0, "a_1": 0})


def test_a_revived_agent_is_caught() -> None:
    env = checked(Team(_edit(2, "a_1", True)), name="Team-revived")
    env.reset()
    both = {"a_0": 0, "a_1": 0}
    env.step(both)
    env.step(both)
    with pytest.raises(EnvError, match="agent 'a_1', step 3 of episode 1: observations: got a value for an"):
        env.step(both)
    env.reset()  # a new episode may bring it back
    env.step(both)


@pytest.mark.parametrize("wrong", ["nan", "missing"])
def test_reset_is_checked(wrong: str) -> None:
    class Bad(Single):
        def reset(self, **kwargs: Any) -> Any:
            return np.array([np.nan, 0], np.float32), {}

    class Empty(Team):
        def reset(self, **kwargs: Any) -> Any:
            return {}, {}

    env = checked(Bad() if wrong == "nan" else Empty(), name=f"reset-{wrong}")
    words = "reset of episode 1: observation: got nan" if wrong == "nan" else "at least one agent's"
    with pytest.raises(EnvError, match=words):
        env.reset()


@pytest.mark.parametrize(
    "name",
    [
        "CartPole-v1",
        "Pendulum-v1",
        "MountainCar-v0",
        "Acrobot-v1",
        "FrozenLake-v1",
        "Taxi-v3",
        "Blackjack-v1",
        "pettingzoo/mpe2.simple_world_comm_v3",
        "pettingzoo/classic.tictactoe_v3",
        "pettingzoo/classic.rps_v2",
        "pettingzoo/butterfly.knights_archers_zombies_v11",
    ],
)
def test_environments_that_keep_their_contract_pass(name: str) -> None:
    env = checked(make_env(name))
    multi = isinstance(env.unwrapped, MultiAgentEnv)
    observations, _ = env.reset(seed=0)
    for _ in range(150):
        if multi:
            actions = {a: env.action_spaces[a].sample() for a in observations if a in env.agents}
            observations, _, terminateds, truncateds, _ = env.step(actions)
            over = terminateds["__all__"] or truncateds["__all__"]
        else:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
        if over:
            observations, _ = env.reset()
    assert env.contract.step + env.contract.episode > 1


def test_values_that_are_odd_but_fine_pass() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    for observation in (np.array([1e300, -1e300]), np.zeros(2, np.float32), np.zeros((2, 2))[:, 0]):
        env = Single(observation=observation)
        env.observation_space = space
        wrapped = checked(env, name="odd")
        wrapped.reset()
        wrapped.step(0)
        wrapped.step(0)
    rounding = checked(
        Single(observation=np.array([0, 1.0000001], np.float32), reward=np.int64(3)), name="odd"
    )
    rounding.reset()
    rounding.step(0)
    rounding.step(0)
    unbounded = checked(Single(observation=np.array([0, 5], np.float32)), name="odd", bounds=False)
    unbounded.reset()
    unbounded.step(0)
    unbounded.step(0)


def test_gymnasiums_own_environments_may_leave_their_bounds() -> None:
    far = (9.0, 0.0, 0.0, 0.0)  # CartPole-v1 declares positions up to 4.8
    wrapped = checked(gym.make("CartPole-v1"))
    wrapped.reset(seed=0)
    wrapped.unwrapped.state = far
    assert wrapped.step(0)[0][0] == 9.0
    wrapped.reset()
    wrapped.unwrapped.state = (np.nan, 0.0, 0.0, 0.0)
    with pytest.raises(EnvError, match=r"got nan at index 0; expected finite numbers"):
        wrapped.step(0)
    asked = checked(gym.make("CartPole-v1"), bounds=True)
    asked.reset(seed=0)
    asked.unwrapped.state = far
    with pytest.raises(
        EnvError, match=r"got 9.0 at index 0; expected between -4.8\S* and 4.8\S*. Fix: widen the space"
    ):
        asked.step(0)


class Halved(gym.ObservationWrapper):
    """Half of each number, in the bounds that it says."""

    def __init__(self, env: gym.Env, high: float | None):
        super().__init__(env)
        if high is not None:
            self.observation_space = gym.spaces.Box(-high, high, (4,), np.float32)

    def observation(self, observation: Any) -> Any:
        return observation / np.float32(2.0)


def test_a_wrapper_that_declares_a_space_keeps_to_it_around_gymnasiums_own_environments() -> None:
    for high, error in ((1.0, True), (9.0, False), (None, False)):
        env = checked(gym.wrappers.FrameStackObservation(Halved(gym.make("CartPole-v1"), high), 2))
        env.reset(seed=0)
        env.unwrapped.state = (12.0, 0.0, 0.0, 0.0)  # CartPole-v1 declares positions up to 4.8
        message = r"got 6.0 at index .*; expected between -1.0 and 1.0"
        with pytest.raises(EnvError, match=message) if error else nullcontext():
            env.step(0)


def test_the_generator_of_a_checked_environment_is_the_environments_own() -> None:
    for env in (Single(), Team()):
        wrapped = checked(env, name="x")
        wrapped.reset(seed=3)
        assert wrapped.np_random is env.np_random


def test_nested_observations_name_the_part() -> None:
    env = Single(observation={"view": np.zeros((2, 2, 3), np.uint8), "speed": np.array([np.inf], np.float32)})
    env.observation_space = gym.spaces.Dict(
        view=gym.spaces.Box(0, 255, (2, 2, 3), np.uint8), speed=gym.spaces.Box(-9, 9, (1,), np.float32)
    )
    env.reset = lambda **kwargs: (env.observation_space.sample(), {})  # type: ignore[method-assign]
    env.time = 1
    wrapped = checked(env, name="nested")
    wrapped.reset()
    with pytest.raises(EnvError, match=r"observation\['speed'\]: got inf at index 0"):
        wrapped.step(0)


def test_the_wrapper_hides_nothing() -> None:
    single, team = Single(), Team()
    for raw in (single, team):
        env = checked(raw, name="hides nothing")
        assert env.unwrapped is raw
        env.set_task(4)
        assert env.task == 4
        assert env.get_wrapper_attr("task") == 4
    assert checked(single, name="x").render() == "picture"
    wrapped = checked(team, name="x")
    assert isinstance(wrapped, MultiAgentEnv)
    assert wrapped.get_observation_space("a_0") == BOX
    scripted = checked(PettingZooEnv(Scripted({"a": (0, 2, "terminated")})), name="x")
    scripted.set_task(5)
    assert scripted.unwrapped.env.task == 5


def test_rllibs_runner_takes_a_checked_team_and_cuts_its_episodes() -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
    from ray.tune import register_env

    register_env(
        "checked_spread", lambda config: checked(make_env("pettingzoo/mpe2.simple_spread_v3", config))
    )
    config = (
        PPOConfig()
        .environment("checked_spread", env_config={"max_cycles": 4})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **kwargs: "shared")
    )
    runner = MultiAgentEnvRunner(config=config)
    episodes = runner.sample(num_episodes=2)
    assert [len(episode) for episode in episodes] == [4, 4]
    for episode in episodes:
        parts = episode.agent_episodes
        assert list(sorted(parts)) == ["agent_0", "agent_1", "agent_2"]
        assert all(part.is_truncated and not part.is_terminated for part in parts.values())


def test_an_environment_that_always_fails_is_given_up() -> None:
    for _ in range(3):
        env = checked(Single(raises=ValueError("broken")), name="always failing", run="first run")
        env.reset()
        env.step(0)
        with pytest.raises(EnvError, match="broken"):
            env.step(0)
    with pytest.raises(EnvError, match="always failing: failed 3 times in a row"):
        checked(Single(), name="always failing", run="first run")
    checked(Single(), name="always failing", run="second run")
    checked(Single(), name="always failing")


def test_a_finished_episode_starts_the_count_anew() -> None:
    for _ in range(5):
        env = checked(Single(raises=ValueError("now and then")), name="sometimes failing", run="sometimes")
        env.reset()
        env.step(0)
        with pytest.raises(EnvError):
            env.step(0)
        env.unwrapped.result = {"terminated": True}
        env.reset()
        env.step(0)
        env.step(0)


@pytest.mark.parametrize("where", ["step", "reset"])
def test_rllibs_rebuilding_of_a_failing_environment_ends(where: str) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.tune import register_env

    built = []

    class Broken(Single):
        def step(self, action: int) -> Any:
            raise ValueError("always")

        def reset(self, **kwargs: Any) -> Any:
            if where == "reset":
                raise ValueError("always")
            return super().reset(**kwargs)

    def make(config: dict) -> gym.Env:
        built.append(1)
        return checked(Broken(), name=f"broken {where}", run=f"broken {where}")

    register_env(f"broken_{where}", make)
    config = (
        PPOConfig()
        .environment(f"broken_{where}")
        .env_runners(num_env_runners=0)
        .fault_tolerance(restart_failed_sub_environments=True)
    )
    runner = SingleAgentEnvRunner(config=config)
    with pytest.raises(EnvError, match=f"broken {where}: failed 3 times in a row"):
        runner.sample(num_timesteps=5)
    assert len(built) <= 4


class Several(gym.vector.VectorEnv):
    """Three environments as arrays, and a wrong value in the step after `wrong(observations, rewards)` was set."""

    num_envs = 3
    single_observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    single_action_space = gym.spaces.Discrete(2)
    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, wrong: Callable[[list[Any]], None] = lambda values: None):
        self.wrong = wrong
        self.observation_space = batch_space(self.single_observation_space, 3)
        self.action_space = batch_space(self.single_action_space, 3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((3, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        values = [np.zeros((3, 2), np.float32), np.zeros(3), np.zeros(3, bool), np.zeros(3, bool), {}]
        self.wrong(values)
        return tuple(values)


def _put(part: int, at: tuple[int, ...], value: float) -> Callable[[list[Any]], None]:
    def put(values: list[Any]) -> None:
        values[part][at] = value

    return put


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_put(0, (1, 0), np.nan), r"environment 1: observation: got nan at index 0; expected finite"),
        (
            _put(0, (2, 1), 3.0),
            r"environment 2: observation: got 3.0 at index 1; expected between -1.0 and 1.0",
        ),
        (lambda v: v.__setitem__(0, v[0][:2]), r"observations: got shape \(2, 2\); expected shape \(3, 2\)"),
        (
            lambda v: v.__setitem__(0, v[0].astype(np.float64)),
            r"observation: got dtype float64; expected dtype float32",
        ),
        (_put(1, (2,), np.inf), r"environment 2: reward: got inf; expected one finite number"),
        (
            lambda v: v.__setitem__(1, np.zeros((3, 1))),
            r"rewards: got an array of float64 with shape \(3, 1\)",
        ),
        (
            lambda v: v.__setitem__(3, np.zeros(3)),
            r"truncations: got an array of float64 .* expected one of bool",
        ),
        (lambda v: v.pop(), r"got 4 values; expected \(observations, rewards, terminations"),
        (lambda v: 1 / 0, r"step\(\) in step 2 of round 1 raised ZeroDivisionError"),
    ],
)
def test_a_vector_environment_is_caught_in_the_step(wrong: Callable[..., None], message: str) -> None:
    env = checked(Several(), name="several")
    env.reset(seed=0)
    assert env.step(np.zeros(3, int))[0].shape == (3, 2)
    env.unwrapped.wrong = wrong
    with pytest.raises(EnvError, match=f"several: .*{message}") as caught:
        env.step(np.zeros(3, int))
    assert "step 2 of round 1" in str(caught.value)


def test_recipes_check_the_vector_environment_of_a_name() -> None:
    for name in ("CartPole-v1", "soccer", "matrix_game"):
        env = make_recipe_env(name, {"num_envs": 4})
        assert isinstance(env, CheckedVectorEnv)
        env.reset(seed=0)
        for _ in range(30):
            env.step(env.action_space.sample())
