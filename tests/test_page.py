"""`rlkit report`: the page's content, and what strangers' runs cannot do to it. Also plot's and compare's groups."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from rlkit.errors import CheckpointError, UsageError
from rlkit.report import compare, plot, report
from rlkit.report.curves import curve_figure
from rlkit.report.groups import load_groups
from rlkit.report.normalise import scores
from rlkit.report.profiles import profile_figure
from rlkit.runs.run import RunInfo

RECIPE = "name: a\nalgorithm: DQN\nenv: CartPole-v1\nstop: {iterations: 10}\n"


def line(slope: float) -> Any:
    def rows(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": i, "env_steps": 1000.0 * i, "updates": 10.0 * i, "time_s": 2.0 * i,
             "episode_return": slope * i + seed, "loss/p/total_loss": 1.0 / i, "return/agent_0": float(i)}
            for i in range(1, 11)
        ]  # fmt: skip

    return rows


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_of(tmp_path: Path, *runs: Path) -> tuple[str, list[str]]:
    out = tmp_path / "report.html"
    notes = report(list(runs), out, videos=False)
    return out.read_text(), notes


def test_the_page_has_curves_tables_recipe_and_warnings(tmp_path: Path) -> None:
    config = {"training": {"lr": 0.001, "gamma": 0.99}}
    a = write_run(tmp_path / "dqn/t", line(10), seeds=(0, 1, 2), config=config, stop={"iteration": 10})
    b = write_run(tmp_path / "ppo/t", line(20), seeds=(5,), algorithm="PPO", status="interrupted")
    (a / "recipe.yaml").write_text(RECIPE)
    text, notes = page_of(tmp_path, a, b)
    tags = Tags(text).found
    assert sum(tag == "img" for tag, _ in tags) >= 6
    for words in ("Learning curves", "config.<wbr>training.<wbr>lr", "P(A &gt; B)", "ppo: 1 seed; an interval needs 3",
                  "interrupted, not finished", "loss/p/total_loss", "return/agent_0", "updates"):  # fmt: skip
        assert words in text, words
    assert "training.<wbr>gamma" not in text  # it is the default
    assert any("ppo" in note and "recipe" in note for note in notes)
    assert len(text) < 3_000_000


def test_the_page_tells_what_is_switched_off_and_with_what_a_run_went_on(tmp_path: Path) -> None:
    config = {"training": {"grad_clip": None, "vf_clip_param": None}}
    run = write_run(tmp_path / "ppo/t", line(10), algorithm="PPO", config=config)
    info = RunInfo.read(run)
    info.command, info.resumed_with = "rlkit train ppo.yaml", ["stop.env_steps=200000"]
    info.write(run)
    (run / "recipe.yaml").write_text(RECIPE)
    text, _ = page_of(tmp_path, run)
    assert "rlkit train ppo.yaml; resumed with stop.env_steps=200000" in text
    assert "vf_<wbr>clip_<wbr>param" in text or "vf_clip_param" in text  # RLlib's default is 10
    assert "null" in text
    assert "grad_clip" not in text.replace("<wbr>", "")  # off by default


def test_nothing_in_the_page_runs_or_loads(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dqn/t", line(10))
    text, _ = page_of(tmp_path, run)
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("script", "iframe", "object", "embed", "form", "base")]
    links = [value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href", "poster")]
    assert all(value and value.startswith(("data:", "#")) for value in links)
    assert "default-src 'none'" in text
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]


def test_a_strangers_names_never_become_html(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m{{7*7}}--><b>"

    def rows(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": i, "env_steps": i, "episode_return": i, f"loss/{evil}/x": i, f"return/{evil}": i}
            for i in (1, 2)
        ]

    run = write_run(tmp_path / "x/t", rows, name=evil, env=evil, algorithm=evil, config={evil: {evil: evil}})
    (run / "recipe.yaml").write_text(f"name: {evil!r}\n</pre><script>alert(2)</script>\n")
    text, _ = page_of(tmp_path, run)
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("script", "b")]
    assert not [attrs for _, attrs in tags if "onerror" in attrs]
    assert "\x1b" not in text
    assert "{{7*7}}" in text


def test_a_page_of_a_run_without_results_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x/t", lambda seed: [])
    text, _ = page_of(tmp_path, run)
    assert "no run here has reported a return" in text
    with pytest.raises(UsageError, match=r"ending in \.html"):
        report([run], tmp_path / "a.txt")


def test_a_damaged_run_is_left_out_with_a_note_and_alone_it_is_an_error(tmp_path: Path) -> None:
    good, bad = write_run(tmp_path / "a/t", line(1)), write_run(tmp_path / "b/t", line(1))
    (bad / "run.json").write_text("{")
    text, notes = page_of(tmp_path, good, bad)
    assert any("left out" in note and "b/t" in note for note in notes)
    assert "b/t" in text
    with pytest.raises(CheckpointError, match="damaged"):
        report([bad], tmp_path / "b.html")


def test_what_is_no_number_is_left_out_with_a_note(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", line(1))
    table = list(csv.reader((run / "metrics.csv").read_text().splitlines()))
    column = table[0].index("episode_return")
    table[3][column], table[4][column] = "=HYPERLINK(1)", "1e308"
    text = io.StringIO()
    csv.writer(text).writerows(table)
    (run / "metrics.csv").write_text(text.getvalue())
    notes: list[str] = []
    (group,) = load_groups(run, "episode_return", notes=notes)
    assert len(group.curves("episode_return", "iteration")[0].y) == 8
    assert len(notes) == 2
    (run / "metrics.csv").write_bytes(b"\x00\xff\xfe" * 100)
    with pytest.raises(CheckpointError, match=r"metrics\.csv"):
        load_groups(run, "episode_return")


def test_runs_are_grouped_by_any_key(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / f"r{n}", line(n), name=f"r{n}", algorithm=algorithm, config={"training": {"lr": lr}}
        )
        for n, (algorithm, lr) in enumerate([("DQN", 0.1), ("DQN", 0.2), ("PPO", 0.1)])
    ]
    groups = load_groups(runs, "episode_return", by=["algorithm"])
    assert [(g.label, len(g.trials)) for g in groups] == [("DQN", 2), ("PPO", 1)]
    groups = load_groups(runs, "episode_return", by=["config.training.lr"])
    assert [(g.label, len(g.trials)) for g in groups] == [("lr=0.1", 2), ("lr=0.2", 1)]
    with pytest.raises(UsageError, match=r"did you mean 'config\.training\.lr'"):
        load_groups(runs, "episode_return", by=["config.training.lrr"])


def test_environments_meet_on_a_normalised_scale_only(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", line(45.26), seeds=(0, 1, 2), name="a", env="CartPole-v1"),
        write_run(tmp_path / "b", line(-15.7), seeds=(0, 1, 2), name="b", env="Pendulum-v1"),
    ]
    with pytest.raises(UsageError, match="cannot be averaged; add --by env, or --normalise"):
        compare(runs, by=["algorithm"])
    (row,) = compare(runs, by=["algorithm"], scale=scores()).rows
    assert row.seeds == 6
    assert set(row.final) == {"CartPole-v1", "Pendulum-v1"}
    assert row.final["CartPole-v1"][0] == pytest.approx((452.6 - 22.6) / (475 - 22.6))
    assert row.final["Pendulum-v1"][0] == pytest.approx(1.0, abs=0.01)
    other = write_run(tmp_path / "c", line(1), name="c", env="Other-v0")
    with pytest.raises(UsageError, match="--score Other-v0=LOW:HIGH"):
        compare([other], scale=scores())
    assert scores(["Other-v0=1:2"])["Other-v0"] == (1.0, 2.0)
    with pytest.raises(UsageError, match="expected ENV=LOW:HIGH"):
        scores(["Other-v0=2:2"])


def test_pictures_are_told_apart_without_colour(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}/t", line(n), seeds=(0, 1, 2)) for n in range(3)]
    svg = Path(plot(runs, x="updates", out=tmp_path / "a.svg")).read_text()
    paths = re.findall(r'<path id="m[0-9a-f]+" d="([^"]*)"', svg)
    assert len(set(paths)) >= 3  # markers of three shapes
    assert "<!-- updates -->" in svg
    assert "stroke-dasharray" in svg
    profile = Path(plot(runs, out=tmp_path / "p.svg", profile=True)).read_text()
    assert "<!-- share of seeds above τ -->" in profile


def test_a_group_has_one_colour_in_all_pictures(tmp_path: Path) -> None:
    """Also in a profile, which leaves out a group of one seed."""
    runs = [write_run(tmp_path / f"r{n}/t", line(n), seeds=range(n)) for n in (1, 2, 3)]
    groups = load_groups(runs, "episode_return")
    curves = curve_figure(groups, "episode_return", "env_steps").axes[0].get_legend()
    profiles = profile_figure(groups, "episode_return", fewest=2).axes[0].get_legend()
    assert curves is not None
    assert profiles is not None
    colours = [
        {
            text.get_text(): drawn.get_color()
            for text, drawn in zip(legend.get_texts(), legend.get_lines(), strict=False)
        }
        for legend in (curves, profiles)
    ]
    assert list(colours[1]) == ["r2 (2 seeds)", "r3 (3 seeds)"]
    assert colours[1].items() <= colours[0].items()


def test_lessons_are_drawn_where_a_group_that_had_them_is(tmp_path: Path) -> None:
    def lessons(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": i, "env_steps": 9000.0 * i, "episode_return": i, "curriculum/lesson": i // 5}
            for i in range(9)
        ]

    with_lessons = write_run(
        tmp_path / "with/t", lessons, curriculum={"lessons": [{"name": "easy"}, {"name": "hard"}]}
    )
    groups = load_groups([write_run(tmp_path / "without/t", line(1)), with_lessons], "episode_return")

    def words(metric: str) -> set[str]:
        return {text.get_text() for text in curve_figure(groups, metric, "env_steps").axes[0].texts}

    assert words("episode_return") == {"easy", "hard"}
    groups = load_groups([with_lessons], "episode_return", scale={"CartPole-v1": (0.0, 500.0)})
    assert words("episode_return") == {"easy", "hard"}
    assert groups[0].curves("episode_return", "env_steps")[0].y[-1] == 8 / 500
    assert words("loss/p/total_loss") == set()  # only the run without lessons has it


def test_sample_efficiency_markdown_and_csv(tmp_path: Path) -> None:
    a = write_run(tmp_path / "fast/t", line(20), seeds=(0, 1, 2))
    b = write_run(tmp_path / "s|ow/t", line(5), seeds=(0, 1, 2), name="=s|ow<b>")
    found = compare([a, b], thresholds=[40])
    steps = {r.name: (r.seeds, r.env_steps) for r in found.reached}
    assert steps == {"fast": (3, 2000.0), "=s|ow<b>": (3, 8000.0)}
    assert {r.env_steps for r in compare([a, b], thresholds=[1000]).reached} == {None}
    markdown = found.markdown()
    assert "=s\\|ow&lt;b&gt;" in markdown
    lines = list(csv.DictReader(io.StringIO(found.csv())))
    assert lines[1]["name"] == "'=s|ow<b>"  # no formula
    assert float(lines[0]["env_steps_to_40"]) == 2000


def test_values_to_reach_are_those_of_each_environment(tmp_path: Path) -> None:
    cart = write_run(tmp_path / "cart/t", line(10))
    swing = write_run(tmp_path / "swing/t", lambda seed: [
        {"iteration": i, "env_steps": 1000.0 * i, "episode_return": -1000.0 + i} for i in range(1, 11)
    ], env="Pendulum-v1")  # fmt: skip
    reached = compare([cart, swing]).reached
    assert {r.name for r in reached if r.threshold < 0} == {"swing"}
    assert {r.name for r in reached if r.threshold > 0} == {"cart"}
    assert all(r.seeds == 1 for r in reached)


def test_a_damaged_line_of_metrics_is_left_out_of_tables_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dqn/t", line(10))
    columns = (run / "metrics.csv").read_text().splitlines()[0].count(",")
    with (run / "metrics.csv").open("a") as file:
        file.write("trial_00000_seed=0" + ",words" * columns + "\n")
    notes: list[str] = []
    (row,) = compare([run], notes=notes).rows
    assert (row.env_steps, row.time_s) == (10_000, 20)
    assert any("'iteration' left out" in note for note in notes)
    assert ">10,000<" in page_of(tmp_path, run)[0]
