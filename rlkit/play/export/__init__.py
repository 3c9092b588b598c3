"""`export(path, out)`: a checkpoint as an ONNX file, a torch.export archive or a bundle.

The whole way from observation to action stands in the file (`rlkit.play.export.graph`), it is compared with the Agent
(`checking`), and only then it gets its name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.errors import CheckpointError, UsageError

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """What `export` wrote: where, what goes in and out by name, and how it compares with the Agent."""

    path: Path
    kind: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    actions: int
    different: int
    error: float

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "path": str(self.path)}


def export(
    path: str | Path,
    out: str | Path,
    *,
    explore: bool = False,
    imports: Sequence[str] = (),
    trust: bool = False,
    force: bool = False,
) -> Exported:
    """Write the policy of a checkpoint into one file or folder that acts without RLlib.

    Args:
        path: a checkpoint, or a run or trial (its best one).
        out: `….onnx`, `….pt2`, or a folder for a bundle (a name without suffix, or with `/` at its end).
        explore: sampled actions, with the randomness as the input `noise`. A bundle holds both choices anyway.
        imports, trust, force: as for `rlkit.load`.

    Raises:
        UsageError: another suffix, a folder with something else in it, a part that cannot be traced, a package that is
            not installed.
        CheckpointError: see `rlkit.load`; the file answers other than the Agent.
    """
    out, kind = _target(out)
    from rlkit.play.agent import load
    from rlkit.play.bundle import is_bundle
    from rlkit.recipe.shipped import find_policy

    if is_bundle(find_policy(path)):
        raise UsageError(f"{path} is an export itself; give the checkpoint it came from")
    agent = load(path, imports=imports, trust=trust, force=force)
    from rlkit.files import Pending, swap_folder
    from rlkit.play.export import files
    from rlkit.play.export.graph import Team, graphs_of

    policy, notes = agent.policy, agent.manifest
    graphs = graphs_of(policy, sample=explore and kind != "bundle")
    team = Team(graphs)
    with files.place_beside(out, folder=kind == "bundle") as temporary:
        if kind == "bundle":
            try:
                sampled = graphs_of(policy, sample=True)
            except UsageError as error:
                print(f"{error}: the bundle holds the greedy choice alone", file=sys.stderr)
                sampled = {}
            files.write_bundle(temporary, notes, graphs, sampled)
        else:
            write = files.write_onnx if kind == "onnx" else files.write_pt2
            write(temporary, notes, graphs, explore)
        found = _compared(policy, temporary, kind, explore, graphs)
        if found.different > found.actions // 1000 or found.error > CLOSE:
            raise CheckpointError(
                f"{out} was not written: {found.different} of {found.actions} actions differ from the Agent's, "
                f"numbers by up to {found.error:.1e}; expected the same actions and {CLOSE:.0e}"
                + (" (inf: NaN, or an infinity on one side alone)" if math.isinf(found.error) else "")
            )
        if kind == "bundle":
            swap_folder(temporary, out)
        else:
            pending = Pending(out)
            temporary.replace(pending.temporary)
            pending.finish()
    inputs, outputs = (
        {name: f"{p.tensor.dtype} {('rows', *p.tensor.shape)}" for name, p in side}
        for side in (team.inputs, team.outputs)
    )
    return Exported(out, kind, inputs, outputs, found.actions, found.different, found.error)


CLOSE = 1e-5


def _target(out: str | Path) -> tuple[Path, str]:
    text, path = str(out), Path(out)
    if path.suffix.lower() in (".onnx", ".pt2"):
        if path.is_dir():
            raise UsageError(f"{path} is a folder, expected a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is a pipe or a device, expected a file")
        return path, path.suffix.lower()[1:]
    if path.suffix and not text.endswith("/") and not path.is_dir():
        raise UsageError(
            f"{path}: got the suffix {path.suffix!r}, expected .onnx, .pt2, or a folder for a bundle"
        )
    from rlkit.play.bundle import NAME, WEIGHTS

    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(
            f"{path} is no folder of its own, expected one that does not exist, or a bundle to replace"
        )
    other = sorted({entry.name for entry in path.iterdir()} - {NAME, WEIGHTS}) if path.is_dir() else []
    if other:
        raise UsageError(
            f"{path} is a folder with something else in it ({other[0]}); give a new one, or a bundle to replace"
        )
    return path, "bundle"


def _compared(policy: Any, path: Path, kind: str, explore: bool, graphs: Any) -> Any:
    """Compare what was written with the policy; sampled graphs with the same noise, as torch runs them."""
    from rlkit.play.bundle import read
    from rlkit.play.export import checking

    if kind == "pt2" or (explore and kind == "onnx"):
        return checking.compare_graphs(path, graphs)
    return checking.compare(policy, read(path)[0])
