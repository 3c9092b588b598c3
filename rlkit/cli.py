"""The command line: parse, call one function, print. Results go to stdout, progress and messages to stderr.

Exit codes: 0 done, 1 run failed, 2 recipe or usage error, 130 interrupted, 143 terminated, 3 a bug (log file named).
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rlkit import __version__
from rlkit.errors import RlkitError, UsageError, printable
from rlkit.report import commands

app = typer.Typer(
    name="rlkit",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Imports = Annotated[
    list[str],
    typer.Option("--import", "-i", metavar="MODULE", help="Module or .py file that registers your names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Trust = Annotated[bool, typer.Option("--trust", help="Load what this user did not write (it can run code).")]
Force = Annotated[
    bool, typer.Option("--force", help="Load a checkpoint of another Ray, Python or rlkit version.")
]


def _version(asked: bool) -> None:
    if asked:
        print(f"rlkit {__version__}")
        raise typer.Exit


def _recipe_names(incomplete: str) -> list[str]:
    """Complete the names of shipped recipes; the shell itself completes files."""
    from rlkit.recipe.shipped import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def _policy_names(incomplete: str) -> list[str]:
    """Complete the names of the policies that come along; the shell itself completes folders."""
    from rlkit.recipe.shipped import policies

    return [name for name in policies() if name.startswith(incomplete)]


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Recipes for Ray RLlib: train, evaluate, compare."""


@app.command()
def train(
    recipe: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="Recipe file or shipped name, then overrides.",
            autocompletion=_recipe_names,
        ),
    ] = None,
    algorithm: Annotated[str | None, typer.Option(help="Train without a file: the algorithm.")] = None,
    env: Annotated[str | None, typer.Option(help="Train without a file: the environment.")] = None,
    out: Annotated[str, typer.Option(help="Folder for runs; s3://BUCKET/FOLDER and its kin too.")] = "runs",
    imports: Imports = [],  # noqa: B006 (typer reads the default, nothing writes it)
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Continue a run folder.")] = None,
    trial: Annotated[
        str | None,
        typer.Option(metavar="RUN:BEST", help="Train a search's best trial, or RUN:TRIAL, with new seeds."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Join a running Ray cluster.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build environment and networks, start nothing.")
    ] = False,
    trust: Trust = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what Ray and RLlib print.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe.

    For example: rlkit train dqn_cartpole config.training.lr=3e-4 seed=1
    """
    file, overrides = _split(recipe or [])
    if sum(x is not None for x in (file, algorithm or env, resume, trial)) != 1:
        raise UsageError(
            "give one of: a recipe file, --algorithm with --env, --resume RUN, or --trial RUN:BEST"
        )
    from rlkit.recipe import from_flags, from_mapping

    loaded: Any = file
    if trial is not None:
        from rlkit.launch.winner import recipe_of

        _plugins(imports)
        loaded = from_mapping(recipe_of(trial), overrides)
    elif resume is None and file is None:
        if algorithm is None or env is None:
            raise UsageError(
                "--algorithm and --env go together: rlkit train --algorithm DQN --env CartPole-v1"
            )
        _plugins(imports)
        loaded = from_flags(algorithm, env, overrides)
    from rlkit.launch import rehearsal
    from rlkit.launch import train as launch
    from rlkit.launch.interrupt import Stopped

    if dry_run:
        if resume is not None:
            raise UsageError("--dry-run goes with a recipe; a run that is resumed was built before")
        print(rehearsal.dry_run(loaded, overrides if file else (), imports=imports))
        return
    options: dict[str, Any] = {"imports": imports, "address": address, "quiet": quiet, "verbose": verbose}
    command = shlex.join(["rlkit", *sys.argv[1:]])
    _end_with_143()
    try:
        with _stdout_for_results():
            if resume is not None:
                run = launch.resume(resume, overrides, trust=trust, **options)
            else:
                run = launch.train(
                    loaded, overrides if file else (), out=out, command=command, trust=trust, **options
                )
    except Stopped as stopped:
        if stopped.run is None:
            raise
        run = stopped.run
    result = launch.summary(run)
    if as_json:
        print(json.dumps(result))
    elif not quiet:
        if result["trials"] > 1:
            from rlkit.report.ranking import Ranking

            commands.console().print(Ranking.of(run).table(), crop=False)
        _print_summary(result)
    code = {"interrupted": 130, "terminated": 143}.get(run.status, 0)
    if code:
        raise typer.Exit(code)


def _print_summary(result: dict[str, Any]) -> None:
    def show(value: Any, unit: str = "") -> str:
        return (
            "–"
            if value is None
            else (f"{value:,.1f}{unit}" if isinstance(value, float) else f"{value:,}{unit}")
        )

    trials = result["trials"]
    of_best = " (best trial)" if trials > 1 else ""
    rows = {
        "status": result["status"],
        "env steps": show(result["env_steps"]) + (f" in {trials} trials" if trials > 1 else ""),
        "return": show(result["episode_return"]) + of_best,
        "time": show(result["time_s"], " s") + of_best,
        "run": result["run"],
        "best": result["best_checkpoint"] or "no checkpoint was written",
    }
    for key, value in rows.items():
        print(f"{key:<10} {value}")
    if result["status"] in ("interrupted", "terminated"):
        print(f"\nnext: rlkit train --resume {shlex.quote(result['run'])}")
    elif result["best_checkpoint"]:
        print(f"\nnext: rlkit evaluate {shlex.quote(result['run'])}")


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Separate the recipe file from KEY=VALUE words. Only the first word can be the file."""
    files = [w for w in words if "=" not in w or Path(w).exists()]
    if len(files) > 1 or (files and words[0] != files[0]):
        raise UsageError(
            f"{files[-1]!r} is neither KEY=VALUE nor the recipe; the form is: rlkit train RECIPE KEY=VALUE"
        )
    return (files[0] if files else None), [w for w in words if w not in files]


@app.command()
def evaluate(
    path: Annotated[
        str, typer.Argument(metavar="RUN|TRIAL|CHECKPOINT|EXPORT|zoo/NAME", autocompletion=_policy_names)
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Complete episodes.")] = 100,
    seed: Annotated[int, typer.Option(help="Episode k is reset with seed S + k.")] = 0,
    explore: Annotated[
        bool, typer.Option("--explore", help="Sample actions instead of the greedy ones.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="Write an mp4 or gif.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write one CSV row per step.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one CSV row per episode.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write the episodes to a .npz for BC, MARWIL, CQL and IQL.")
    ] = None,
    measure: Annotated[
        list[str], typer.Option(help="Also measure: success, frames, both with :RADIUS, touches, infos/KEY.")
    ] = [],  # noqa: B006
    versus: Annotated[
        list[str],
        typer.Option(metavar="RUN", help="Cross-play: another run; RUN is A, this one B, the next C."),
    ] = [],  # noqa: B006
    agents: Annotated[
        str | None, typer.Option(help="Who plays whom in cross-play: 'adversary_*=A,agent_*=B'.")
    ] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Every run as A against every run as B.")] = False,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Cut an episode that does not end by itself.")
    ] = None,
    env: Annotated[str | None, typer.Option(help="Environment, for a checkpoint that names none.")] = None,
    imports: Imports = [],  # noqa: B006
    trust: Trust = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Play exactly N seeded episodes of a checkpoint (of a run: its best one)."""
    options: dict[str, Any] = {
        "episodes": episodes,
        "seed": seed,
        "explore": explore,
        "video": video,
        "trace": trace,
        "csv": csv,
        "record": record,
        "measures": measure,
        "max_steps": max_steps,
        "env": env,
        "imports": imports,
        "trust": trust,
        "force": force,
    }
    result: Any
    if versus or agents or matrix:
        if not versus or agents is None:
            raise UsageError(
                "cross-play needs both: --versus RUN and --agents 'adversary_*=A,agent_*=B' (A is the first run)"
            )
        from rlkit.play.crossplay import cross_play

        with _stdout_for_results():
            result = cross_play([path, *versus], agents, matrix=matrix, **options)
    else:
        from rlkit.play import evaluation

        with _stdout_for_results():
            result = evaluation.evaluate(path, **options)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        commands.console().print(result.table(), crop=False)
        for what, where in {"video": video, "trace": trace, "csv": csv, "record": record}.items():
            if where is not None:
                print(f"{what:<6} {where}")


@app.command()
def export(
    path: Annotated[str, typer.Argument(metavar="RUN|TRIAL|CHECKPOINT")],
    out: Annotated[str, typer.Option("-o", "--out", help="FILE.onnx, FILE.pt2, or a folder for a bundle.")],
    explore: Annotated[
        bool, typer.Option("--explore", help="Sampled actions, with the randomness as an input.")
    ] = False,
    imports: Imports = [],  # noqa: B006
    trust: Trust = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a policy as ONNX, torch.export or a bundle, checked against the checkpoint."""
    from rlkit.play.export import export as write

    made = write(path, out, explore=explore, imports=imports, trust=trust, force=force)
    if as_json:
        print(json.dumps(made.to_json()))
        return
    print(
        f"{made.path}: {made.actions} actions checked, {made.different} differ, numbers by {made.error:.1e}"
    )
    for side, ports in (("in", made.inputs), ("out", made.outputs)):
        for name, what in ports.items():
            print(f"{side:<4} {name}  {what}")


@app.command()
def check(
    words: Annotated[
        list[str], typer.Argument(metavar="RECIPE... [KEY=VALUE]...", autocompletion=_recipe_names)
    ],
    seed: Annotated[
        bool, typer.Option("--seed", help="Train the first iterations twice, and compare bit by bit.")
    ] = False,
    imports: Imports = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Report every error of a recipe with its line, without starting anything. Overrides hold for each recipe.

    `rlkit train RECIPE --dry-run` also makes the environment and the networks.
    """
    _plugins(imports)
    from rlkit.recipe import check as check_recipes

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    recipes = [word for word in words if word not in overrides]
    if not recipes:
        raise UsageError("give a recipe file: rlkit check configs/dqn_cartpole.yaml")
    problems = check_recipes(recipes, overrides=overrides)
    if as_json:
        print(json.dumps([problem.to_dict() for problem in problems]))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{len(recipes)} recipe{'s' if len(recipes) > 1 else ''} ok")
    if problems:
        raise typer.Exit(2)
    if seed:
        from rlkit.launch.seed_check import check_seed

        for recipe in recipes:
            print(check_seed(recipe, overrides, imports))


@app.command()
def show(
    recipe: Annotated[
        list[str], typer.Argument(metavar="RECIPE [KEY=VALUE]...", autocompletion=_recipe_names)
    ],
    imports: Imports = [],  # noqa: B006
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes instead.")
    ] = False,
) -> None:
    """Print a recipe as rlkit reads it: defaults filled in, overrides applied."""
    from rlkit import recipe as recipes

    if schema:
        print(json.dumps(recipes.json_schema(), indent=2))
        return
    _plugins(imports)
    file, overrides = _split(recipe)
    if file is None:
        raise UsageError("give a recipe: rlkit show dqn_cartpole")
    print(recipes.dump(recipes.load(file, overrides)), end="")


@app.command("list")
def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="algorithms|envs|models|callbacks|curricula|explorations|recipes|zoo")
    ],
    imports: Imports = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """List the names a recipe may use, and the trained policies that come along."""
    from rlkit import registry
    from rlkit.errors import did_you_mean

    _plugins(imports)
    if kind == "recipes":
        from rlkit.recipe.shipped import shipped

        rows = {name: recipe_summary(path) for name, path in shipped().items()}
    elif kind == "zoo":
        from rlkit.recipe.shipped import policies, policy_summary

        rows = {name: policy_summary(row) for name, row in policies().items()}
    elif kind in registry.TABLES:
        rows = {name: entry.summary for name, entry in sorted(registry.TABLES[kind].items())}
    else:
        known = [*registry.KINDS, "recipes", "zoo"]
        raise UsageError(f"cannot list {kind!r}{did_you_mean(kind, known)}; one of {', '.join(known)}")
    if as_json:
        print(json.dumps(rows))
        return
    width = max((len(name) for name in rows), default=0)
    for name, summary in rows.items():
        print(f"{name:<{width}}  {summary}".rstrip())
    if kind == "envs":
        print("\nand every Gymnasium id, pettingzoo/<module>.<env>, vmas/<scenario>")


def recipe_summary(path: Path) -> str:
    """Return the first comment line of a recipe."""
    first = path.read_text().splitlines()[:1]
    return first[0].lstrip("# ") if first and first[0].startswith("#") else ""


app.command()(commands.plot)
app.command()(commands.compare)
app.command()(commands.report)
app.add_typer(commands.runs_app, name="runs")


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Folder to create, and name of the run.")],
) -> None:
    """Start a project: recipe, environment, callback, model, test, README."""
    from rlkit.recipe.starter import create

    for path in create(name):
        print(path)
    print(f"\nnext: cd {name} && rlkit train recipe.yaml --import parts.py", file=sys.stderr)


@app.command()
def migrate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML of `rllib train`, a config dict, or a script.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the recipe there; several: into that folder.")
    ] = None,
) -> None:
    """Turn an old RLlib configuration into a recipe; say what changed, moved, or has no successor."""
    from rlkit.files import write_atomic
    from rlkit.recipe.migrate import migrate as read

    found = read(file)
    if out is not None and not (out if len(found) > 1 else out.parent).is_dir():
        several = f"{file} has {len(found)} experiments; " if len(found) > 1 else ""
        raise UsageError(f"cannot write {out}: {several}expected a folder that exists")
    for number, result in enumerate(found):
        for note in result.notes:
            print(f"{result.name}: {printable(note)}", file=sys.stderr)
        for stop in result.stops:
            print(f"{result.name}: stops it: {printable(stop)}", file=sys.stderr)
        if result.recipe is None:
            continue
        if out is None:
            print(("---\n" if number else "") + result.text(), end="")
            continue
        path = out / f"{result.name}.yaml" if len(found) > 1 else out
        if path.exists():
            raise UsageError(f"{path} exists; choose another --out")
        write_atomic(path, result.text())
        print(path)
    if any(result.stops for result in found):
        raise typer.Exit(2)


@contextlib.contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Send to stderr what environments print while a command works, those in C and in child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _plugins(imports: list[str]) -> None:
    from rlkit.registry import load_plugins

    load_plugins(imports)


def main() -> None:
    """Entry point: one funnel for errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")  # the lines of a table are no ASCII
    try:
        app(standalone_mode=True)
    except SystemExit as left:  # typer makes one of a KeyboardInterrupt
        stopped = getattr(left.__context__, "__cause__", None)
        if isinstance(stopped, KeyboardInterrupt):
            code = getattr(stopped, "exit_code", 130)
            print("interrupted" if code == 130 else "terminated", file=sys.stderr)
            _leave(code)
        raise
    except RlkitError as error:
        for problem in getattr(error, "problems", [error]):
            print(f"error: {_shown(problem)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {_shown(where + (error.strerror or str(error)))}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        print(
            f"error: this is a bug in rlkit ({type(error).__name__}: {_shown(error)}); log: {_log()}",
            file=sys.stderr,
        )
        raise SystemExit(3) from None


def program() -> None:
    """`main` as a process of its own, which ends without taking torch and RLlib apart again (half a second)."""
    try:
        main()
    except SystemExit as left:
        others = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        if others or "torch" not in sys.modules or not isinstance(left.code, int | None):
            raise
        atexit._run_exitfuncs()
        _leave(left.code or 0)


def _shown(message: object) -> str:
    """Return a message whose lines hold nothing that a terminal would obey; it may quote a stranger's file."""
    return "\n".join(printable(line.expandtabs(4)) for line in str(message).split("\n"))


def _end_with_143() -> None:
    """Answer SIGTERM and SIGHUP before and after a run as within it: with exit code 143."""
    main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if main and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda *_: os._exit(143))


def _leave(code: int) -> None:
    """End at once. Ray's processes have ended, or end with this one (PDEATHSIG), so nothing is waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _log() -> str:
    import traceback

    # arguments may be bytes that are no UTF-8
    with tempfile.NamedTemporaryFile(
        "w", prefix="rlkit-bug-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(f"{shlex.join(sys.argv)}\n\n{traceback.format_exc()}")
    return file.name
