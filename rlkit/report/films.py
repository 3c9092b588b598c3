"""The best checkpoint of a group, played: an evaluation, and films of its median and its worst episode."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlkit.errors import RlkitError
from rlkit.report.groups import TrialGroup
from rlkit.runs.run import Trial

if TYPE_CHECKING:
    from rlkit.play.agent import Agent
    from rlkit.play.rollout import Row

EPISODES = 10
MAX_STEPS = 1_000  # a longer episode is cut, which its caption says
FILMED = 250  # steps of an episode that are filmed
MOST_FPS = 20.0  # of a film: rendering and encoding are most of what filming costs
MAX_BYTES = 600_000  # of one film; a page holds less than 3 MB


@dataclass(frozen=True)
class Film:
    """One episode as an mp4, and a frame from its middle as a JPEG."""

    caption: str
    data: bytes
    poster: bytes


@dataclass(frozen=True)
class Played:
    """Cells of the evaluation's table (name, mean, interval, std, IQM, min, max), and the films."""

    label: str
    checkpoint: str
    lines: list[list[str]]
    films: list[Film]


def best_trial(group: TrialGroup) -> Trial | None:
    """The trial whose best checkpoint is the best of the group; one without a value comes last."""
    found = [trial for trial in group.trials if trial.best_checkpoint or trial.last_checkpoint]
    return max(found, key=_score, default=None)


def _score(trial: Trial) -> float:
    """The value of a trial's best checkpoint, more is better."""
    best = trial.run.info.trial_best.get(trial.name)
    return (
        trial.run.recipe.best_sign * best.value
        if best is not None and math.isfinite(best.value)
        else -math.inf
    )


def play_group(group: TrialGroup, *, trust: bool, notes: list[str]) -> Played | None:
    """Evaluate and film a group's best checkpoint. Whatever prevents it becomes a note.

    Nothing of a checkpoint that this user did not sign is loaded, unless `trust`.
    """
    from rlkit.play.agent import load
    from rlkit.play.evaluation import cells, evaluate

    trial = best_trial(group)
    path = None if trial is None else trial.best_checkpoint or trial.last_checkpoint
    if path is None:
        return None
    try:
        agent = load(path, trust=trust, force=None)
        result = evaluate(agent, episodes=EPISODES, max_steps=MAX_STEPS)
    except RlkitError as error:
        notes.append(f"{group.label}: not played, {error}")
        return None
    found = {"return": result.episode_return, **{f"return/{a}": s for a, s in result.agents.items()}}
    lines = [[name, *cells(values)] for name, values in {**found, "length": result.episode_length}.items()]
    films = []
    order = sorted(result.rows, key=lambda row: (row.ret, row.seed))
    median, worst = order[len(order) // 2], order[0]
    filmed = [("median", median), ("worst", worst)]
    if median.ret == worst.ret:  # as good as each other: one film is enough
        filmed = [("median and worst", worst)]
    for what, row in filmed:
        cut = f"; the first {FILMED} of {row.length} steps" if row.length > FILMED else ""
        try:
            data, poster = _film(agent, row)
        except RlkitError as error:
            notes.append(f"{group.label}: no films, {error}")
            break
        if len(data) > MAX_BYTES:
            notes.append(
                f"{group.label}: the film of the {what} episode is left out, it has {len(data):,} bytes"
            )
            continue
        films.append(
            Film(
                f"{what} of {EPISODES} episodes: seed {row.seed}, return {row.ret:,.1f}{cut}",
                data,
                poster,
            )
        )
    return Played(group.label, str(path), lines, films)


def _film(agent: Agent, row: Row) -> tuple[bytes, bytes]:
    """Play an episode again; return its film, and its middle frame as a JPEG."""
    import imageio.v3

    from rlkit.play.evaluation import environment_of, make_checked
    from rlkit.play.recording import Video
    from rlkit.play.rollout import Pool, play

    name, config = environment_of(agent, None, None)
    pool = Pool(functools.partial(make_checked, agent, name, config))
    with tempfile.TemporaryDirectory(prefix="rlkit-film-") as folder:
        path = Path(folder, "episode.mp4")
        film = Video(path, most_fps=MOST_FPS, poster_at=max(1, min(row.length, FILMED) // 2))
        try:
            play(agent.policy, pool, [row.seed], slots=1, max_steps=FILMED, recorders=[film])
        except BaseException:
            film.close(False)
            raise
        finally:
            pool.close()
        film.close(True)
        picture = film.poster[-1] if isinstance(film.poster, list) else film.poster
        poster = imageio.v3.imwrite("<bytes>", picture[..., :3], extension=".jpg", quality=70)
        return path.read_bytes(), poster


def play_best(groups: Sequence[TrialGroup], *, trust: bool, notes: list[str]) -> Played | None:
    """Play the group whose best checkpoint is the best of those in the first group's environment."""
    here = [group for group in groups if group.params.get("env") == groups[0].params.get("env")]
    scored, damaged = [], False
    for group in here:
        try:
            trial = best_trial(group)
            scored += [(_score(trial), group)] if trial else []
        except RlkitError as error:
            damaged = True
            notes.append(f"{group.label}: not played, {str(error).splitlines()[0]}")
    if not scored:
        if not damaged:
            notes.append(f"{here[0].label}: no films, there is no finished checkpoint")
        return None
    return play_group(max(scored, key=lambda pair: pair[0])[1], trust=trust, notes=notes)
