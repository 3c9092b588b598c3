"""Complete episodes on given seeds: one environment per slot, every policy call answers all slots at once.

A row depends on its seed alone, not on the slot, the number of slots or the other episodes: an environment is reset
with the episode's seed and stepped until that episode ends (RLlib's vector environments reset by themselves), and a
forward pass has a fixed number of rows (`Policy.act`). Exploration draws from a generator per episode.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from rlkit import seeds as streams
from rlkit.errors import EnvError
from rlkit.play.answers import ALONE, BLOCK, Answer
from rlkit.play.policy import Policy

ENDLESS = 100_000  # steps after which an episode without a limit is an error


@dataclass
class Row:
    """One episode: its seed, undiscounted return (multi-agent: the sum over agents), length in steps."""

    seed: int
    ret: float = 0.0
    length: int = 0
    agents: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)


@dataclass
class Moment:
    """One step of an episode as a recorder sees it; dicts by agent, `ALONE` in single-agent environments."""

    t: int
    observations: dict[Any, Any]
    answer: Answer
    rewards: dict[Any, float]
    terminated: dict[Any, bool]
    truncated: dict[Any, bool]
    infos: dict[Any, Any] = field(default_factory=dict)
    next_observations: dict[Any, Any] = field(default_factory=dict)


class Recorder(Protocol):
    """Something that watches the first `episodes` episodes: a video, a trace."""

    episodes: int
    wants_q_values: bool
    wants_frames: bool  # needs an environment made for rendering

    def start(self, index: int, seed: int, env: Any) -> None: ...

    def step(self, index: int, env: Any, moment: Moment) -> None: ...

    def end(self, index: int) -> None: ...


class Pool:
    """Environments made on demand and used again; those for a video are made with `render=True`."""

    def __init__(self, make: Callable[[bool], Any]):
        self.make = make
        self._made: dict[tuple[int, bool], Any] = {}

    def get(self, slot: int, render: bool = False) -> Any:
        """Return the environment of a slot."""
        if (slot, render) not in self._made:
            self._made[slot, render] = self.make(render)
        return self._made[slot, render]

    def close(self) -> None:
        """Close all of them; one that cannot close is left alone."""
        for env in self._made.values():
            with contextlib.suppress(Exception):
                env.close()
        self._made = {}


def play(
    policy: Policy,
    pool: Pool,
    seeds: Sequence[int],
    *,
    slots: int = BLOCK,
    explore: bool = False,
    max_steps: int | None = None,
    recorders: Sequence[Recorder] = (),
) -> list[Row]:
    """Play one complete episode per seed and return their rows in the order of the seeds.

    Args:
        policy: who acts; its connectors are applied as they are and not updated.
        pool: makes the environments.
        seeds: one per episode, for `env.reset`.
        slots: environments stepped at the same time.
        explore: sample actions as in training.
        max_steps: cut episodes there and count them as they are. None: an episode that has not ended after
            100,000 steps is an error.
        recorders: watch the first episodes. Rendered ones follow each other in the first slot.

    Raises:
        EnvError: the environment failed, paid a reward that is not a number, or never ends; names the seed.
    """
    with _own_randomness():
        return _Play(policy, pool, seeds, explore, max_steps, recorders).run(min(slots, len(seeds)))


class _Slot:
    """A place where episodes are played one after the other."""

    index: int
    row: Row
    env: Any
    memory: Any
    observation: Any
    generator: np.random.Generator
    recorders: list[Recorder]
    seen: set[Any]  # agents that have observed
    done: set[Any]  # agents that have terminated or been truncated

    def __init__(self, number: int):
        self.number = number

    def all_over(self, terminated: Any, truncated: Any, observation: Any) -> bool:
        """Whether a multi-agent episode is over: it says so, or nobody is left.

        RLlib's adapter leaves `__all__` False when one agent terminates while another one truncates (2.60).
        """
        self.seen.update(observation)
        self.done.update(agent for flags in (terminated, truncated) for agent, flag in flags.items() if flag)
        return "__all__" in self.done or self.seen <= self.done

    def error(self, call: str, error: Exception) -> Exception:
        where = f"in the episode with seed {self.row.seed}, step {self.row.length}"
        if isinstance(error, EnvError):
            return EnvError(f"{error} ({where})")
        return EnvError(f"the environment's {call}() failed {where}: {type(error).__name__}: {error}")


class _Play:
    """One call of `play`."""

    def __init__(
        self,
        policy: Policy,
        pool: Pool,
        seeds: Sequence[int],
        explore: bool,
        max_steps: int | None,
        recorders: Sequence[Recorder],
    ):
        self.policy = policy
        self.pool = pool
        self.explore = explore
        self.max_steps = max_steps
        self.recorders = recorders
        rendered = max((r.episodes for r in recorders if r.wants_frames), default=0)
        episodes = list(enumerate(seeds))
        self.rendered, self.rest = deque(episodes[:rendered]), deque(episodes[rendered:])

    def run(self, slots: int) -> list[Row]:
        rows: dict[int, Row] = {}
        active = [slot for slot in map(_Slot, range(slots)) if self.start(slot)]
        while active:
            answers = self.ask(active)
            remaining = []
            for slot, answer in zip(active, answers, strict=True):
                if self.advance(slot, answer):
                    rows[slot.index] = slot.row
                    for recorder in slot.recorders:
                        recorder.end(slot.index)
                    if not self.start(slot):
                        continue
                remaining.append(slot)
            active = remaining
        return [rows[index] for index in sorted(rows)]

    def start(self, slot: _Slot) -> bool:
        """Begin the next episode in a slot; return False if none is left for it."""
        render = slot.number == 0 and bool(self.rendered)
        queue = self.rendered if render else self.rest
        if not queue:
            return False
        slot.index, seed = queue.popleft()
        slot.row = Row(seed)
        slot.env = self.pool.get(slot.number, render)
        slot.recorders = [r for r in self.recorders if slot.index < r.episodes]
        slot.generator = np.random.default_rng(streams.stream(abs(seed), "actions"))
        try:
            observation, info = slot.env.reset(seed=seed)
        except Exception as error:
            raise slot.error("reset", error) from error
        slot.memory = self.policy.begin(f"evaluation-{seed}", getattr(slot.env, "episode_custom_data", None))
        slot.observation = _own(observation)
        slot.seen, slot.done = set(observation) if self.policy.multi_agent else set(), set()
        for recorder in slot.recorders:
            recorder.start(slot.index, seed, slot.env)
        self.policy.see(slot.memory, slot.observation, info)
        return True

    def ask(self, active: list[_Slot]) -> list[Answer]:
        q_values = any(recorder.wants_q_values for slot in active for recorder in slot.recorders)
        if not self.explore:
            return self.policy.act([slot.memory for slot in active], q_values=q_values, block=BLOCK)
        answers = []
        for slot in active:  # one by one: modules and distributions draw from the global generators
            _seed(int(slot.generator.integers(2**63)))
            answers += self.policy.act([slot.memory], explore=True, q_values=q_values)
        return answers

    def advance(self, slot: _Slot, answer: Answer) -> bool:
        """Step a slot's environment, keep the books; return whether the episode is over."""
        row, multi_agent = slot.row, self.policy.multi_agent
        try:
            step = slot.env.step(answer.actions if multi_agent else answer.actions[ALONE])
            observation, reward, terminated, truncated, info = step
            observation = _own(observation)
        except Exception as error:
            raise slot.error("step", error) from error
        if multi_agent:
            over = slot.all_over(terminated, truncated, observation)
            for agent, paid in reward.items():
                row.agents[str(agent)] = row.agents.get(str(agent), 0.0) + _finite(paid, row, agent)
                row.ret += float(paid)
        else:
            over = bool(terminated or truncated)
            row.ret += _finite(reward, row)
        if slot.recorders:
            values = slot.observation, answer, reward, terminated, truncated, info, observation
            self.record(slot, *(v if multi_agent or v is answer else {ALONE: v} for v in values))
        row.length += 1
        slot.observation = observation
        if over or row.length == self.max_steps:
            return True
        if self.max_steps is None and row.length >= ENDLESS:
            raise EnvError(
                f"the episode with seed {row.seed} has not ended after {ENDLESS:,} steps; give a limit at "
                "which episodes are cut (--max-steps, Python: max_steps=N), or set one in the environment"
            )
        self.policy.see(slot.memory, observation, info, reward, terminated, truncated)
        return False

    def record(self, slot: _Slot, *values: Any) -> None:
        for recorder in slot.recorders:
            recorder.step(slot.index, slot.env, Moment(slot.row.length, *values))


def _own(observation: Any) -> Any:
    """Return an observation that stays as it is while the environment writes the next one into the same arrays."""
    if isinstance(observation, np.ndarray):
        return observation.copy()
    if isinstance(observation, dict):
        return {key: _own(value) for key, value in observation.items()}
    if type(observation) is tuple:
        return tuple(map(_own, observation))
    return observation


def _finite(reward: Any, row: Row, agent: Any = None) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        whose = "" if agent is None else f" for agent {agent!r}"
        raise EnvError(
            f"got the reward {reward!r}{whose} in the episode with seed {row.seed}, step {row.length}; "
            "expected a finite number"
        )
    return value


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the global generators and torch's threads as they were; one thread gives sums one order."""
    threads = torch.get_num_threads()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
