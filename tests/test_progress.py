"""What a run shows while it goes on, and when it stops."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rlkit import recipe as recipes
from rlkit.launch.progress import Progress, clock, number, short
from rlkit.launch.tracking import StopRule

RECIPE = recipes.from_mapping(
    {
        "name": "r",
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "stop": {"env_steps": 1000, "episode_return": 475},
    }
)


def result(steps: int, value: float) -> dict:
    return {
        "training_iteration": 1,
        "num_env_steps_sampled_lifetime": steps,
        "env_runners": {"episode_return_mean": value},
    }


def test_a_trial_stops_at_the_first_limit_it_reaches() -> None:
    rule = StopRule(RECIPE.stop)
    assert not rule("t", result(999, 474.9))
    assert rule("t", result(1000, 0.0))
    assert rule("t", result(1, 475.0))
    assert not rule("t", {"training_iteration": 3})


def test_a_stopper_that_tune_brings_back_follows_the_new_limits() -> None:
    old = StopRule({"env_steps": 10})
    StopRule({"env_steps": 20})
    assert not old("t", result(15, 0.0))


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with Progress(RECIPE, console=Console(file=out, width=120, highlight=False)) as show:
        show.trial("trial_0", "running")
        show.result("trial_0", {"env_steps": 250.0, "episode_return": 21.34, "steps_per_s": 900.0})
    first = out.getvalue().splitlines()[0]
    assert "trial_0" in first
    assert "25 %" in first
    assert "250/1000" in first
    assert "return 21.3" in first
    assert "\x1b" not in out.getvalue()


def test_a_live_table_in_a_terminal_has_a_bar_and_every_trial() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    show = Progress(RECIPE, console=console)
    show.trial("trial_0", "running")
    show.trial("trial_1", "done")
    show.result("trial_0", {"env_steps": 500.0, "episode_return": 20.0})
    console.print(show._table())
    drawn = console.file.getvalue()
    assert "trial_1" in drawn
    assert "done" in drawn
    assert "500/1000" in drawn
    assert "━" * 24 in drawn


def test_at_80_columns_the_bar_shrinks_and_nothing_is_cut() -> None:
    for name in ("trial_00000", "trial_00001_lr=0.001", "trial_00002_gamma=0.99,lr=0.0001,num_epochs=10"):
        console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
        show = Progress(RECIPE, console=console)
        show.trial(name, "running")
        row = {"env_steps": 500.0, "episode_return": -1234.5, "eval/episode_return": 475.0, "time_s": 3725.0}
        show.result(name, row)
        console.print(show._table())
        drawn = console.file.getvalue()
        lines = drawn.splitlines()[1:]  # the first is the plain one of `result`
        assert max(map(len, lines)) <= 80 - len("^C") - 1  # the echo must fit, or it leaves a line behind
        assert "…" not in drawn
        assert "".join(line.partition(" ")[0] for line in lines[1:]) == name
        for value in ("running", "500/1000", "-1234", "475.0", "1:02:05"):
            assert value in lines[1]


def test_without_a_terminal_no_line_comes_twice() -> None:
    out = io.StringIO()
    with Progress(RECIPE, console=Console(file=out, width=120, highlight=False)) as show:
        show.trial("trial_0", "running")
        show.result("trial_0", {"env_steps": 250.0})
        show.trial("trial_0", "done")
    assert len(out.getvalue().splitlines()) == 1


def test_an_iteration_without_a_finished_episode_shows_the_last_return() -> None:
    out = io.StringIO()
    with Progress(RECIPE, console=Console(file=out, width=120, highlight=False)) as show:
        show.trial("trial_0", "running")
        show.result("trial_0", {"env_steps": 250.0, "episode_return": 21.34})
        show.result("trial_0", {"env_steps": 500.0, "episode_return": float("nan")})
    assert out.getvalue().splitlines()[-1].split("  ")[2:4] == ["steps 500/1000", "return 21.3"]


def test_the_table_says_what_an_interrupted_run_is_doing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    show = Progress(RECIPE, console=console)
    for name in ("trial_0", "trial_1"):
        show.trial(name, "running")
    show.stopping()
    show.trial("trial_0", "saved")
    console.print(show._table())
    assert "running" not in console.file.getvalue()
    assert "saving" in console.file.getvalue()
    assert "saved" in console.file.getvalue()


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(RECIPE, quiet=True) as show:
        show.trial("trial_0", "running")
        show.result("trial_0", {"env_steps": 1.0})
        show.say("hello")
    assert capsys.readouterr() == ("", "")


def test_numbers_are_short() -> None:
    assert [short(x) for x in (475, 9999, 50_000, 1_234_567)] == ["475", "9999", "50k", "1.23M"]
    assert [number(x) for x in (None, 21.34, -1234.5)] == ["–", "21.3", "-1234"]
    assert [clock(x) for x in (5, 95, 3725)] == ["0:05", "1:35", "1:02:05"]
