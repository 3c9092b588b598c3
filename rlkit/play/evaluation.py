"""Exact evaluation: N complete episodes on N known seeds, one row per episode.

RLlib's own evaluation re-seeds its environments identically at every call, keeps means only, and lets PPO and
SAC draw random actions (2.60). `evaluate` plays a checkpoint, `during_training` does the same in a training.
"""

from __future__ import annotations

import csv as csv_module
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rlkit.errors import CheckpointError, EnvError, UsageError, csv_cell, printable
from rlkit.files import write_atomic
from rlkit.play.agent import Agent, load
from rlkit.play.answers import BLOCK
from rlkit.play.bundle import is_bundle
from rlkit.play.in_training import during_training
from rlkit.play.policy import Policy
from rlkit.play.recording import Measuring, Recording, Trace, Video
from rlkit.play.restore import algorithm_env
from rlkit.play.rollout import Pool, Recorder, Row, play
from rlkit.roster import Roster
from rlkit.runs.statistics import interval, iqm
from rlkit.runs.store import place_of

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Evaluation", "during_training", "evaluate", "statistics"]

MOST_EPISODES = 1_000_000  # in memory about 500 MB of rows
DRAWS = 20_000_000  # numbers drawn for a bootstrap interval at most: 10,000 resamples of up to 2,000 episodes


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: what was played, and a row per episode in the order of the seeds."""

    checkpoint: str
    env: str
    seed: int
    explore: bool
    rows: list[Row]

    @property
    def episodes(self) -> int:
        return len(self.rows)

    @property
    def episode_return(self) -> dict[str, Any]:
        """Statistics of the undiscounted return; multi-agent: of the sum over agents."""
        return statistics([row.ret for row in self.rows])

    @property
    def episode_length(self) -> dict[str, Any]:
        """Statistics of the length in environment steps."""
        return statistics([row.length for row in self.rows])

    @property
    def agents(self) -> dict[str, dict[str, Any]]:
        """Statistics of each agent's own return, over the episodes it was in; empty in a single-agent environment."""
        names = dict.fromkeys(name for row in self.rows for name in row.agents)
        return {
            name: statistics([row.agents[name] for row in self.rows if name in row.agents]) for name in names
        }

    @property
    def measures(self) -> dict[str, dict[str, Any]]:
        """Statistics of each measure that was asked for."""
        names = dict.fromkeys(name for row in self.rows for name in row.measures)
        return {name: statistics([row.measures[name] for row in self.rows]) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return everything as a dict that `json.dumps` takes."""
        return {
            "checkpoint": self.checkpoint,
            "env": self.env,
            "episodes": self.episodes,
            "seed": self.seed,
            "explore": self.explore,
            "episode_return": self.episode_return,
            "episode_length": self.episode_length,
            "agents": self.agents,
            **({"measures": self.measures} if self.measures else {}),
            "per_episode": [row_json(row) for row in self.rows],
        }

    def to_csv(self, path: str | Path) -> None:
        """Write one row per episode: episode, seed, return, length, return/<agent> for each agent, measures."""
        agents, measures = list(self.agents), list(self.measures)
        text = io.StringIO()
        writer = csv_module.writer(text, lineterminator="\n")
        head = ["episode", "seed", "return", "length"]
        writer.writerow(map(csv_cell, [*head, *(f"return/{name}" for name in agents), *measures]))
        for index, row in enumerate(self.rows):
            returns = (row.agents.get(name, "") for name in agents)
            writer.writerow(
                [index, row.seed, row.ret, row.length, *returns, *map(row.measures.get, measures)]
            )
        write_csv(path, text.getvalue())

    def table(self) -> RenderableType:
        """Return the statistics for the terminal (`rich.print(result.table())`)."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        def whole(text: str) -> Text:
            # a path must stay one word to be copied
            return Text(printable(text), no_wrap=True, overflow="ignore")

        how = "sampled actions" if self.explore else "greedy"
        last = self.seed + self.episodes - 1
        table = Table()
        table.add_column("")
        for name in ("mean", "95 % interval", "std", "IQM", "min", "max"):
            table.add_column(name, justify="right")
        lines = {"return": self.episode_return, **{f"return/{a}": s for a, s in self.agents.items()}}
        for name, found in {**lines, "length": self.episode_length, **self.measures}.items():
            table.add_row(Text(printable(name)), *cells(found))  # agents' names are no markup
        return Group(
            whole(self.checkpoint),
            whole(f"{self.env}: {self.episodes} episodes, seeds {self.seed} to {last}, {how}"),
            table,
        )


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation plays: the options of `evaluate` and `cross_play`.

    Attributes:
        episodes: how many.
        seed: of the first episode.
        explore: sample actions as in training, from a generator per episode; else the best action.
        video: write the first `video_episodes` episodes as .mp4 or .gif.
        video_episodes: how many of them.
        trace: write one CSV row per step and agent.
        csv: write one CSV row per episode.
        record: write the episodes to a .npz that BC, MARWIL, CQL and IQL learn from (docs/offline.md).
        measures: names of `rlkit.envs.measures`, such as `success`, `touches`, `infos/KEY`.
        num_envs: environments stepped as one batch; 32, or as many as there are episodes.
        max_steps: cut episodes there and count them as they are.
        env: another environment than the recipe's, or that of a plain RLlib checkpoint.
        env_config: its keyword arguments; None keeps the recipe's.
        imports, trust, force: as for `rlkit.load`.

    Raises:
        UsageError: a number below 1.
    """

    episodes: int = 100
    seed: int = 0
    explore: bool = False
    video: str | Path | None = None
    video_episodes: int = 1
    trace: str | Path | None = None
    csv: str | Path | None = None
    record: str | Path | None = None
    measures: Sequence[str] = ()
    num_envs: int | None = None
    max_steps: int | None = None
    env: str | None = None
    env_config: Mapping[str, Any] | None = None
    imports: Sequence[str] = ()
    trust: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("episodes", "num_envs", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0, got {self.seed}")
        files: dict[Path, str] = {}
        for name in ("video", "trace", "csv", "record"):
            place = getattr(self, name)
            if place is None:
                continue
            if Path(place).is_dir():
                raise UsageError(f"cannot write {name} to {place}: it is a folder; name a file")
            other = files.setdefault(Path(place).absolute(), name)
            if other != name:
                raise UsageError(f"got {place} for {other} and for {name}; give each a file of its own")
        if self.episodes > MOST_EPISODES:
            raise UsageError(
                f"got {self.episodes:,} episodes, expected at most {MOST_EPISODES:,}: each is kept as a row, and the "
                "interval of a mean narrows with the square root of their number; play them in parts, with --seed"
            )

    def agent(self, path: str | Path | Agent) -> Agent:
        """Load an agent, unless it is one."""
        if isinstance(path, Agent):
            return path
        return load(path, imports=self.imports, trust=self.trust, force=self.force)

    def rows(
        self, policy: Policy, make: Callable[[bool], Any], about: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """Play a policy in the environments of `make(render)`, and write what is asked for; `about` goes with data."""
        measuring = Measuring(self.measures, self.episodes) if self.measures else None
        pool = Pool(make)
        recorders: list[Video | Trace | Recording] = []
        complete = False
        try:
            if self.video is not None:
                recorders.append(Video(self.video, min(self.video_episodes, self.episodes)))
            if self.trace is not None:
                recorders.append(Trace(self.trace, policy, self.episodes))
            if self.record is not None:
                recorders.append(Recording(self.record, policy, self.episodes, about or {}))
            watchers: list[Recorder] = [*recorders, *([measuring] if measuring else [])]
            rows = play(
                policy,
                pool,
                range(self.seed, self.seed + self.episodes),
                slots=self.num_envs or BLOCK,
                explore=self.explore,
                max_steps=self.max_steps,
                recorders=watchers,
            )
            complete = True
        finally:
            pool.close()
            for recorder in recorders:
                recorder.close(complete)
        for index, row in enumerate(rows):
            row.measures = measuring.values[index] if measuring else {}
        return rows


def evaluate(
    path: str | Path | Agent, episodes: int = 100, seed: int = 0, explore: bool = False, **options: Any
) -> Evaluation:
    """Play exactly `episodes` complete episodes of a checkpoint, the k-th reset with seed `seed + k`.

    The same checkpoint, seeds and machine give the same rows, whatever `num_envs` is. No Ray is started.

    Args:
        path: a checkpoint, a trial or run folder (its best checkpoint), or a loaded agent.
        options: see `EvaluationOptions`.

    Raises:
        UsageError: an argument that makes no sense, or an environment that does not fit the checkpoint.
        CheckpointError: see `rlkit.load`.
        EnvError: the environment failed or never ends.
    """
    asked = EvaluationOptions(episodes, seed, explore, **options)
    agent = asked.agent(path)
    name, config = environment_of(agent, asked.env, asked.env_config)
    about = {
        "env": name,
        "env_config": config,
        "checkpoint": place_of(agent.manifest.path),
        "explore": explore,
    }
    rows = asked.rows(agent.policy, functools.partial(make_checked, agent, name, config), about)
    result = Evaluation(place_of(agent.manifest.path), name, seed, explore, rows)
    if asked.csv is not None:
        result.to_csv(asked.csv)
    return result


def row_json(row: Row) -> dict[str, Any]:
    """Return an episode as JSON."""
    found = {"seed": row.seed, "return": row.ret, "length": row.length, "agents": dict(row.agents)}
    return {**found, "measures": dict(row.measures)} if row.measures else found


def cells(found: Mapping[str, Any]) -> list[str]:
    """Return statistics as cells: mean, interval, standard deviation, IQM, extremes."""
    low, high = found["ci95"]
    rest = (f"{found[key]:.2f}" for key in ("std", "iqm", "min", "max"))
    return [f"{found['mean']:.2f}", f"{low:.2f} … {high:.2f}", *rest]


def write_csv(path: str | Path, text: str) -> None:
    """Write a file, its folder first.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def statistics(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (over n), extremes, IQM, and a 95 % bootstrap interval of the mean.

    IQM as in rliable (arXiv 2108.13264): the lowest and the highest quarter of the values are left out. The interval
    has 10,000 resamples, of more than 2,000 values fewer (20,000,000 / n, at least 100).
    """
    array = np.asarray(values, dtype=np.float64)
    low, high = interval(array, resamples=max(100, min(10_000, DRAWS // len(array))))
    return {
        "mean": float(array.mean()),
        "std": float(array.std()),
        "min": float(array.min()),
        "max": float(array.max()),
        "iqm": float(iqm(array)),
        "ci95": [low, high],
    }


def environment_of(
    agent: Agent, env: str | None, env_config: Mapping[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of the environment: the caller's, the recipe's, or RLlib's config's."""
    recipe = agent.manifest.recipe
    if recipe is not None:
        name, config = recipe.get("env"), recipe.get("env_config") or {}
        if env is None and not (isinstance(name, str) and isinstance(config, Mapping)):
            raise CheckpointError(
                f"{agent.manifest.path}: its recipe names no environment, got env: {name!r}; name it with --env "
                "(Python: env=...)"
            )
    elif env is not None:
        name, config = env, {}
    else:
        name, config = algorithm_env(agent.manifest.path)
        if not isinstance(name, str):
            raise UsageError(
                f"{agent.manifest.path} is a plain RLlib checkpoint whose environment is {name!r}; register "
                "it under a name (rlkit.register_env, --import) and give that name: env=..."
            )
    if env is not None and env != name:
        name, config = env, {}
    return str(name), dict(config if env_config is None else env_config)


def make_checked(agent: Agent, name: str, config: Mapping[str, Any], render: bool) -> Any:
    """Make an environment, with its curriculum's tasks; check that its spaces are those of the checkpoint."""
    from rlkit.curriculum.evaluation_env import prepared_from
    from rlkit.envs.make import make_env
    from rlkit.envs.watchdog import ENV_TIMEOUT_S

    extra = {"render_mode": "rgb_array"} if render else {}
    recipe = agent.manifest.recipe or {}
    limit_s = recipe.get("env_timeout_s", ENV_TIMEOUT_S)
    own = (name, dict(config)) == (recipe.get("env"), recipe.get("env_config") or {})
    try:
        env = prepared_from(
            recipe.get("curriculum") if own and not is_bundle(agent.manifest.path) else None,
            agent.manifest.path,
            lambda task: make_env(name, {**config, **task, **extra}, limit_s=limit_s),
            (recipe.get("stop") or {}).get("env_steps"),
        )
    except EnvError:
        raise
    except Exception as error:  # whatever a maker raises
        if render:
            raise UsageError(
                f"cannot film {name}: it does not take render_mode='rgb_array' ({error})"
            ) from error
        said = f"{error}" if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"cannot make the environment {name}: {said}") from error
    from ray.rllib.env.multi_agent_env import MultiAgentEnv

    several = isinstance(env.unwrapped, MultiAgentEnv)
    if several != agent.policy.multi_agent:
        words = "one agent", "several agents"
        raise UsageError(
            f"{name} has {words[several]}, the checkpoint plays {words[agent.policy.multi_agent]}; give --env an "
            "environment like the one it was trained in"
        )
    for one, found in Roster.of(env).spaces.items():
        for kind, theirs in zip(("observation_space", "action_space"), found, strict=True):
            ours = getattr(agent, kind)
            if several:
                ours = ours.spaces.get(one)  # agents that the checkpoint does not know may never act
            if ours is not None and not _alike(ours, theirs):
                whose = f" for the agent {one!r}" if several else ""
                raise UsageError(
                    f"{name} has the {kind} {theirs}{whose}; the checkpoint was trained with {ours}"
                )
    return env


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether values of one space can stand for the other's: bounds may differ, shapes and choices may not."""
    if type(ours) is not type(theirs) or ours.shape != theirs.shape:
        return False
    if isinstance(ours, gym.spaces.Dict):
        same = ours.spaces.keys() == theirs.spaces.keys()
        return same and all(_alike(part, theirs[key]) for key, part in ours.spaces.items())
    if isinstance(ours, gym.spaces.Tuple):
        same = len(ours.spaces) == len(theirs.spaces)
        return same and all(map(_alike, ours.spaces, theirs.spaces))
    if isinstance(ours, gym.spaces.MultiDiscrete):
        return np.array_equal(ours.nvec, theirs.nvec) and np.array_equal(ours.start, theirs.start)
    return not isinstance(ours, gym.spaces.Discrete) or (ours.n, ours.start) == (theirs.n, theirs.start)
