"""`--resume` of a run folder that is not this user's, or was edited: refused before any code of it runs."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import write_checkpoint

import rlkit
from rlkit.errors import CheckpointError, UsageError
from rlkit.rllib import TUNE_STATE
from rlkit.runs import seal, signing
from rlkit.runs.run import RunInfo

RECIPE = {
    "name": "sealed",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "config": {
        "training": {"train_batch_size_per_learner": 64, "minibatch_size": 64, "num_epochs": 1},
        "env_runners": {"num_env_runners": 0},
    },
    "model": {"name": "mlp", "hiddens": [8]},
    "stop": {"iterations": 1},
}
FURTHER = ["stop.iterations=2"]


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def trained(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rlkit.train(RECIPE, out=tmp_path_factory.mktemp("runs")).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "sealed" / trained.name))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def newest(run: Path, pattern: str) -> Path:
    return max(run.glob(pattern))


def edit_info(run: Path, **changes: object) -> None:
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def poison_state(run: Path, canary: Path) -> Path:
    """Put a pickle where Tune keeps the trials' configs."""
    path = newest(run, "experiment_state-*.json")
    values = json.loads(path.read_text())
    values["forged"] = {"_type": "CLOUDPICKLE_FALLBACK", "value": pickle.dumps(Canary(canary)).hex()}
    path.write_text(json.dumps(values))
    return path


def forged_import(run: Path, canary: Path) -> str:
    module = run / f"{canary.parent.name}_envs.py"  # a module is imported once per process
    module.write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    edit_info(run, imports=[str(module)])
    return r"run.json: edited or damaged.*--trust"


def state_without_checkpoints(run: Path, canary: Path) -> str:
    for checkpoint in run.glob("trial_*/checkpoint_*"):
        shutil.rmtree(checkpoint)
    return state_with_own_checkpoints(run, canary)


def state_without_trials(run: Path, canary: Path) -> str:
    for trial in run.glob("trial_*"):
        shutil.rmtree(trial)
    return state_with_own_checkpoints(run, canary)


def state_with_own_checkpoints(run: Path, canary: Path) -> str:
    name = poison_state(run, canary).name
    return rf"{name}: not as this run wrote it, its sha256 is \w+… and run.json has \w+….*--trust"


def replaced_search(run: Path, canary: Path) -> str:
    path = newest(run, "basic-variant-state-*.json")
    path.write_bytes(pickle.dumps(Canary(canary)))
    return rf"{path.name}: not as this run wrote it"


def later_search(run: Path, canary: Path) -> str:
    (run / "basic-variant-state-9.json").write_bytes(pickle.dumps(Canary(canary)))
    return r"basic-variant-state-9.json: not as this run wrote it.*no such file"


def search_of_another_kind(run: Path, canary: Path) -> str:
    (run / "searcher-state-9.pkl").write_bytes(pickle.dumps(Canary(canary)))
    return r"searcher-state-9.pkl: not as this run wrote it"


def state_of_callbacks(run: Path, canary: Path) -> str:
    (run / "callback-states-9.pkl").write_bytes(pickle.dumps(Canary(canary)))
    return r"callback-states-9.pkl: not as this run wrote it"


def later_state(run: Path, canary: Path) -> str:
    poison_state(run, canary).rename(run / "experiment_state-9999.json")
    return r"experiment_state-9999.json: not as this run wrote it.*no such file"


def linked_state(run: Path, canary: Path) -> str:
    path = poison_state(run, canary)
    path.rename(canary.with_name("elsewhere.json"))
    path.symlink_to(canary.with_name("elsewhere.json"))
    return rf"{path.name}: expected a file or a folder, got a link to .*elsewhere.json"


def linked_metrics(run: Path, canary: Path) -> str:
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").symlink_to(canary)
    return r"metrics.csv: expected a file or a folder, got a link"


def linked_results(run: Path, canary: Path) -> str:
    path = next(run.glob("trial_*/result.json"))
    path.unlink()
    path.symlink_to(canary)
    return r"result.json: expected a file or a folder, got a link"


def linked_trial(run: Path, canary: Path) -> str:
    trial = next(run.glob("trial_*"))
    trial.rename(canary.with_name("trial"))
    trial.symlink_to("../../trial")
    return rf"{trial.name}: expected a file or a folder, got a link to \.\./\.\./trial"


def edited_recipe(run: Path, canary: Path) -> str:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("minibatch_size: 64", "minibatch_size: 32"))
    return r"recipe.yaml: edited since the run began.*rlkit train .*recipe.yaml"


def unsigned(run: Path, canary: Path) -> str:
    edit_info(run, signature=None)
    return r"run.json is not signed; yours is \w+ in .*--trust"


def moved_cluster(run: Path, canary: Path) -> str:
    edit_info(run, address="10.0.0.1:6379")
    return r"run.json: edited or damaged"


@pytest.mark.parametrize(
    "forge",
    [
        forged_import,
        state_without_checkpoints,
        state_without_trials,
        state_with_own_checkpoints,
        replaced_search,
        later_search,
        search_of_another_kind,
        state_of_callbacks,
        later_state,
        linked_state,
        linked_metrics,
        linked_results,
        linked_trial,
        edited_recipe,
        unsigned,
        moved_cluster,
    ],
)
def test_what_was_not_written_by_this_run_is_refused_before_it_runs(
    run: Path, canary: Path, forge: Callable[[Path, Path], str]
) -> None:
    message = forge(run, canary)
    before = (run / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        rlkit.resume(run, FURTHER)
    assert not canary.exists()
    assert (run / "run.json").read_bytes() == before  # refusing signs nothing


def test_a_run_signed_with_another_key_is_refused(
    run: Path, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = signing.key_id(signing.make_key() or b"")
    forged_import(run, canary)
    with monkeypatch.context() as theirs:
        theirs.setenv("RLKIT_KEY", str(tmp_path / "their.key"))
        RunInfo.read(run).write(run)
        assert seal.verify(run).imports
    with pytest.raises(CheckpointError, match=rf"was signed with the key \w+; yours is {mine} in"):
        rlkit.resume(run, FURTHER)
    assert not canary.exists()


def test_without_a_key_every_run_asks_for_trust(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLKIT_KEY", str(tmp_path / "file" / "signing.key"))
    with pytest.raises(CheckpointError, match=r"you have none yet in.*--trust"):
        rlkit.resume(run, FURTHER)
    RunInfo.read(run).write(run)
    with pytest.raises(CheckpointError, match=r"is not signed; you have none yet"):
        rlkit.resume(run, FURTHER)
    assert seal.verify(run, trust=True).recipe_sha256


def test_the_forgeries_are_live_once_they_are_trusted(run: Path, canary: Path) -> None:
    forged_import(run, canary)
    next(run.glob("*_envs.py")).open("a").write("raise ImportError('far enough')")
    with pytest.raises(UsageError, match="far enough"):
        rlkit.resume(run, FURTHER, trust=True)
    assert canary.exists()


def test_a_trusted_run_goes_on_and_is_this_users_from_then_on(run: Path, canary: Path) -> None:
    poison_state(run, canary)
    edited_recipe(run, canary)
    again = rlkit.resume(run, FURTHER, trust=True)
    assert again.status == "done"
    assert canary.exists()
    assert list(again.metrics["iteration"]) == [1, 2]
    seal.verify(run)


def test_run_json_lists_all_state_of_tune_and_tune_copies_none_itself(trained: Path) -> None:
    info = seal.verify(trained)
    on_disk = {path.name for path in trained.iterdir() if path.suffix in (".json", ".pkl")}
    assert on_disk == {"run.json", *info.tune_state}
    assert {name.partition("-20")[0] for name in info.tune_state} == {
        "experiment_state",
        "basic-variant-state",
    }


def test_a_crash_anywhere_in_a_write_leaves_a_run_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, staging = tmp_path / "run", tmp_path / "staging"
    run.mkdir(), staging.mkdir()
    (run / "recipe.yaml").write_text("env: CartPole-v1")
    digest = hashlib.sha256(b"env: CartPole-v1").hexdigest()
    info = RunInfo(name="crash", recipe_sha256=digest)
    names = [pattern.replace("*", "1") for pattern in TUNE_STATE]
    write, written = seal.write_atomic, 0

    def crash(path: Path, content: str | bytes) -> None:
        nonlocal written
        if written == limit:
            raise OSError("crash")
        written += 1
        write(path, content)

    monkeypatch.setattr(seal, "write_atomic", crash)
    monkeypatch.setattr("rlkit.runs.run.write_atomic", crash)
    limit = -1
    info.write(run)
    for round_ in range(3):
        for limit in range(len(names) + 1):
            written = 0
            for name in names:
                (staging / name).write_text(f"{name} {round_} {limit}")
            with pytest.raises(OSError, match="crash"):
                seal.put(run, info, staging)
            assert set(seal.verify(run).tune_state) <= set(names)
        limit = -1
        seal.put(run, info, staging)
        assert all((run / n).read_text() == (staging / n).read_text() for n in names)
        seal.verify(run)


def test_the_list_of_tunes_state_is_complete() -> None:
    import ray.tune

    templates = set()
    for path in Path(ray.tune.__file__).parent.rglob("*.py"):
        templates |= set(re.findall(r'CKPT_FILE_TMPL = "(.+)"', path.read_text()))
    assert {template.format("*") for template in templates} == set(TUNE_STATE)


@pytest.mark.parametrize("place", ["../stolen/checkpoint_000001", "/stolen/checkpoint_000001"])
def test_run_json_cannot_name_a_checkpoint_outside_the_run(run: Path, tmp_path: Path, place: str) -> None:
    write_checkpoint(run.parent / "stolen", 1)
    edit_info(
        run, best={"checkpoint": place, "trial": "trial_00000", "metric": "m", "value": 1.0}, trial_best={}
    )
    found = rlkit.open_run(run)
    for ask in (
        lambda: found.best_checkpoint,
        lambda: found.trials[0].best_checkpoint,
        lambda: rlkit.load(run),
    ):
        with pytest.raises(CheckpointError, match=r"outside|expected one inside the run folder"):
            ask()
