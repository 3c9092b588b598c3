"""The PettingZoo adapter against the raw environment, and against RLlib's episodes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_samples import BackToParallel, Scripted
from pettingzoo import AECEnv
from pettingzoo.test import api_test, parallel_api_test
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rlkit.envs import PettingZooEnv, available, checked, make_env
from rlkit.envs.pettingzoo import natural_order

MPE2 = sorted(name for name in available() if name.startswith("pettingzoo/mpe2."))


def _parallel(path: str, **kwargs: Any) -> Any:
    return importlib.import_module(path).parallel_env(**kwargs)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


def test_every_mpe2_scenario_is_listed() -> None:
    assert len(MPE2) == 12
    assert {"pettingzoo/mpe2.simple_spread_v3", "pettingzoo/mpe2.simple_world_comm_v3"} <= set(MPE2)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", MPE2)
def test_mpe2_plays_the_same_as_the_raw_environment(name: str, continuous: bool) -> None:
    raw = _parallel(name.partition("/")[2], continuous_actions=continuous)
    env = make_env(name, {"continuous_actions": continuous})
    observations, _ = raw.reset(seed=11)
    adapted, _ = env.reset(seed=11)
    assert list(adapted) == env.possible_agents == natural_order(raw.possible_agents)
    assert _equal(adapted, observations)
    for number, agent in enumerate(env.possible_agents):
        env.action_spaces[agent].seed(number)
    steps = 0
    while raw.agents:
        actions = {agent: env.action_spaces[agent].sample() for agent in adapted}
        observations, rewards, terminated, truncated, _ = raw.step(actions)
        adapted, got_rewards, got_terminated, got_truncated, _ = env.step(actions)
        assert _equal(adapted, observations)
        assert got_rewards == dict(rewards)
        assert got_terminated == {**terminated, "__all__": False}
        assert got_truncated["__all__"] == all(truncated.values())
        assert all(env.observation_spaces[agent].contains(value) for agent, value in adapted.items())
        steps += 1
    assert steps == 25
    assert env.agents == []


def test_pettingzoos_own_test_passes_raw_and_adapted() -> None:
    for path in ("mpe2.simple_adversary_v3", "pettingzoo.butterfly.knights_archers_zombies_v11"):
        parallel_api_test(_parallel(path), num_cycles=60)
        parallel_api_test(BackToParallel(PettingZooEnv(_parallel(path))), num_cycles=60)


@pytest.mark.parametrize("path", ["pettingzoo.classic.tictactoe_v3", "mpe2.simple_adversary_v3"])
def test_turn_based_games_play_the_same_as_the_raw_environment(path: str) -> None:
    module = importlib.import_module(path)
    api_test(module.env(), num_cycles=30)
    raw, env = module.env(), PettingZooEnv(module.env())
    raw.reset(seed=5)
    observations, _ = env.reset(seed=5)
    rng = np.random.default_rng(0)
    returns, raw_returns = dict.fromkeys(env.possible_agents, 0.0), dict.fromkeys(env.possible_agents, 0.0)
    while raw.agents:
        agent = raw.agent_selection
        seen, reward, terminated, truncated, _ = raw.last()
        raw_returns[agent] += reward
        if terminated or truncated:
            raw.step(None)
            continue
        assert list(observations) == [agent]
        assert _equal(observations[agent], seen)
        mask = seen["action_mask"] if isinstance(seen, dict) else np.ones(env.action_spaces[agent].n)
        action = int(rng.choice(np.flatnonzero(mask)))
        raw.step(action)
        observations, rewards, terminateds, truncateds, _ = env.step({agent: action})
        for who, value in rewards.items():
            returns[who] += value
    assert terminateds["__all__"] or truncateds["__all__"]
    assert set(observations) == set(env.possible_agents)  # everybody's last observation
    assert returns == pytest.approx(raw_returns)


def test_agents_keep_natural_order_whatever_the_hash_seed() -> None:
    program = """
import json, sys
sys.path.insert(0, "tests")
from env_samples import Scripted
from rlkit.envs import PettingZooEnv
names = list({f"agent_{i}" for i in range(12)})
env = PettingZooEnv(Scripted({name: (0, 3, "terminated") for name in names}))
observations, _ = env.reset(seed=0)
stepped = env.step(dict.fromkeys(observations, 0))
print(json.dumps([names, env.possible_agents, list(observations), list(stepped[0]), list(env.action_spaces)]))
"""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    raw, *adapted = json.loads(found.stdout.strip().splitlines()[-1])
    natural = [f"agent_{i}" for i in range(12)]
    assert raw != natural
    assert all(order == natural for order in adapted)


def _episode(env: PettingZooEnv) -> MultiAgentEpisode:
    """Play one episode into RLlib's own record of it."""
    episode = MultiAgentEpisode(
        observation_space=env.observation_spaces,
        action_space=env.action_spaces,
        agent_to_module_mapping_fn=lambda agent, episode: "shared",
    )
    observations, infos = env.reset(seed=0)
    episode.add_env_reset(observations=observations, infos=infos)
    while not episode.is_done:
        actions = {agent: 0 for agent in observations if agent in env.agents}
        observations, rewards, terminateds, truncateds, infos = env.step(actions)
        episode.add_env_step(
            observations, actions, rewards, infos, terminateds=terminateds, truncateds=truncateds
        )
    return episode


def _ends(episode: MultiAgentEpisode) -> dict[str, tuple[int, bool]]:
    """Length of each agent's part, and whether RLlib takes it for terminated (then it does not bootstrap)."""
    return {agent: (len(part), part.is_terminated) for agent, part in episode.agent_episodes.items()}


def test_an_episode_cut_short_is_not_taken_for_terminated() -> None:
    episode = _episode(make_env("pettingzoo/mpe2.simple_spread_v3"))
    assert _ends(episode) == {f"agent_{i}": (25, False) for i in range(3)}
    assert episode.is_truncated


def test_agents_that_die_early_join_late_and_end_in_different_ways() -> None:
    env = PettingZooEnv(
        Scripted(
            {
                "early": (0, 2, "terminated"),
                "timed_out": (0, 3, "truncated"),
                "late": (2, 5, "terminated"),
                "long": (0, 5, "truncated"),
            }
        )
    )
    episode = _episode(env)
    assert len(episode) == 5
    assert _ends(episode) == {
        "early": (2, True),
        "timed_out": (3, False),
        "late": (3, True),
        "long": (5, False),
    }
    assert {agent: part.get_return() for agent, part in episode.agent_episodes.items()} == {
        "early": 1.0 * 2,
        "timed_out": 2.0 * 3,
        # the reward that came with its first observation belongs to no action
        "late": 3.0 * 3,
        "long": 4.0 * 5,
    }
    last = episode.agent_episodes["long"].get_observations(-1)
    assert last.tolist() == pytest.approx([0.05, 0.04])


def test_the_episode_ends_when_the_last_agents_terminate_and_time_out_together() -> None:
    env = PettingZooEnv(Scripted({"a": (0, 2, "terminated"), "b": (0, 2, "truncated")}))
    env.reset()
    env.step({"a": 0, "b": 0})
    _, _, terminateds, truncateds, _ = env.step({"a": 0, "b": 0})
    assert terminateds == {"a": True, "b": False, "__all__": False}
    assert truncateds["__all__"]
    episode = _episode(PettingZooEnv(Scripted({"a": (0, 2, "terminated"), "b": (0, 2, "truncated")})))
    assert _ends(episode) == {"a": (2, True), "b": (2, False)}


def test_seeds_repeat_and_differ() -> None:
    env = make_env("pettingzoo/mpe2.simple_tag_v3")
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    other, _ = env.reset(seed=4)
    unseeded, _ = env.reset()
    assert _equal(first, again)
    assert not _equal(first, other)
    assert not _equal(other, unseeded)


def test_render_gives_a_picture() -> None:
    env = make_env("pettingzoo/mpe2.simple_spread_v3", {"render_mode": "rgb_array"})
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (700, 700, 3)
    assert picture.dtype == np.uint8
    assert picture.min() < picture.max()


def test_masks_from_infos_move_into_the_observation() -> None:
    env = PettingZooEnv(Scripted({"a": (0, 2, "terminated")}, info_masks=True), mask_from_info=True)
    observations, _ = env.reset()
    assert env.observation_spaces["a"].contains(observations["a"])
    assert observations["a"]["action_mask"].tolist() == [1, 0, 1]
    assert env.step({"a": 0})[0]["a"]["action_mask"].tolist() == [1, 0, 1]


def test_the_raw_environments_own_methods_stay_in_reach() -> None:
    env = PettingZooEnv(Scripted({"a": (0, 2, "terminated")}))
    env.unwrapped.set_task(7)
    assert env.task == 7
    assert env.env.task == 7
    env.env.np_random = generator = np.random.default_rng(0)
    assert env.np_random is generator


def test_metadata_is_not_shared_between_instances() -> None:
    first, second = make_env("pettingzoo/mpe2.simple_v3"), make_env("pettingzoo/mpe2.simple_v3")
    first.metadata["autoreset_mode"] = "next_step"  # as RLlib's vector env does
    assert "autoreset_mode" not in second.metadata


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="got int, expected a PettingZoo AECEnv or ParallelEnv"):
        PettingZooEnv(3)
    nobody = Scripted({})
    with pytest.raises(ValueError, match="possible_agents"):
        PettingZooEnv(nobody)
    game = make_env("pettingzoo/classic.tictactoe_v3")
    game.reset(seed=0)
    with pytest.raises(ValueError, match=r"it is the turn of 'player_1'; got actions of \['player_2'\]"):
        game.step({"player_2": 0})


class DeadAtFirst(AECEnv):
    """`a` is terminated before its first move; `b` moves twice."""

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["a", "b"]
        self.render_mode = None

    def observation_space(self, agent: str) -> gym.Space:
        return gym.spaces.Discrete(5)

    def action_space(self, agent: str) -> gym.Space:
        return gym.spaces.Discrete(2)

    def observe(self, agent: str) -> int:
        return self.moves

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        self.agents, self.moves, self.agent_selection = ["a", "b"], 0, "a"
        self.terminations, self.truncations = {"a": True, "b": False}, dict.fromkeys("ab", False)
        self.rewards, self._cumulative_rewards = dict.fromkeys("ab", 0.0), dict.fromkeys("ab", 0.0)
        self.infos = {"a": {}, "b": {}}

    def step(self, action: int | None) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self.agents.remove(agent)
        else:
            self.moves += 1
            self.terminations[agent] = self.moves == 2
        self.agent_selection = "b"


def test_an_agent_that_is_dead_after_the_reset_never_plays() -> None:
    env = checked(PettingZooEnv(DeadAtFirst()))
    for _ in range(2):
        assert env.reset() == ({"b": 0}, {"b": {}})
        observations, _, terminated, _, _ = env.step({"b": 0})
        assert (observations, terminated) == ({"b": 1}, {"b": False, "__all__": False})
        assert env.step({"b": 0})[2] == {"b": True, "__all__": True}
