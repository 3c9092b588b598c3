"""Whether a run folder is this user's own and unchanged: asked before `--resume` imports or unpickles anything in it.

run.json is signed with the user's key at every write. It names the modules to import and holds the sha256 of
recipe.yaml and of each file of Tune's state. What a run that goes on reads (ray 2.60), and what covers it:

    run.json                    modules, cluster to join       its signature
    recipe.yaml                 recipe                         sha256 in run.json
    experiment_state-*.json     JSON with pickles in it: the   sha256 in run.json
                                controller, the stopper, and trials with configs, results and checkpoint paths
                                (TuneController.resume, Trial.from_json_state, Trial.restore_run_metadata)
    basic-variant-state-*.json  pickle: grid and random        sha256 in run.json
                                search (BasicVariantGenerator.restore_from_dir)
    search_gen_state-*.json,    pickles: other searchers       sha256 in run.json
    searcher-state-*.pkl        (SearchGenerator.restore_from_dir, Searcher.restore)
    callback-states-*.pkl       pickle: callbacks              sha256 in run.json
                                (CallbackList.restore_from_dir)
    <trial>/checkpoint_*/       pickles of RLlib               manifest.json (`rlkit.runs.manifest`)

Tune takes the newest file of each kind by name, so a file of such a name that run.json does not list is refused too.
A scheduler keeps no state: it is made anew from the recipe. Read as text or JSON, never unpickled or imported:
metrics.csv, <trial>/result.json (late rows are dropped), <trial>/error.txt; Tune copies other *.json and *.pkl of the
run folder to its staging folder, where nothing reads them. Not read: <trial>/params.json, params.pkl, error.pkl,
events.*, and temporary files (.*.tmp, .writing_*, .replaced_*, a checkpoint without manifest). Since a run that goes
on also writes, links in the run folder and its trials are refused: one could lead anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from rlkit.errors import CheckpointError
from rlkit.files import sha256, write_atomic
from rlkit.rllib import TUNE_STATE
from rlkit.runs import signing
from rlkit.runs.layout import INFO, RECIPE
from rlkit.runs.run import RunInfo, read_values, signed_text

TRUST = (
    "Going on with a run imports the modules it names and unpickles what Tune and RLlib left in it, with all your "
    "rights. If you trust whoever wrote this folder, repeat with --trust (Python: trust=True)"
)


def verify(folder: str | Path, *, trust: bool = False) -> RunInfo:
    """Return what run.json says, after checking that this user wrote it, recipe.yaml and Tune's state.

    With `trust` nothing is refused: what the folder holds now counts as the run's own from here on.

    Raises:
        CheckpointError: not signed by this user, or edited; names the file, what was got and expected, and the fix.
    """
    folder = Path(folder)
    values = read_values(folder)
    signature = values.pop("signature", None)
    if not trust:
        _check_signature(folder, values, signature)
        _check_links(folder)
    info = RunInfo.of(values, folder)
    recipe = sha256(folder / RECIPE) if (folder / RECIPE).is_file() else None
    if not trust and recipe != info.recipe_sha256:
        raise CheckpointError(
            f"{folder / RECIPE}: edited since the run began, its sha256 is {_short(recipe)} and {INFO} has "
            f"{_short(info.recipe_sha256)}. A run goes on with the recipe it began with; for another one start a new "
            f"run: rlkit train {folder / RECIPE}. {TRUST}"
        )
    found = {}
    for path in tune_state(folder):
        expected = info.tune_state.get(path.name, [])
        found[path.name] = sha256(path) if path.is_file() else None
        if not trust and found[path.name] not in expected:
            raise CheckpointError(
                f"{path}: not as this run wrote it, its sha256 is {_short(found[path.name])} and {INFO} has "
                f"{' or '.join(map(_short, expected)) or 'no such file'}. {TRUST}"
            )
    info.recipe_sha256 = recipe
    info.tune_state = {name: [digest] for name, digest in found.items() if digest}
    return info


def put(folder: Path, info: RunInfo, staging: Path) -> None:
    """Write the state in Tune's staging folder into the run folder.

    A crash at any point leaves a run that verifies: run.json comes first, with the old and the new sha256 of each
    file, then the files.
    """
    staged = {path.name: path.read_bytes() for path in tune_state(staging)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in staged.items()}
    changed = [name for name, digest in digests.items() if info.tune_state.get(name) != [digest]]
    if not changed:
        return
    for name in changed:
        info.tune_state[name] = [*info.tune_state.get(name, []), digests[name]]
    info.write(folder)
    for name in changed:  # the experiment's comes last: where it is, the search's is there too
        write_atomic(folder / name, staged[name])
        info.tune_state[name] = [digests[name]]
    info.extending = False


def tune_state(folder: Path) -> Iterator[Path]:
    """Yield the files that Tune would unpickle."""
    for pattern in TUNE_STATE:
        yield from sorted(folder.glob(pattern))


def _check_signature(folder: Path, values: dict, signature: object) -> None:
    if signing.is_own(signed_text(values), signature):
        return
    path = folder / INFO
    if signing.names_own_key(signature):
        raise CheckpointError(
            f"{path}: edited or damaged, it names your signing key with a wrong signature. {TRUST}"
        )
    raise CheckpointError(f"{path} {signing.whose(signature)}. {TRUST}")


def _check_links(folder: Path) -> None:
    trials = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for path in (entry for place in (folder, *trials) for entry in place.iterdir()):
        if path.is_symlink():
            raise CheckpointError(
                f"{path}: expected a file or a folder, got a link to {os.readlink(path)}. Put what it leads to in its "
                f"place. {TRUST}"
            )


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "missing"
