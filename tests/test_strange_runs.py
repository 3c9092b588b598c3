"""Runs and projects that somebody else made: looking at them writes nowhere else, and starts none of their programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from run_folders import write_run

from rlkit.report import plot
from rlkit.runs.run import git_state, open_run


def rows(seed: int) -> list[dict[str, float]]:
    return [{"iteration": i, "env_steps": 100.0 * i, "episode_return": float(i + seed)} for i in (1, 2, 3)]


@pytest.mark.parametrize("name", ["plot.png", ".writing_{pid}_plot.png"])
def test_a_picture_is_not_written_through_a_link(tmp_path: Path, name: str) -> None:
    run, mine = write_run(tmp_path / "a/t", rows), tmp_path / "mine.txt"
    mine.write_text("mine")
    (run / name.format(pid=os.getpid())).symlink_to(mine)
    plot(run)
    assert mine.read_text() == "mine"
    assert not (run / "plot.png").is_symlink()
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in run.iterdir() if path.is_file()) == [
        "metrics.csv",
        "plot.png",
        "run.json",
    ]
    assert open_run(run).status == "done"


def test_a_picture_replaces_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", rows)
    os.mkfifo(run / "plot.png")
    plot(run)
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["svg", "SVG", "pdf"])
def test_a_picture_has_the_form_of_its_name(tmp_path: Path, suffix: str) -> None:
    run, out = write_run(tmp_path / "a/t", rows), tmp_path / f"x.{suffix}"
    plot(run, out=out)
    assert out.read_bytes().startswith(b"%PDF" if suffix == "pdf" else b"<?xml")


def test_the_commit_of_a_project_is_told_without_starting_its_programs(tmp_path: Path) -> None:
    project, part, started = tmp_path / "project", tmp_path / "part", tmp_path / "started"

    def git(folder: Path, *words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "protocol.file.allow=always"]
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)

    for folder in (part, project):
        folder.mkdir()
        (folder / "a").write_text("1")
        git(folder, "init", "-q")
        git(folder, "add", "a")
        git(folder, "commit", "-qm", "x")
    git(project, "submodule", "add", str(part), "part")
    git(project, "commit", "-qm", "y")
    clean = git_state(project)
    assert clean
    assert clean["dirty"] is False

    (project / ".git/info").mkdir(exist_ok=True)
    (project / ".git/info/attributes").write_text("* filter=a=b\na filter=c\n")
    (project / ".git/more").write_text(f'[filter "c"]\n\tprocess = "touch {started}"\n\trequired = true\n')
    for key, value in {
        "core.fsmonitor": f"touch {started}; true",
        "filter.a=b.clean": f"touch {started}; cat",
        "filter.a=b.required": "true",
        "include.path": "more",
    }.items():
        git(project, "config", key, value)
    git(project / "part", "config", "core.fsmonitor", f"touch {started}; true")
    (project / "a").write_text("1")  # the same content, a later time: git reads it again
    os.utime(project / "a", (1, 1))
    os.utime(project / ".gitmodules", (1, 1))
    started.unlink(missing_ok=True)
    assert git_state(project) == clean
    (project / "a").write_text("2")
    assert git_state(project) == {**clean, "dirty": True}
    assert not started.exists()


def test_objects_that_a_project_lacks_are_not_fetched(tmp_path: Path) -> None:
    started = tmp_path / "started"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialclone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(tmp_path),
        "remote.origin.uploadpack": f"touch {started}; git-upload-pack",
    }.items():
        subprocess.run(["git", "-C", str(tmp_path), "config", key, value], check=True)
    (tmp_path / ".git/HEAD").write_text("1" * 40 + "\n")
    assert git_state(tmp_path) is None
    assert not started.exists()
