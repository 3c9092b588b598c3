"""Reading and describing a run folder: `open_run(path)` gives a `Run`, `find_checkpoint(path)` a checkpoint.

    runs/<name>/<time>/  recipe.yaml  run.json  metrics.csv
        <trial>/  params.json  result.json  checkpoint_000010/ (…, manifest.json)

A checkpoint folder without `manifest.json` was never finished and is passed over. Nothing here unpickles
anything or imports Ray, torch or (before `Run.metrics` is used) pandas.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlkit.errors import CheckpointError, UsageError, did_you_mean, printable
from rlkit.files import write_atomic
from rlkit.runs import lock, signing, store
from rlkit.runs.layout import INFO, MANIFEST, METRICS, RECIPE, checkpoints_in, iteration_of, versions
from rlkit.runs.metrics_csv import last_rows, newest
from rlkit.runs.reading import LARGEST_TABLE, open_regular, read_object, shown, typed

if TYPE_CHECKING:
    import pandas

    from rlkit.recipe import Recipe

FORMAT = 1
EMPTY = "RLKIT_EMPTY"  # an environment variable of git's that holds nothing
Status = Literal["running", "done", "failed", "interrupted", "terminated"]


@dataclass
class Best:
    """A checkpoint and its value; the path is relative to the run folder."""

    trial: str
    checkpoint: str
    metric: str
    value: float


@dataclass
class RunInfo:
    """run.json: how a run was started, and where it stands. Paths in it are relative to the run folder.

    It is signed at every write; `rlkit.runs.seal` verifies it, and what it says of other files, before `--resume`.
    """

    name: str
    argv: list[str] = field(default_factory=list)
    command: str = ""
    created: str = ""  # local time with UTC offset, ISO 8601
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, str | bool] | None = None  # commit, dirty; None outside a repository
    imports: list[str] = field(default_factory=list)
    address: str | None = None
    seed: int | None = None
    status: Status = "running"
    error: str | None = None
    best: Best | None = None
    trial_best: dict[str, Best] = field(default_factory=dict)
    last_checkpoint: str | None = None
    pid: int | None = None
    host: str | None = None
    recipe_sha256: str | None = None
    tune_state: dict[str, list[str]] = field(default_factory=dict)  # file of Tune -> what its sha256 may be
    resumed_with: list[str] = field(default_factory=list)  # KEY=VALUE of `--resume`; the next one keeps them
    extending: bool = False  # a new limit was given, and Tune has not saved yet that finished trials go on
    format: int = FORMAT

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        *,
        command: str | None = None,
        imports: Iterable[str] = (),
        address: str | None = None,
    ) -> RunInfo:
        """Describe a run that this process starts now: command line, versions, git commit."""
        argv = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
        return cls(
            name=recipe.name,
            argv=argv,
            command=shlex.join(argv) if command is None else command,
            created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            versions=versions(),
            git=git_state(),
            imports=list(imports),
            address=address,
            seed=recipe.seed,
        )

    def write(self, folder: str | Path) -> None:
        """Write run.json so that a reader never sees half of it."""
        write_atomic(Path(folder) / INFO, self.content())

    def content(self) -> str:
        """Return run.json, signed. A running run belongs to this process."""
        if self.status == "running":
            self.pid, self.host = os.getpid(), socket.gethostname()
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        signature = signing.stamp(signed_text(values))
        return json.dumps({**values, "signature": signature}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: str | Path) -> RunInfo:
        """Read run.json as it is; whoever wrote it, and whether it was edited, is `rlkit.runs.seal`'s to say.

        Raises:
            CheckpointError: no run.json, a damaged one, or one of another format.
        """
        return cls.of(read_values(folder), folder)

    @classmethod
    def of(cls, values: dict[str, Any], folder: str | Path) -> RunInfo:
        """Return the content of a folder's run.json, its types checked."""
        return typed(cls, values, Path(folder) / INFO)


def read_values(folder: str | Path) -> dict[str, Any]:
    """Return run.json's content; see `RunInfo.read`."""
    path = Path(folder) / INFO
    try:
        values = read_object(path)
    except FileNotFoundError:
        raise CheckpointError(f"{shown(folder)} is not a run folder: it has no {INFO}") from None
    version = values.get("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{shown(folder)} was written in run folder format {shown(version)}; this rlkit reads format {FORMAT}. Use "
            f"the rlkit that wrote it ({INFO}, versions) or train again from its {RECIPE}"
        )
    return values


def signed_text(values: dict[str, Any]) -> bytes:
    """Return the bytes of run.json's content that its signature is for."""
    return b"run.json\n" + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Trial:
    """One trial of a run: one seed, or one point of a search."""

    name: str
    path: Path
    run: Run = field(repr=False)

    @property
    def params(self) -> dict[str, Any]:
        """The recipe of this trial as a plain dict: search spaces replaced by their values, a resume's words put in."""
        path = self.path / "params.json"
        try:
            values = read_object(path)
        except FileNotFoundError:
            return {}
        return self.run.resumed({key: value for key, value in values.items() if not key.startswith("__")})

    @property
    def recipe(self) -> Recipe:
        """The recipe of this trial; the run's where Tune has not written the trial's yet."""
        from rlkit.recipe import Recipe

        params = self.params
        return Recipe.from_dict(params) if params else self.run.recipe

    @property
    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, newest last."""
        return [path for path in checkpoints_in(self.path) if _finished(path)]

    @property
    def best_checkpoint(self) -> Path | None:
        """The best one that run.json names for this trial, or None."""
        info = self.run.info
        named = info.trial_best.get(self.name)
        if named is None and info.best and info.best.trial == self.name:
            named = info.best
        return self.run.checkpoint_of(named)

    @property
    def last_checkpoint(self) -> Path | None:
        return checkpoints[-1] if (checkpoints := self.checkpoints) else None

    @property
    def last(self) -> dict[str, float]:
        """Its newest row of metrics.csv, by tidy name; {} before the first result."""
        return self.run.last_rows.get(self.name, {})


class Run:
    """A run folder. Everything is read from the files when asked for, so a running one can be watched."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.info  # noqa: B018  the error of a folder that is none comes now

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self.status!r}, trials={len(self.trials)})"

    @property
    def info(self) -> RunInfo:
        return RunInfo.read(self.path)

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def status(self) -> str:
        """running, done, failed, interrupted or terminated; a run that nobody holds any more is `interrupted`."""
        info = self.info
        here = info.host == socket.gethostname()  # a lock of another machine may not be seen from here
        gone = info.status == "running" and here and lock.holder(self.path) is None
        return "interrupted" if gone else info.status

    @property
    def recipe(self) -> Recipe:
        """recipe.yaml, without looking up the names in it: the user's own may not be registered here.

        Raises:
            CheckpointError: the file is missing.
            RecipeError: it is no recipe.
        """
        from rlkit.recipe import Recipe, RecipeError
        from rlkit.recipe.problems import Report
        from rlkit.recipe.source import parse, read_text
        from rlkit.recipe.tree import Reader, Unusable

        path = self.path / RECIPE
        try:
            open_regular(path).close()
        except FileNotFoundError:
            raise CheckpointError(
                f"{shown(path)}: missing; expected the recipe that the run was started with"
            ) from None
        report = Report(str(path))
        try:
            values = Reader(report).read(parse(read_text(path, report), report))
        except Unusable:
            raise RecipeError(report.problems) from None
        return Recipe.from_dict(self.resumed(values))

    def resumed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the plain data of a recipe with what `--resume` was given, such as `stop.env_steps=200000`.

        Raises:
            CheckpointError: run.json has words there that are no overrides.
        """
        words = self.info.resumed_with
        if not words:
            return values
        from rlkit.recipe import RecipeError
        from rlkit.recipe.overrides import changed

        try:
            return changed(values, words)
        except RecipeError as error:
            reason = shown(str(error).splitlines()[0])
            raise CheckpointError(f"{shown(self.path / INFO)}: resumed_with: {reason}") from None

    @property
    def trials(self) -> list[Trial]:
        """In the order of their names, which is the order of their creation."""
        folders = sorted(p for p in self.path.iterdir() if p.is_dir() and _is_trial(p))
        for folder in folders:  # a stranger's link could lead to any other folder
            if folder.is_symlink():
                raise CheckpointError(f"{shown(folder)}: got a link, expected the folder of a trial")
            if any("\ud800" <= letter <= "\udfff" for letter in folder.name):  # bytes that are no UTF-8
                raise CheckpointError(
                    f"{shown(folder)}: got a name that is no UTF-8, expected the folder of a trial"
                )
        return [Trial(p.name, p, self) for p in folders]

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint run.json calls the best; the last one if it names none that is there."""
        return self.checkpoint_of(self.info.best) or self.last_checkpoint

    def checkpoint_of(self, entry: Best | None) -> Path | None:
        """The checkpoint that a `best` of run.json names, or None if it is not there.

        Raises:
            CheckpointError: it is outside the run folder.
        """
        relative = Path(entry.checkpoint if entry else "")
        if relative.is_absolute() or ".." in relative.parts:
            raise CheckpointError(
                f"{self.path / INFO} names the checkpoint {shown(relative)!r}, expected one inside the run folder; "
                "name a checkpoint folder instead of the run"
            )
        return self.path / relative if relative.parts and _finished(self.path / relative) else None

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest finished checkpoint: of the trial that run.json says wrote last, else by file time."""
        found = {trial.name: c for trial in self.trials if (c := trial.last_checkpoint)}
        wrote_last = (self.info.last_checkpoint or "").partition("/")[0]
        newest = max(found.values(), key=lambda c: (c / MANIFEST).stat().st_mtime, default=None)
        return found.get(wrote_last, newest)

    @property
    def metrics(self) -> pandas.DataFrame:
        """metrics.csv, one row per trial and iteration: `trial` and tidy names, NaN where not reported."""
        import pandas

        path = self.path / METRICS
        try:
            with open_regular(path, LARGEST_TABLE) as file:
                return pandas.read_csv(file, dtype={"trial": str})
        except FileNotFoundError:
            return pandas.DataFrame(
                {"trial": pandas.Series(dtype=str), "iteration": pandas.Series(dtype=float)}
            )
        except ValueError as error:  # pandas' parser, and bytes that are no UTF-8
            raise CheckpointError(f"{shown(path)}: not a table of metrics ({shown(error)})") from None

    @property
    def last_rows(self) -> dict[str, dict[str, float]]:
        """Trial -> its newest row of metrics.csv, by tidy name, without the values it did not report."""
        return last_rows(self.path / METRICS)

    def newest(self, metric: str) -> dict[str, float]:
        """Trial -> the newest finite value of a metric in metrics.csv; trials that have none are left out."""
        return newest(self.path / METRICS, metric)

    @property
    def last_metrics(self) -> dict[str, float]:
        """The newest row of the best trial; before there is one, of the trial that began first.

        An iteration in which no episode ended reports no `episode_return`; the newest one stands there then.
        """
        rows, best = self.last_rows, self.info.best
        name = best.trial if best and best.trial in rows else min(rows, default="")
        row, returned = rows.get(name, {}), self.newest("episode_return")
        return {**row, "episode_return": returned[name]} if name in returned else row


def open_run(path: str | Path) -> Run:
    """Return the run of a path: a run folder, a trial, a checkpoint, or `runs/<name>` for its newest run.

    A path may be a URI of object storage: then its files are fetched first.

    Raises:
        UsageError: no such path, or one outside any run.
        CheckpointError: a run folder of another format, or a damaged one.
    """
    here = _existing(path)
    real = here.resolve()  # `a/../b` lies in b alone
    for folder in (here, *real.parents):
        if (folder / INFO).is_file():
            return Run(next((p for p in here.parents if p.resolve() == folder), folder))
    if runs := _runs_in(here):
        return Run(runs[-1])
    raise UsageError(f"{path} is not a run folder, nor inside one: no {INFO}{_suggestion(path)}")


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint a path stands for.

    A run gives its best checkpoint by run.json, else its last; a trial likewise; `runs/<name>` its newest
    run's; a checkpoint itself.

    Raises:
        UsageError: no such path, nothing of rlkit there, or no checkpoint written yet.
        CheckpointError: a checkpoint folder that was never finished.
    """
    here = _existing(path)
    if _finished(here):
        return here
    if iteration_of(here) is not None or (here / "rllib_checkpoint.json").is_file():
        raise CheckpointError(
            f"{path} is not a finished checkpoint of rlkit: it has no {MANIFEST}. It was cut off while being "
            "written, or RLlib wrote it without rlkit"
        )
    run = open_run(here)
    place, root = here.resolve(), run.path.resolve()
    inside = place.relative_to(root).parts if root in place.parents else ()
    if len(inside) > 1 or (inside and not here.is_dir()):
        raise UsageError(f"{path} is inside a run, but is neither a trial nor a checkpoint")
    if inside:
        trial = Trial(inside[0], run.path / inside[0], run)
        named, found = run.info.trial_best.get(trial.name), trial.best_checkpoint or trial.last_checkpoint
    else:
        named, found = run.info.best, run.best_checkpoint
    if found is None:
        raise UsageError(f"{path} has no finished checkpoint yet (status: {run.status})")
    if named is not None and run.checkpoint_of(named) is None:
        said = f"the best checkpoint of {run.path} is gone, {shown(named.checkpoint)}; using the last, {found.name}"
        print(printable(said), file=sys.stderr)
    return found


def new_run_folder(out: str | Path, name: str) -> Path:
    """Create `out/name/<time>` and return it. A second run of the same second gets `<time>-2`.

    Where `out` is a URI of object storage it is the staging folder that is made (`rlkit.runs.store`).

    Raises:
        UsageError: a name that is not one folder name, or a place that cannot be written.
    """
    if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
        raise UsageError(f"the run name {name!r} cannot be a folder name; set `name:` to one word")
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    out = store.staging(out) if store.is_uri(out) else out
    for number in range(1, 1000):
        folder = Path(out) / name / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError:
            if folder.parent.is_dir():
                continue
            raise UsageError(f"cannot create {folder}: {folder.parent} is a file") from None
        except OSError as error:
            raise UsageError(f"cannot create {folder}: {error.strerror}") from None
    raise UsageError(f"cannot create a new folder under {Path(out) / name}: 999 runs began in this second")


def git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """The commit checked out in a folder, and whether files differ from it; None outside a repository.

    The folder may be a stranger's. What its own settings would have git start is left out: a file monitor, filters of
    file contents, whatever fetches missing objects, and submodules (a change within one does not count).
    """
    env = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", EMPTY: ""}

    def git(*args: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), "-c", "core.fsmonitor=false", *args]
        done = subprocess.run(command, capture_output=True, check=True, timeout=5, env=env)
        return os.fsdecode(done.stdout)

    try:
        commit = git("rev-parse", "HEAD").strip()
        words = git("config", "--list", "--null", "--name-only", "--show-scope").split("\0")
        own = [key for scope, key in itertools.pairwise(words) if scope in ("local", "worktree")]
        filters = {key.rpartition(".")[0] for key in own if key.startswith("filter.")}
        keys = [f"{name}.{end}" for name in filters for end in ("clean", "process", "required")]
        off = [f"--config-env={key}={EMPTY}" for key in keys]
        changed = git(*off, "status", "--porcelain", "-uno", "--ignore-submodules=dirty")
        return {"commit": commit, "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _finished(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _is_trial(path: Path) -> bool:
    if any((path / name).is_file() for name in ("params.json", "result.json")):
        return True
    return bool(checkpoints_in(path))


def _runs_in(folder: Path) -> list[Path]:
    """Run folders directly inside, oldest first; their names are times."""
    if not folder.is_dir():
        return []
    runs = [p for p in folder.iterdir() if (p / INFO).is_file()]
    return sorted(runs, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def _existing(path: str | Path) -> Path:
    if not str(path):
        raise UsageError("expected a run, trial or checkpoint folder, got an empty path")
    here = store.fetched(path) if store.is_uri(path) else Path(path)
    if not here.exists():
        raise UsageError(f"no such run, trial or checkpoint: {path}{_suggestion(path)}")
    return here


def _suggestion(path: str | Path) -> str:
    """Did-you-mean over the folders where the path breaks off, and over runs/<name>[/<time>]."""
    here = Path(path)
    nearby: list[str] = []
    for parent in here.parents:
        if parent.is_dir():
            depth = len(here.parts) - len(parent.parts)
            nearby = [str(p) for p in parent.glob("/".join(["*"] * depth)) if p.is_dir()]
            break
    runs = [str(p) for p in sorted(Path("runs").glob("*")) if p.is_dir()]
    times = [str(p.parent) for p in sorted(Path("runs").glob("*/*/run.json"))]
    others = [other for other in (*nearby, *runs, *times) if Path(other) != here]
    return did_you_mean(path, others) or (
        f"; runs here: {', '.join(runs[:8])}" if runs else " (`rlkit train` puts runs under runs/)"
    )
