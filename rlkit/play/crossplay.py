"""Cross-play: agents of one environment played by different checkpoints, on the same seeds for every pairing.

    rlkit evaluate A --versus B --agents "adversary_*=A,agent_*=B"
    rlkit evaluate A --versus B --agents "adversary_*=A,agent_*=B" --matrix

Letters stand for the runs in their order. With `--matrix` every run takes both sides once, against every other and
itself. Evaluations are as exact as those of one checkpoint (rlkit/play/rollout.py): each side keeps its own modules,
connectors and recurrent states, and sees what its own agents see.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rlkit.errors import UsageError, csv_cell, printable
from rlkit.play.agent import Agent
from rlkit.play.answers import Answer
from rlkit.play.evaluation import (
    Evaluation,
    EvaluationOptions,
    environment_of,
    make_checked,
    row_json,
    statistics,
    write_csv,
)
from rlkit.play.policy import Policy
from rlkit.roster import matches

if TYPE_CHECKING:
    from rich.console import RenderableType

LETTERS = string.ascii_uppercase
MATRIX_LETTERS = 2


@dataclass
class _Seat:
    """One side of one episode: its policy's memory, which of its agents are out, whether it has begun or ended."""

    memory: Any
    ended: set[Any] = field(default_factory=set)
    waits: bool = True
    over: bool = False

    @property
    def plays(self) -> bool:
        return not self.waits and not self.over


class Sides:
    """Several policies that play one environment together: what `rlkit.play.rollout.play` needs of a policy.

    Args:
        policies: by letter.
        plays: the letter of each agent, by its name in the environment.
    """

    multi_agent = True

    def __init__(self, policies: Mapping[str, Policy], plays: Mapping[Any, str]):
        self.policies, self.plays = dict(policies), dict(plays)
        first = next(iter(self.policies.values()))
        self.observation_space: gym.Space = first.observation_space
        self.action_space: gym.Space = first.action_space
        self.modules = {
            f"{letter}/{name}": module
            for letter, policy in self.policies.items()
            for name, module in policy.modules.items()
        }

    def begin(self, name: str, data: Mapping[str, Any] | None = None) -> dict[str, _Seat]:
        """Return the memory of a new episode: a seat per side."""
        return {letter: _Seat(policy.begin(name, data)) for letter, policy in self.policies.items()}

    def see(self, memory: dict[str, _Seat], observation: Any, info: Any = None, *outcome: Any) -> None:
        """Tell each side what its own agents saw, earned and were told, from their first observation to their end.

        A policy that watches others sees everything, from the first observation on.
        """
        for letter, policy in self.policies.items():
            seat = memory[letter]
            whole = (observation, info or {}, *outcome)
            own = [self._own(letter, part) for part in whole]
            seen, told, *rest = whole if policy.watches_others else own
            if seat.waits and seen:
                policy.see(seat.memory, seen, told)
                seat.waits = False
            elif seat.plays:
                policy.see(seat.memory, seen, told, *rest)
            seat.ended.update(agent for flags in own[3:] for agent, flag in flags.items() if flag)
            if seat.ended.issuperset(agent for agent, side in self.plays.items() if side == letter):
                seat.over = True

    def _own(self, letter: str, values: Mapping[Any, Any]) -> dict[Any, Any]:
        return {
            agent: value
            for agent, value in values.items()
            if agent == "__all__" or self.plays.get(agent) == letter
        }

    def act(self, memories: Sequence[dict[str, _Seat]], **options: Any) -> list[Answer]:
        """Answer for every agent, each from its own side."""
        answers = [Answer() for _ in memories]
        for letter, policy in self.policies.items():
            playing = [i for i, memory in enumerate(memories) if memory[letter].plays]
            found = policy.act([memories[i][letter].memory for i in playing], **options) if playing else []
            for i, answer in zip(playing, found, strict=True):
                answers[i].actions |= self._own(letter, answer.actions)
                answers[i].module_actions |= self._own(letter, answer.module_actions)
                answers[i].q_values |= self._own(letter, answer.q_values)
                for name, told in answer.outputs.items():
                    answers[i].outputs.setdefault(name, {}).update(self._own(letter, told))
        for letter, policy in self.policies.items():
            for memory, answer in zip(memories, answers, strict=True) if policy.watches_others else ():
                if memory[letter].plays:
                    taken = {**answer.actions, **answer.module_actions}
                    others = {agent: a for agent, a in taken.items() if self.plays.get(agent) != letter}
                    policy.hear(memory[letter].memory, others)
        return answers


@dataclass(frozen=True)
class Pairing:
    """One line of the table: who plays each letter, and the evaluation.

    Attributes:
        players: letter -> checkpoint.
        plays: agent -> letter.
        evaluation: its rows; `evaluation.checkpoint` names all players.
    """

    players: dict[str, str]
    plays: dict[str, str]
    evaluation: Evaluation

    @property
    def returns(self) -> dict[str, dict[str, Any]]:
        """Statistics of each side's return: the sum over its agents."""
        return {letter: statistics(self.side_returns(letter)) for letter in self.players}

    def side_returns(self, letter: str) -> list[float]:
        """Return the sum over a side's agents, per episode."""
        own = [agent for agent, side in self.plays.items() if side == letter]
        return [sum(row.agents.get(agent, 0.0) for agent in own) for row in self.evaluation.rows]

    def to_json(self) -> dict[str, Any]:
        evaluation = self.evaluation
        return {
            "players": self.players,
            "returns": self.returns,
            "episode_return": evaluation.episode_return,
            "episode_length": evaluation.episode_length,
            "agents": evaluation.agents,
            **({"measures": evaluation.measures} if evaluation.measures else {}),
            "per_episode": [
                {
                    **row_json(row),
                    "returns": {letter: self.side_returns(letter)[i] for letter in self.players},
                }
                for i, row in enumerate(evaluation.rows)
            ],
        }


@dataclass(frozen=True)
class CrossPlay:
    """The result of `cross_play`: one pairing, or all of a matrix, in the order of the runs."""

    env: str
    seed: int
    explore: bool
    plays: dict[str, str]
    pairings: list[Pairing] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        return self.pairings[0].evaluation.episodes

    def to_json(self) -> dict[str, Any]:
        """Return everything as a dict that `json.dumps` takes."""
        return {
            "env": self.env,
            "episodes": self.episodes,
            "seed": self.seed,
            "explore": self.explore,
            "agents": self.plays,
            "pairings": [pairing.to_json() for pairing in self.pairings],
        }

    def to_csv(self, path: str | Path) -> None:
        """Write a row per pairing and episode: a column per letter, then those of `Evaluation.to_csv`."""
        first = self.pairings[0]
        agents, measures = list(first.plays), list(first.evaluation.measures)
        letters = list(first.players)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        sides = [f"return/{letter}" for letter in letters]
        own = [f"return/{agent}" for agent in agents]
        head = [*letters, "episode", "seed", "return", "length", *sides, *own, *measures]
        writer.writerow(map(csv_cell, head))
        for pairing in self.pairings:
            totals = [pairing.side_returns(letter) for letter in letters]
            players = [csv_cell(player) for player in pairing.players.values()]
            for i, row in enumerate(pairing.evaluation.rows):
                writer.writerow(
                    [
                        *players, i, row.seed, row.ret, row.length, *(t[i] for t in totals),
                        *(row.agents.get(agent, "") for agent in agents), *(row.measures[m] for m in measures),
                    ]
                )  # fmt: skip
        write_csv(path, text.getvalue())

    def table(self) -> RenderableType:
        """Return one line per pairing: each side's return and each measure, with 95 % intervals."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        letters = list(self.pairings[0].players)
        names = self._names()
        measures = list(self.pairings[0].evaluation.measures)
        table = Table()
        for letter in letters:
            table.add_column(letter)
        for title in (*(f"return/{letter}" for letter in letters), *measures, "length"):
            table.add_column(title, justify="right")
        for pairing in self.pairings:
            evaluation = pairing.evaluation
            found = [*pairing.returns.values(), *evaluation.measures.values(), evaluation.episode_length]
            table.add_row(
                *(names[path] for path in pairing.players.values()),
                *(f"{f['mean']:.2f} ({f['ci95'][0]:.2f} … {f['ci95'][1]:.2f})" for f in found),
            )
        how = "sampled actions" if self.explore else "greedy"
        last = self.seed + self.episodes - 1
        sides = "; ".join(
            f"{letter} plays {', '.join(a for a, side in self.plays.items() if side == letter)}"
            for letter in letters
        )
        head = [f"{self.env}: {self.episodes} episodes, seeds {self.seed} to {last}, {how}", sides]
        head += [f"{name}: {path}" for path, name in names.items()]
        return Group(*(Text(printable(line), no_wrap=True, overflow="ignore") for line in head), table)

    def _names(self) -> dict[str, str]:
        """Number the checkpoints in the order they were given: paths are too long for a table."""
        paths = dict.fromkeys(path for pairing in self.pairings for path in pairing.players.values())
        return {path: f"#{i}" for i, path in enumerate(paths, 1)}


def cross_play(
    runs: Sequence[str | Path | Agent],
    agents: str | Mapping[str, str],
    *,
    matrix: bool = False,
    **options: Any,
) -> CrossPlay:
    """Let checkpoints play together in the first one's environment, every pairing on the same seeds.

    Args:
        runs: checkpoints, trials, runs or loaded agents; the first is A, the second B, and so on.
        agents: who plays whom, `"adversary_*=A,agent_*=B"` or `{glob: letter}`; the first glob that fits counts.
        matrix: with two letters: every run as A against every run as B.
        options: as for `rlkit.evaluate`; video and trace for one pairing only.

    Raises:
        UsageError: letters, agents or spaces that do not fit together; the message names the agent and both values.
        CheckpointError: see `rlkit.load`.
        EnvError: the environment failed or never ends.
    """
    asked = EvaluationOptions(**options)
    globs = _parse(agents)
    letters = sorted(set(globs.values()))
    _check_letters(letters, len(runs), matrix)
    if matrix and (asked.video is not None or asked.trace is not None):
        raise UsageError("--video and --trace film one pairing; leave out --matrix")
    loaded = [asked.agent(run) for run in runs]
    first = loaded[0]
    name, config = environment_of(first, asked.env, asked.env_config)
    for agent in loaded:
        if not agent.policy.multi_agent:
            raise UsageError(f"{agent.manifest.path} plays {name} alone; cross-play needs several agents")
    plays = _assign(globs, first, name)
    shown = {str(one): letter for one, letter in plays.items()}  # as in rows
    result = CrossPlay(name, asked.seed, asked.explore, shown)
    for players in itertools.product(loaded, repeat=2) if matrix else [tuple(loaded)]:
        by_letter = dict(zip(letters, players, strict=True))
        _check_spaces(by_letter, plays, first)
        sides = Sides({letter: agent.policy for letter, agent in by_letter.items()}, plays)
        make = functools.partial(make_checked, first, name, config)
        rows = asked.rows(sides, make)  # type: ignore[arg-type]
        paths = {letter: str(agent.manifest.path) for letter, agent in by_letter.items()}
        evaluation = Evaluation(" + ".join(paths.values()), name, asked.seed, asked.explore, rows)
        result.pairings.append(Pairing(paths, shown, evaluation))
    if asked.csv is not None:
        result.to_csv(asked.csv)
    return result


def _parse(agents: str | Mapping[str, str]) -> dict[str, str]:
    """Return {glob: letter}."""
    if not isinstance(agents, str):
        return dict(agents)
    globs: dict[str, str] = {}
    for part in agents.split(","):
        glob, equals, letter = (word.strip() for word in part.partition("="))
        if not (glob and equals and len(letter) == 1 and letter in LETTERS):
            raise UsageError(
                f'--agents: got {part!r}, expected GLOB=LETTER, such as "adversary_*=A,agent_*=B" (A is the first run, '
                "B the first --versus)"
            )
        globs[glob] = letter
    return globs


def _check_letters(letters: Sequence[str], runs: int, matrix: bool) -> None:
    if matrix:
        if list(letters) != list(LETTERS[:MATRIX_LETTERS]):
            raise UsageError(f"--matrix needs the letters A and B in --agents, got {', '.join(letters)}")
        return
    wanted = list(LETTERS[:runs])
    if list(letters) != wanted:
        raise UsageError(
            f"--agents names {', '.join(letters)}, and {runs} runs were given: expected {', '.join(wanted)}, or "
            "--matrix with A and B for every pairing"
        )


def _assign(globs: Mapping[str, str], agent: Agent, env: str) -> dict[Any, str]:
    """Return the letter of each agent of the environment, whose names may be numbers."""
    known = list(agent.observation_space.spaces)
    plays = {}
    for name in known:
        letter = next((side for glob, side in globs.items() if matches(name, [glob])), None)
        if letter is None:
            raise UsageError(f"--agents: nobody plays {name!r} of {env}; got the globs {', '.join(globs)}")
        plays[name] = letter
    for glob, letter in globs.items():
        if not any(matches(name, [glob]) for name in known):
            raise UsageError(
                f"--agents: {glob}={letter} fits no agent of {env}; it has {', '.join(map(str, known))}"
            )
    return plays


def _check_spaces(players: Mapping[str, Agent], plays: Mapping[Any, str], first: Agent) -> None:
    """Every player must have learnt the agents it plays, and those it watches, with the spaces they have here."""
    watched = [(name, letter) for letter, a in players.items() if a.policy.watches_others for name in plays]
    for name, letter in (*plays.items(), *watched):
        agent = players[letter]
        for kind in ("observation_space", "action_space"):
            ours, theirs = getattr(first, kind).spaces[name], getattr(agent, kind).spaces.get(name)
            if theirs != ours:
                raise UsageError(
                    f"{letter} ({agent.manifest.path}) cannot play {name!r}: it learnt the {kind} {theirs}, the "
                    f"environment has {ours}"
                )
