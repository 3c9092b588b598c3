"""Checkpoints are verified before anything in them is unpickled (reliability F6, F17, F18)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trained import trained

from rlkit.errors import CheckpointError
from rlkit.runs import manifest, signing

RECIPE = {"env": "CartPole-v1", "env_config": {"a": 1}, "seed": None, "config": {"training": {"lr": 1e-5}}}


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signing key of this test's own."""
    path = tmp_path / "config" / "signing.key"
    monkeypatch.setenv("RLKIT_KEY", str(path))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small folder that looks like a checkpoint."""
    folder = tmp_path / "checkpoint_000003"
    (folder / "learner_group" / "learner").mkdir(parents=True)
    (folder / "rllib_checkpoint.json").write_text("{}")
    (folder / "class_and_ctor_args.pkl").write_bytes(pickle.dumps({"class": "x"}))
    (folder / "learner_group" / "learner" / "state.pkl").write_bytes(b"weights" * 100)
    (folder / "empty").mkdir()
    write(folder)
    return folder


def write(folder: Path, iteration: int = 3) -> manifest.Manifest:
    return manifest.write(
        folder,
        recipe=RECIPE,
        imports=["rlkit"],
        iteration=iteration,
        env_steps=640,
        extra={"time_total_s": 1.5},
    )


def use_another_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLKIT_KEY", str(tmp_path / "other" / "signing.key"))


def test_a_folder_may_have_any_name(checkpoint: Path) -> None:
    moved = checkpoint.rename(checkpoint.with_name(os.fsdecode(b"checkpoint\xff")))
    assert manifest.verify(moved).path == moved


def test_verify_gives_back_what_was_written(checkpoint: Path) -> None:
    notes = manifest.verify(checkpoint)
    assert (notes.recipe, notes.imports, notes.iteration, notes.env_steps) == (RECIPE, ["rlkit"], 3, 640)
    assert notes.extra == {"time_total_s": 1.5}
    assert notes.signed
    assert notes.versions["ray"].startswith("2.60")
    assert set(notes.files) == {
        "rllib_checkpoint.json",
        "class_and_ctor_args.pkl",
        "learner_group/learner/state.pkl",
    }


def test_the_key_is_made_once_and_only_its_owner_may_read_it(checkpoint: Path, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    first = key.read_bytes()
    assert len(first) == 32
    write(checkpoint)
    assert key.read_bytes() == first
    assert list(key.parent.iterdir()) == [key]  # no temporary file left


def test_a_key_that_others_can_read_proves_nothing(checkpoint: Path, key: Path) -> None:
    key.chmod(0o644)
    with pytest.raises(CheckpointError, match=f"chmod 600 {key}"):
        manifest.verify(checkpoint)


def test_without_a_place_for_a_key_checkpoints_are_written_unsigned(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLKIT_KEY", "/dev/null/signing.key")
    assert not write(checkpoint).signed
    with pytest.raises(CheckpointError, match="is not signed; you have none yet"):
        manifest.verify(checkpoint)
    assert not manifest.verify(checkpoint, trust=True).signed


def test_another_users_checkpoint_needs_trust_and_the_message_says_what_that_means(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_another_key(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError) as raised:
        manifest.verify(checkpoint)
    for part in (
        "was signed with the key",
        "runs the code inside it",
        "with all your rights",
        "--trust",
        "trust=True",
    ):
        assert part in str(raised.value)
    assert not manifest.verify(checkpoint, trust=True).signed


def test_trust_does_not_excuse_damage(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_another_key(monkeypatch, tmp_path)
    (checkpoint / "learner_group" / "learner" / "state.pkl").write_bytes(b"Weights" * 100)
    with pytest.raises(CheckpointError, match=r"state\.pkl: damaged or edited"):
        manifest.verify(checkpoint, trust=True)


def edited(checkpoint: Path, change: Callable[[dict], None]) -> None:
    """Edit the manifest and repair its checksum, as a forger without the key would."""
    path = checkpoint / manifest.NAME
    content = json.loads(path.read_text())
    seal = {name: content.pop(name) for name in ("checksum", "signature")}
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    seal["checksum"] = manifest.hashlib.sha256(text).hexdigest()
    path.write_text(json.dumps({**content, **seal}))


def test_a_forged_manifest_is_noticed(checkpoint: Path) -> None:
    edited(checkpoint, lambda content: content.update(imports=["evil"]))
    with pytest.raises(CheckpointError, match="damaged or forged"):
        manifest.verify(checkpoint)
    with pytest.raises(CheckpointError, match="damaged or forged"):
        manifest.verify(checkpoint, trust=True)


def test_an_edited_manifest_is_noticed(checkpoint: Path) -> None:
    path = checkpoint / manifest.NAME
    path.write_text(path.read_text().replace('"iteration": 3', '"iteration": 4'))
    with pytest.raises(CheckpointError, match="does not match its own checksum"):
        manifest.verify(checkpoint)


def test_a_manifest_cannot_point_outside(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(checkpoint, lambda content: content["files"].update({"../x.pkl": {"bytes": 1, "sha256": "0"}}))
    use_another_key(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        manifest.verify(checkpoint, trust=True)


@pytest.mark.parametrize("name", ["_dict_checkpoint.pkl", "learner_group/state.msgpack", "x.json", "noext"])
def test_a_file_that_might_be_read_as_code_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"{name}: not in manifest.json"):
        manifest.verify(checkpoint)


def test_a_link_is_refused_even_with_the_right_content(checkpoint: Path, tmp_path: Path) -> None:
    shutil.move(checkpoint / "class_and_ctor_args.pkl", tmp_path / "elsewhere.pkl")
    (checkpoint / "class_and_ctor_args.pkl").symlink_to(tmp_path / "elsewhere.pkl")
    with pytest.raises(CheckpointError, match=r"class_and_ctor_args\.pkl: expected a regular file"):
        manifest.verify(checkpoint)


def test_what_a_person_leaves_in_a_checkpoint_does_no_harm(checkpoint: Path) -> None:
    for name in ("evaluation.csv", "first.mp4", "notes.md", ".metadata.json"):
        (checkpoint / name).write_bytes(b"x")
    assert manifest.verify(checkpoint).iteration == 3


def test_a_plain_rllib_checkpoint_needs_trust(checkpoint: Path) -> None:
    (checkpoint / manifest.NAME).unlink()
    with pytest.raises(
        CheckpointError, match=r"plain RLlib checkpoint or an unfinished one.*--trust.*environment"
    ):
        manifest.verify(checkpoint)
    assert manifest.verify(checkpoint, trust=True).recipe is None


def test_other_folders_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        manifest.verify(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it has neither"):
        manifest.verify(tmp_path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ray", "2.61.0"), ("ray", "2.6.0"), ("ray", "3.60.0"), ("ray", "unknown"), ("python", "3.99.1"),
        ("python", "3.1.9"), ("python", "4.11.0"), ("python", "unknown"),
    ],
)  # fmt: skip
def test_another_version_names_both(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    here = manifest.versions()
    monkeypatch.setattr(manifest, "versions", lambda: {**here, name: other})
    with pytest.raises(CheckpointError) as raised:
        manifest.verify(checkpoint, force=False)
    assert f"written with {name} {here[name]}, this is {name} {other}" in str(raised.value)
    assert "--force" in str(raised.value)
    assert manifest.verify(checkpoint, force=True).signed


def test_a_patch_version_is_no_obstacle(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = manifest.versions()
    monkeypatch.setattr(manifest, "versions", lambda: {**here, "ray": "2.60.7", "torch": "2.99"})
    assert manifest.verify(checkpoint).signed


def test_another_format_names_both(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT", 2)
    with pytest.raises(CheckpointError, match=r"has checkpoint format 1 of rlkit .* with format 2.*--force"):
        manifest.verify(checkpoint, force=False)
    assert manifest.verify(checkpoint, force=True).signed


def test_latest_good_falls_back_and_says_why(checkpoint: Path) -> None:
    trial = checkpoint.parent
    newer, newest, unfinished = (trial / f"checkpoint_{n:06d}" for n in (9, 10, 100))
    for folder, iteration in ((newer, 9), (newest, 10), (unfinished, 100)):
        shutil.copytree(checkpoint, folder)
        write(folder, iteration)
    os.truncate(newest / "class_and_ctor_args.pkl", 3)
    (unfinished / manifest.NAME).unlink()
    good, skipped = manifest.latest_good(trial)
    assert good is not None
    assert good.path == newer
    assert [path for path, _ in skipped] == [unfinished, newest]
    assert "has no manifest.json" in skipped[0][1]
    assert "class_and_ctor_args.pkl: damaged, 3 bytes instead of" in skipped[1][1]


def test_latest_good_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_tmp").mkdir()
    assert manifest.latest_good(tmp_path) == (None, [])


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*/gone: No such file or directory"):
        write(tmp_path / "gone")


def test_a_checkpoint_nested_deeper_than_python_recurses_is_verified(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint)
    for _ in range(1010):
        os.mkdir("d")
        os.chdir("d")
    Path("x").touch()
    with pytest.raises(CheckpointError, match=r"/d/x: not in manifest\.json"):
        manifest.verify(checkpoint)
    Path("x").unlink()
    for _ in range(1010):  # pytest could not remove them
        os.chdir("..")
        os.rmdir("d")


def test_numpy_numbers_are_written_and_other_objects_are_named(checkpoint: Path) -> None:
    import numpy as np

    notes = manifest.write(
        checkpoint,
        recipe={"env": "x", "lr": np.float32(0.5), "a": np.arange(2)},
        iteration=1,
        env_steps=np.int64(7),
    )
    assert notes.recipe == {"env": "x", "lr": 0.5, "a": [0, 1]}
    with pytest.raises(TypeError, match="cannot hold a object"):
        manifest.write(checkpoint, recipe={"env": object()}, iteration=1, env_steps=1)


def test_reading_a_manifest_imports_neither_ray_nor_torch() -> None:
    code = (
        "import sys, rlkit.runs.manifest; print([m for m in ('ray', 'torch', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "truncate": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zero": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "empty": lambda path: path.write_bytes(b""),
    "delete": lambda path: path.unlink(),
    "flip a bit": lambda path: path.write_bytes(_flipped(path.read_bytes())),
}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0b100]) + content[middle + 1 :]


@pytest.fixture(scope="session")
def real(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("dqn", tmp_path_factory).path


@pytest.fixture
def canaries(real: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A real checkpoint whose every pickle is a canary, verified as it is; and the file a canary leaves."""
    folder, sung = tmp_path / "checkpoint_000001", tmp_path / "sung"
    shutil.copytree(real, folder)
    for path in folder.rglob("*.pkl"):
        path.write_bytes(pickle.dumps(Canary(sung)))
    write(folder)
    return folder, sung


def test_the_canary_sings_when_a_checkpoint_is_accepted(canaries: tuple[Path, Path]) -> None:
    from rlkit.play.agent import load

    folder, sung = canaries
    manifest.verify(folder)
    assert not sung.exists()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
    assert sung.exists()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_no_file_of_a_real_checkpoint_can_be_damaged_unnoticed(
    canaries: tuple[Path, Path], tmp_path: Path, corruption: str
) -> None:
    from rlkit.play.agent import load

    folder, sung = canaries
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(names) > 20
    for name in names:
        original = (folder / name).read_bytes()
        CORRUPTIONS[corruption](folder / name)
        with pytest.raises(CheckpointError) as raised:
            load(folder)
        assert name.name in str(raised.value), name
        (folder / name).write_bytes(original)
    manifest.verify(folder)
    assert not sung.exists()


def test_no_folder_of_a_real_checkpoint_can_go_missing_unnoticed(
    canaries: tuple[Path, Path], tmp_path: Path
) -> None:
    from rlkit.play.agent import load

    folder, sung = canaries
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_dir())
    assert len(names) > 5
    for name in names:
        shutil.move(folder / name, tmp_path / "aside")
        with pytest.raises(CheckpointError, match=name.name):
            load(folder)
        shutil.move(tmp_path / "aside", folder / name)
    manifest.verify(folder)
    assert not sung.exists()


def test_a_pickle_put_in_place_of_another_is_never_read(real: Path, tmp_path: Path) -> None:
    from rlkit.play.agent import load

    for name in sorted(p.relative_to(real) for p in real.rglob("*.pkl")):
        folder = tmp_path / "copy"
        shutil.copytree(real, folder)
        write(folder)
        (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "sung")))
        with pytest.raises(CheckpointError, match=name.name):
            load(folder, trust=True)
        shutil.rmtree(folder)
    assert not (tmp_path / "sung").exists()


def test_two_processes_make_one_key(key: Path) -> None:
    assert not key.exists()
    code = "from rlkit.runs import signing; print(signing.key_id(signing.make_key()))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    names = {process.communicate()[0].strip() for process in started}
    mine = signing.read_key()
    assert mine is not None
    assert names == {signing.key_id(mine)}
