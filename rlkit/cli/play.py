"""`rlkit evaluate`, `export` and `report`: what a checkpoint does, a policy that leaves, a page with films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rlkit.cli.common import AsJson, Force, Imports, Trust, plugins, policy_names, stdout_for_results
from rlkit.errors import UsageError, printable
from rlkit.report import commands


def evaluate(
    path: Annotated[
        str, typer.Argument(metavar="RUN|TRIAL|CHECKPOINT|EXPORT|zoo/NAME", autocompletion=policy_names)
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

        with stdout_for_results():
            result = cross_play([path, *versus], agents, matrix=matrix, **options)
    else:
        from rlkit.play import evaluation

        with stdout_for_results():
            result = evaluation.evaluate(path, **options)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        commands.console().print(result.table(), crop=False)
        for what, where in {"video": video, "trace": trace, "csv": csv, "record": record}.items():
            if where is not None:
                print(f"{what:<6} {where}")


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


def report(
    runs: commands.RunPaths,
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML page.")] = Path("report.html"),
    videos: Annotated[bool, typer.Option("--videos/--no-videos", help="Film the best checkpoint.")] = True,
    imports: Imports = [],  # noqa: B006
    trust: Trust = False,
) -> None:
    """Write one self-contained HTML page about runs: curves, tables, videos, warnings."""
    from rlkit.report import report as write

    with stdout_for_results():
        plugins(imports)
        notes = write(runs, out, trust=trust, videos=videos)
    commands.tell(notes)
    print(printable(out))
