"""The built wheel, installed beside its dependencies and tried in an empty folder, away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "RAY_ADDRESS")}
    return subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, because setuptools takes what an earlier build left in the folder."""
    source = tmp_path_factory.mktemp("source")
    for name in ("rlkit", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    built = run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, source, cwd=out
    )
    assert built.returncode == 0, built.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, and with the dependencies of this one to read."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds the folder alone: an editable rlkit in it is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def rlkit(python: Path, tmp_path: Path) -> Callable[..., str]:
    def call(*words: str, code: int = 0) -> str:
        done = run(python.parent / "rlkit", *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return call


def test_the_wheel_is_what_runs(python: Path, tmp_path: Path) -> None:
    done = run(python, "-c", "import rlkit; print(rlkit.__file__)", cwd=tmp_path)
    assert Path(done.stdout.strip()).is_relative_to(python.parents[1]), done.stdout + done.stderr


def test_recipes_are_found_in_an_empty_folder(rlkit: Callable[..., str]) -> None:
    listed = [line.split()[0] for line in rlkit("list", "recipes").splitlines()]
    assert listed == sorted(file.stem for file in (ROOT / "configs").rglob("*.yaml"))
    assert rlkit("check", "dqn_cartpole") == "1 recipe ok\n"
    assert "algorithm: DQN" in rlkit("show", "dqn_cartpole")
    assert "did you mean dqn_cartpole?" in rlkit("check", "dqn_cartpol", code=2)


def test_a_policy_that_comes_along_plays_in_an_empty_folder(
    rlkit: Callable[..., str], tmp_path: Path
) -> None:
    told = json.loads(
        rlkit("evaluate", "zoo/ppo_cartpole", "--episodes", "2", "--video", "x.gif", "--json").split("\n")[0]
    )
    assert told["episode_return"]["mean"] > 400
    assert (tmp_path / "x.gif").stat().st_size > 1000
    assert "zoo/ppo_cartpole  " in rlkit("list", "zoo")


def test_there_is_one_version(rlkit: Callable[..., str], wheel: Path) -> None:
    version = rlkit("--version").split()[1]
    assert wheel.name.startswith(f"rlkit_rllib-{version}-")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in changes or f"What {version} will hold" in changes


def test_a_shipped_recipe_trains(rlkit: Callable[..., str], tmp_path: Path) -> None:
    words = ["stop.env_steps=500", "evaluation.every=1", "evaluation.episodes=2", "--quiet"]
    rlkit("train", "dqn_cartpole", *words)
    assert list(tmp_path.glob("runs/dqn_cartpole/*/trial_00000/checkpoint_*/manifest.json"))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {f for f in (ROOT / "rlkit").rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    shipped = [f for suffix in ("yaml", "npz") for f in (ROOT / "configs").rglob(f"*.{suffix}")]
    recipes = {f"rlkit/configs/{f.relative_to(ROOT / 'configs')}" for f in shipped}
    assert names == {str(f.relative_to(ROOT)) for f in package} | recipes
    licence = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("licenses/LICENSE")]
    assert licence
