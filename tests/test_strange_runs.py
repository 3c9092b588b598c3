"""Run folders and projects that somebody else made: looking at them writes nowhere else, and starts none of their programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_folders import write_run

from rlkit.report import plot
from rlkit.runs.run import open_run


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
