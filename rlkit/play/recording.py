"""Recorders of `rlkit evaluate`: video of the first episodes, CSV trace of every step, episodes as data, measures."""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import gymnasium as gym
import numpy as np
import tree

from rlkit.envs.measures import Measure, make_measure
from rlkit.errors import UsageError, csv_cell
from rlkit.files import Pending
from rlkit.play.answers import ALONE, has_q_values, named_outputs
from rlkit.play.policy import Policy
from rlkit.play.rollout import Moment
from rlkit.replay.dataset import EpisodeWriter
from rlkit.roster import leaves

SUFFIXES = (".mp4", ".gif")
WIDEST = 1024  # numbers of an observation that a trace still writes out


def begin(path: str | Path) -> Pending:
    """Return a file that appears under its name when it is complete; its folder is created.

    Raises:
        UsageError: it cannot be written to.
    """
    pending = Pending(path)
    try:
        pending.path.parent.mkdir(parents=True, exist_ok=True)
        pending.temporary.touch()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    return pending


class Video:
    """Films the first episodes one after the other, at the environment's own frames per second (else 30).

    Args:
        most_fps: more frames per second are left out; the film is as long as without.
        poster_at: the last frame up to this one is kept as `poster`, as `render()` gave it.

    Raises:
        UsageError: a name that does not end in .mp4 or .gif, a folder that cannot be written to, or an
            environment that gives no pictures.
    """

    wants_q_values = False
    wants_frames = True

    def __init__(self, path: str | Path, episodes: int = 1, most_fps: float = math.inf, poster_at: int = 0):
        self.episodes = episodes
        self.most_fps = most_fps
        self.poster_at = poster_at
        self.poster: Any = None
        self._seen = 0
        if Path(path).suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"cannot write a video to {path}: expected a name ending in {' or '.join(SUFFIXES)}"
            )
        self.output = begin(path)
        # pygame must not look for a screen or a sound card.
        for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
            os.environ.setdefault(driver, "dummy")
        self._writer: Any = None

    def start(self, index: int, seed: int, env: Any) -> None:
        self._add(env)

    def step(self, index: int, env: Any, moment: Moment) -> None:
        self._add(env)

    def end(self, index: int) -> None:
        pass

    def close(self, complete: bool) -> None:
        """Finish the file, or remove what there is of it."""
        if self._writer is not None:
            self._writer.close()
        if complete and self._writer is not None:
            self.output.finish()
        else:
            self.output.discard()

    def _add(self, env: Any) -> None:
        fps = float((getattr(env, "metadata", None) or {}).get("render_fps") or 30)
        every = max(1, math.ceil(fps / self.most_fps))
        self._seen += 1
        if (self._seen - 1) % every == 0:
            frame = env.render()
            self.write(frame, fps / every)
            if self._seen <= self.poster_at:
                self.poster = frame

    def write(self, frame: Any, fps: float) -> None:
        """Add what `render()` gave."""
        if isinstance(frame, list) and frame:
            frame = frame[-1]
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] not in (3, 4):
            got = f"shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise UsageError(
                f"cannot film this environment: render() gave {got}, expected an RGB array (height, width, "
                '3); it must support render_mode="rgb_array"'
            )
        height, width = (n - n % 2 for n in frame.shape[:2])  # video codecs want even sizes
        if self._writer is None:
            self._writer = self._open(fps)
        self._writer.append_data(np.ascontiguousarray(frame[:height, :width, :3], dtype=np.uint8))

    def _open(self, fps: float) -> Any:
        import imageio.v2

        target = self.output.temporary
        if self.output.path.suffix.lower() == ".gif":
            return imageio.v2.get_writer(target, format="GIF", mode="I", duration=1000 / fps, loop=0)
        return imageio.v2.get_writer(target, format="FFMPEG", mode="I", fps=fps, macro_block_size=2)


class Trace:
    """One CSV row per step and agent, in the order of the episodes.

    Columns: episode, seed, t, agent (multi-agent only), observation_0… (with a Dict's keys, where they are those of
    all agents: observation/position_0…), action_0…, reward, terminated, truncated,
    q_0… where a module has Q-values (one per action, or the value of a continuous action), and a module's other
    outputs by their names (gate_0…: the weights of DRON's experts). The observation is what the environment gave,
    before connectors; the action is what it got. What an agent is paid, and told of its end, before it acts again
    belongs to the row of its last action; what it is paid before its first action has no row. Observations of more
    than 1,024 numbers (pictures) are left out.
    """

    wants_frames = False

    def __init__(self, path: str | Path, policy: Policy, episodes: int):
        self.episodes = episodes
        self.multi_agent = policy.multi_agent
        self.wants_q_values = any(has_q_values(module) for module in policy.modules.values())
        observations = _widest(policy.observation_space, self.multi_agent, _size)
        actions = _widest(policy.action_space, self.multi_agent, _size)
        choices = _widest(policy.action_space, self.multi_agent, _choices)
        self.widths = (
            observations if observations <= WIDEST else 0,
            actions,
            choices if self.wants_q_values else 0,
        )
        self._named = observation_names(policy.observation_space, self.multi_agent)
        self.outputs: dict[str, int] = {}
        for module in policy.modules.values():
            for name, width in named_outputs(module).items():
                self.outputs[name] = max(width, self.outputs.get(name, 0))
        self.output = begin(path)
        self._file: IO[str] = open(self.output.temporary, "w", newline="")  # noqa: SIM115
        self._csv = csv.writer(self._file)
        header = self._header()
        self._reward = header.index("reward")
        self._csv.writerow(map(csv_cell, header))
        self._seeds: dict[int, int] = {}
        self._rows: dict[int, list[list[Any]]] = {}
        self._open: dict[int, dict[Any, list[Any]]] = {}  # the last row of each agent
        self._complete: set[int] = set()
        self._next = 0

    def start(self, index: int, seed: int, env: Any) -> None:
        self._seeds[index], self._rows[index], self._open[index] = seed, [], {}

    def step(self, index: int, env: Any, moment: Moment) -> None:
        observation_width, action_width, q_width = self.widths
        self._late(index, moment)
        for agent, action in moment.answer.actions.items():
            row: list[Any] = [index, self._seeds[index], moment.t]
            row += [csv_cell(str(agent))] if self.multi_agent else []
            row += _cells(moment.observations.get(agent), observation_width)
            row += _cells(action, action_width)
            row.append(_cells(moment.rewards.get(agent, 0.0), 1)[0])
            row += [_flag(moment.terminated, agent), _flag(moment.truncated, agent)]
            row += _cells(moment.answer.q_values.get(agent), q_width)
            for name, width in self.outputs.items():
                row += _cells(moment.answer.outputs.get(name, {}).get(agent), width)
            self._rows[index].append(row)
            self._open[index][agent] = row

    def _late(self, index: int, moment: Moment) -> None:
        """Add to the last rows of agents that do not act in this step what they are paid and told in it."""
        for agent, row in self._open[index].items():
            if agent in moment.answer.actions:
                continue
            if paid := moment.rewards.get(agent):
                row[self._reward] = _cells(float(row[self._reward]) + float(paid), 1)[0]
            if not any(row[self._reward + 1 : self._reward + 3]):
                ends = _flag(moment.terminated, agent), _flag(moment.truncated, agent)
                row[self._reward + 1 : self._reward + 3] = ends

    def end(self, index: int) -> None:
        """Write this episode and those that waited for it."""
        self._complete.add(index)
        while self._next in self._complete:
            del self._open[self._next]
            self._csv.writerows(self._rows.pop(self._next))
            self._next += 1

    def close(self, complete: bool) -> None:
        """Finish the file, or remove what there is of it."""
        self._file.close()
        if complete:
            self.output.finish()
        else:
            self.output.discard()

    def _header(self) -> list[str]:
        observations, actions, values = (
            [f"{name}_{i}" for i in range(width)]
            for name, width in zip(("observation", "action", "q"), self.widths, strict=True)
        )
        if observations and self._named:
            observations = self._named
        agent = ["agent"] if self.multi_agent else []
        before = ["episode", "seed", "t", *agent, *observations, *actions]
        told = [f"{name}_{k}" for name, width in self.outputs.items() for k in range(width)]
        return [*before, "reward", "terminated", "truncated", *values, *told]


class Recording:
    """Writes the episodes themselves to a file that BC, MARWIL, CQL and IQL read (`rlkit.replay.dataset`).

    Raises:
        UsageError: a name that does not end in .npz, a folder that cannot be written to, or several agents.
    """

    wants_q_values = wants_frames = False

    def __init__(self, path: str | Path, policy: Policy, episodes: int, about: Mapping[str, Any]):
        if policy.multi_agent:
            raise UsageError(
                f"cannot record to {path}: the environment has several agents, and RLlib's offline algorithms learn "
                "from the episodes of one"
            )
        self.episodes = episodes
        self.writer = EpisodeWriter(path, about)
        self._moments: dict[int, list[Any]] = {}
        self._seeds: dict[int, int] = {}
        self._complete: dict[int, dict[str, Any]] = {}
        self._next = 0

    def start(self, index: int, seed: int, env: Any) -> None:
        self._moments[index], self._seeds[index] = [], seed

    def step(self, index: int, env: Any, moment: Moment) -> None:
        values = moment.observations[ALONE], moment.answer.actions[ALONE], moment.next_observations[ALONE]
        kept = [tree.map_structure(np.array, value) for value in values]
        ended = bool(moment.terminated[ALONE]), bool(moment.truncated[ALONE])
        module = moment.answer.module_actions.get(ALONE)
        self._moments[index].append((*kept, float(moment.rewards[ALONE]), ended, module))

    def end(self, index: int) -> None:
        """Add this episode and those that waited for it, in the order of their seeds."""
        observations, actions, following, rewards, ended, module = zip(*self._moments.pop(index), strict=True)
        terminated, truncated = ended[-1]
        self._complete[index] = {
            "observations": [*observations, following[-1]],
            "actions": list(actions),
            "rewards": list(rewards),
            "terminated": terminated,
            "truncated": truncated or not terminated,  # cut by `max_steps`
            "seed": self._seeds.pop(index),
            "module_actions": None if module[0] is None else list(module),
        }
        while self._next in self._complete:
            self.writer.add(**self._complete.pop(self._next))
            self._next += 1

    def close(self, complete: bool) -> None:
        """Finish the file, or leave none."""
        self.writer.close(complete)


class Measuring:
    """Named measures (rlkit.envs.measures) of every episode; `values[index]` when it is over."""

    wants_q_values = wants_frames = False

    def __init__(self, names: Sequence[str], episodes: int):
        self.names, self.episodes = list(dict.fromkeys(names)), episodes
        self.values: dict[int, dict[str, float]] = {}
        self._watching: dict[int, list[Measure]] = {}
        for name in self.names:
            make_measure(name)

    def start(self, index: int, seed: int, env: Any) -> None:
        self._watching[index] = [make_measure(name) for name in self.names]

    def step(self, index: int, env: Any, moment: Moment) -> None:
        for measure in self._watching[index]:
            measure.step(env, moment.infos)

    def end(self, index: int) -> None:
        found: dict[str, float] = {}
        for name, measure in zip(self.names, self._watching.pop(index), strict=True):
            for key, value in measure.end().items():
                if key in found:
                    raise UsageError(
                        f"measure {name!r}: another measure gives {key!r} too; ask for one of them"
                    )
                found[key] = value
        self.values[index] = found


def _widest(space: Any, multi_agent: bool, size: Any) -> int:
    return max((size(s) for s in space.spaces.values()), default=0) if multi_agent else size(space)


def observation_names(space: Any, multi_agent: bool) -> list[str]:
    """Return the names of the columns of an observation; empty where agents have different ones."""
    named = [_names("observation", part) for part in (space.spaces.values() if multi_agent else [space])]
    longest = max(named, key=len, default=[])
    return longest if all(names == longest[: len(names)] for names in named) else []


def _names(prefix: str, space: gym.Space) -> list[str]:
    """Return a name for each number of a value, in the order of `_cells`, with the keys of nested Dicts."""
    if isinstance(space, gym.spaces.Dict):
        # `tree.flatten` sorts the keys
        return [n for key in sorted(space.spaces) for n in _names(f"{prefix}/{key}", space.spaces[key])]
    if isinstance(space, gym.spaces.Tuple):
        return [n for k, part in enumerate(space.spaces) for n in _names(f"{prefix}/{k}", part)]
    return [f"{prefix}_{k}" for k in range(_size(space))]


def _size(space: gym.Space) -> int:
    """Return how many numbers a value of a space holds."""
    return sum(int(np.prod(leaf.shape or ())) for leaf in leaves(space))


def _choices(space: gym.Space) -> int:
    """Return how many Q-values there are of a space: one per action, or that of a continuous action."""
    return int(space.n) if isinstance(space, gym.spaces.Discrete) else 1


def _cells(value: Any, width: int) -> list[str]:
    """Return a value as `width` cells; float32 in its shortest form, empty where it has fewer numbers."""
    if width == 0:
        return []
    leaves: Iterator[Any] = iter(()) if value is None else iter(tree.flatten(value))
    numbers = itertools.chain.from_iterable(np.asarray(leaf).ravel() for leaf in leaves)
    cells = [str(number) for number in itertools.islice(numbers, width)]
    return cells + [""] * (width - len(cells))


def _flag(flags: dict[Any, bool], agent: Any) -> int:
    return int(bool(flags.get(agent) or flags.get("__all__")))
