"""Environments in which agents come, go, take turns or get rewards between their turns, with known right values.

`by_hand` plays one with recorded actions and says what every number of the episode is.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_env import MultiAgentEnv

import rlkit

ALL = "__all__"


class Several(MultiAgentEnv):
    """Box observations, two actions. Counts its episodes, so that one can be played again."""

    names: Sequence[str] = ("a", "b")

    def __init__(self, **_: Any):
        super().__init__()
        self.possible_agents = list(self.names)
        self.agents = list(self.names)  # RLlib's check wants to find here who is seen in a step
        self.playing: list[str] = []
        self.number = -1
        self.observation_spaces = {a: gym.spaces.Box(-100, 100, (2,), np.float32) for a in self.names}
        self.action_spaces = {a: gym.spaces.Discrete(2) for a in self.names}

    def see(self, agent: str) -> np.ndarray:
        return np.array([self.t, self.possible_agents.index(agent)], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.number += 1
        self.t = 0
        self.playing = self.begin()
        return {a: self.see(a) for a in self.playing}, {}

    def begin(self) -> list[str]:
        return list(self.names)


class Waves(Several):
    """Agents 2k and 2k+1 live in steps 5k to 5k+5, then the next two come; reward 1 each."""

    names = tuple(str(i) for i in range(12))

    def begin(self) -> list[str]:
        return ["0", "1"]

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == set(self.playing), (self.t, sorted(actions), self.playing)
        self.t += 1
        old, done, wave = list(self.playing), self.t % 5 == 0, self.t // 5
        if done:
            self.playing = [str(2 * wave), str(2 * wave + 1)] if wave < 6 else []
        ended = {**dict.fromkeys(old, done), ALL: not self.playing}
        seen = {a: self.see(a) for a in dict.fromkeys(old + self.playing)}
        return seen, dict.fromkeys(old, 1.0), ended, {ALL: False}, {}


class Turns(Several):
    """a and b take turns, ten moves: 1 for who moves and, in the same step, 10 for who waits."""

    def begin(self) -> list[str]:
        return ["a"]

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        me, other = "ab"[self.t % 2], "ba"[self.t % 2]
        assert list(actions) == [me]
        self.t += 1
        over = self.t == 10
        shown = {a: self.see(a) for a in ("ab" if over else other)}
        return shown, {me: 1.0, other: 10.0}, {ALL: over}, {ALL: False}, {}


class Two(Several):
    """One state, two agents, reward 1 each, over after five steps in the way `end` says."""

    ENDS: ClassVar = {  # terminateds, truncateds, and whether a's and b's last values count
        "cut": ({ALL: False}, {"a": True, "b": True, ALL: True}, (True, True)),
        "cut by all": ({ALL: False}, {ALL: True}, (True, True)),
        "ended": ({"a": True, "b": True, ALL: True}, {ALL: False}, (False, False)),
        "ended by all": ({ALL: True}, {ALL: False}, (False, False)),
        "a ends, b is cut": ({"a": True, "b": False, ALL: True}, {"a": False, "b": True}, (False, True)),
        "a is cut, b ends": ({"b": True, ALL: False}, {"a": True, ALL: True}, (True, False)),
    }

    def __init__(self, end: str = "cut", **_: Any):
        super().__init__()
        self.end = end

    def see(self, agent: str) -> np.ndarray:
        return np.array([0.5, -0.5], np.float32)

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == {"a", "b"}
        self.t += 1
        seen, rewards = {a: self.see(a) for a in "ab"}, {"a": 1.0, "b": 1.0}
        if self.t < 5:
            return seen, rewards, {ALL: False}, {ALL: False}, {}
        terminated, truncated, _ = self.ENDS[self.end]
        return seen, rewards, dict(terminated), dict(truncated), {}


class Wander(Several):
    """Anything that is allowed: agents join, pause, wait with an open action, die, and are paid in between.

    `ghost` never acts and is paid; the episode ends in one of four ways.
    """

    names = ("a", "b", "c", "d", "ghost")

    def begin(self) -> list[str]:
        self.rng = random.Random(self.number)
        self.length = self.rng.randint(1, 23)
        self.left: set[str] = set()
        started = self.rng.sample(self.names[:4], 2)
        self.acting = set(started)
        return started

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == self.acting, (self.t, actions, self.acting)
        self.t += 1
        rng, over = self.rng, self.t == self.length
        coming = [a for a in self.names[:4] if a not in self.playing and a not in self.left]
        paid = [a for a in [*self.playing, *coming, "ghost"] if a in actions or rng.random() < 0.6]
        rewards = {a: float(rng.randint(1, 9) + 10 * actions.get(a, 0)) for a in paid}
        seen = {a for a in self.playing if over or rng.random() < 0.5}
        joined = [a for a in coming if not over and rng.random() < 0.1]
        terminated, truncated = {ALL: False}, {ALL: False}
        for agent in list(self.playing):
            if not over and len(self.playing) > 1 and rng.random() < 0.08:
                (truncated if agent in seen and rng.random() < 0.5 else terminated)[agent] = True
                self.playing.remove(agent)
                self.left.add(agent)
        if over:
            way = rng.choice([terminated, truncated])
            way[ALL] = True
            if rng.random() < 0.5:
                way.update(dict.fromkeys(self.playing, True))
        self.playing += joined
        self.acting = {a for a in self.playing if a in seen or a in joined}
        shown = {a: self.see(a) for a in self.names if a in seen or a in joined}
        return shown, rewards, terminated, truncated, {}


class Seven(gym.Env):
    """Episodes of seven steps; step k earns k: the return is 28."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return np.full(1, self.t, np.float32), float(self.t), self.t == 7, False, {}


class Draw(gym.Env):
    """Episodes of ten steps that begin with the next random number; `starts` holds those numbers."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.starts: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        self.starts.append(float(self.np_random.random()))
        return np.full(1, self.starts[-1], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == 10, False, {}


class DrawTwo(Several):
    """`Draw` for two agents."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []

    def see(self, agent: str) -> np.ndarray:
        return np.array([self.starts[-1] if self.t == 0 else 0.0, 0.0], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        MultiAgentEnv.reset(self, seed=seed)
        self.starts.append(float(self.np_random.random()))
        return super().reset()

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.t += 1
        over = self.t == 10
        rewards = {agent: float(action) for agent, action in actions.items()}
        return {a: self.see(a) for a in self.names}, rewards, {ALL: over}, {ALL: False}, {}


class Fails(gym.Env):
    """Goes wrong in a step of its process, the third unless said.

    Args:
        how: `raise`, `nan`, `block`; `memory`: there is not enough; `exit` and `segfault`: the process ends; `fork`:
            a child lives on for a second; `print`: to standard output, in every call.
        once: a file that is there once it has gone wrong; then all is well.
        at: `step` or `reset`.
        number: which step of the process.
    """

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    taken = 0

    def __init__(self, how: str = "raise", once: str = "", at: str = "step", number: int = 3):
        self.how, self.once, self.at, self.number = how, once, at, number
        self.talk()

    def talk(self) -> None:
        if self.how == "print":
            print("the environment talks", flush=True)
            os.write(1, b"the environment talks in C\n")

    def fail(self) -> float:
        if self.once:
            if Path(self.once).exists():
                return 0.0
            Path(self.once).touch()
        if self.how == "raise":
            raise ValueError("boom in my environment")
        if self.how == "exit":
            os._exit(3)
        if self.how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "block":
            time.sleep(10_000)
        if self.how == "memory":
            np.zeros(1 << 50)
        if self.how == "fork" and os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        return np.nan if self.how == "nan" else 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        self.talk()
        if self.at == "reset":
            self.fail()
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        self.talk()
        Fails.taken += 1
        value = self.fail() if self.at == "step" and Fails.taken == self.number else 0.0
        return np.full(1, value, np.float32), 1.0, self.t == 5, False, {}


class TwoFail(Two):
    """Two agents, and a reset that always raises."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        raise ValueError("boom in the reset of two")


SEVERAL = {"waves": Waves, "turns": Turns, "two": Two, "wander": Wander}
for name, make in {
    **SEVERAL,
    "seven": Seven,
    "draw": Draw,
    "draw_two": DrawTwo,
    "fails": Fails,
    "two_fail": TwoFail,
}.items():
    rlkit.register_env(f"case_{name}", make)


def by_hand(env: Several, number: int, actions: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Play episode `number` with the actions each agent took, and count."""
    env.number = number - 1
    seen, _ = env.reset()
    left = {agent: list(taken) for agent, taken in actions.items()}
    returns: dict[str, float] = defaultdict(float, dict.fromkeys(seen, 0.0))
    steps: dict[str, int] = defaultdict(int)
    ends: dict[str, str] = {}
    length, acting = 0, set(seen)
    while True:
        for agent in acting:
            steps[agent] += 1
        seen, rewards, terminated, truncated, _ = env.step({agent: left[agent].pop(0) for agent in acting})
        length += 1
        for agent, reward in rewards.items():
            returns[agent] += reward
        for agent in seen:
            returns[agent] += 0.0
        over = terminated.get(ALL) or truncated.get(ALL)
        for agent in [*steps]:
            if agent in ends:
                continue
            if terminated.get(agent):
                ends[agent] = "terminated"
            elif truncated.get(agent):
                ends[agent] = "truncated"
            elif over:
                ends[agent] = "terminated" if terminated.get(ALL) else "truncated"
        if over:
            break
        acting = {agent for agent in seen if agent not in ends}
    assert not any(left.values())
    return {"length": length, "returns": dict(returns), "steps": dict(steps), "ends": ends}


class Witness(RLlibCallback):
    """Writes down each episode as `on_episode_end` sees it, from all its chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def on_episode_end(
        self, *, episode: Any, prev_episode_chunks: Any, env: Any, env_index: int, **_: Any
    ) -> None:
        chunks = [*prev_episode_chunks, episode]
        if not hasattr(episode, "agent_episodes"):
            total = sum(chunk.get_return() for chunk in chunks)
            self.seen.append({"length": sum(map(len, chunks)), "return": total})
            return
        seen: dict[str, Any] = {
            "number": env.envs[env_index].unwrapped.number,
            "length": sum(map(len, chunks)),
            "returns": defaultdict(float),
            "actions": defaultdict(list),
            "ends": {},
        }
        for chunk in chunks:
            for agent, one in chunk.agent_episodes.items():
                seen["returns"][agent] += one.get_return()
                seen["actions"][agent] += [int(a) for a in one.get_actions()]
                if one.is_done:
                    assert one.is_terminated != one.is_truncated
                    seen["ends"][agent] = "terminated" if one.is_terminated else "truncated"
        self.seen.append(seen)
