"""CONTRIBUTING.md: its worked examples run as they stand, and the files it names exist."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.cli import process

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTION = re.compile(
    r"^## (An? .+)\n(?:(?!^## ).*\n)*?\n`(.+)`:\n\n```\w+\n((?:.*\n)*?)```\n\n```sh\n((?:.*\n)*?)```$", re.M
)
EXAMPLES = {
    title: (file, content, commands.splitlines()) for title, file, content, commands in SECTION.findall(TEXT)
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; modules that an example brings are forgotten after it."""
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield tmp_path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_there_is_an_example_of_everything() -> None:
    assert list(EXAMPLES) == ["A recipe", "An environment", "A model", "A callback", "An algorithm"]
    assert TEXT.count("```sh") == len(EXAMPLES), "a block that is not tested"


def run(command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command in this process, beside the Ray that runs already; return what it printed."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as left:
        process.main()
    said = capfd.readouterr()
    assert left.value.code in (0, None), said.err
    return said.out


def finished(folder: Path, said: str) -> bool:
    return "status     done" in said and bool(list(folder.glob("runs/*/*/*/checkpoint_*/manifest.json")))


@pytest.mark.parametrize("title", ["A recipe", "An environment", "A model"])
def test_an_example_runs(
    title: str,
    folder: Path,
    ray_local: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, content, commands = EXAMPLES[title]
    (folder / file).write_text(content)
    said = [run(command, monkeypatch, capfd) for command in commands]
    assert finished(folder, said[-1])


def test_classes_of_a_file_elsewhere_reach_every_process(folder: Path) -> None:
    """In processes of their own: trials and env runners get these classes by their module."""
    (folder / "parts").mkdir()
    lines = []
    for title in ("A callback", "An algorithm"):
        file, content, commands = EXAMPLES[title]
        (folder / "parts" / file).write_text(content)
        lines.append(commands[-1].replace(file, f"parts/{file}"))
    env = {**os.environ, "RAY_ADDRESS": ""}
    for line in lines:
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("status     done") == 1
    assert len({path.parents[2] for path in folder.glob("runs/*/*/*/checkpoint_*/manifest.json")}) == 2
    headers = [path.read_text().splitlines()[0].split(",") for path in folder.glob("runs/*/*/metrics.csv")]
    assert sorted("custom/tip" in header for header in headers) == [False, True]


def test_the_penalty_is_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    file, content, _ = EXAMPLES["An algorithm"]
    (folder / file).write_text(content)
    monkeypatch.syspath_prepend(folder)
    penalty = importlib.import_module(Path(file).stem).calm_penalty
    assert float(penalty(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))) == 3.5


def test_files_and_verbs_exist() -> None:
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT) + re.findall(
        r"`((?:rlkit|configs|scripts|benchmarks|\.ci|\.github)/[\w./]+)`", TEXT
    )
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).exists(), name
    verbs = re.findall(r"`make ([\w-]+)`", TEXT)
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(verbs) == set(rules), "every verb of the Makefile, and no other"
