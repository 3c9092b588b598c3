"""Plots and comparisons of written run folders: what is drawn, where, and the numbers of the tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.console import Console
from run_folders import write_run
from typer.testing import CliRunner

from rlkit.cli import app
from rlkit.errors import UsageError
from rlkit.report import compare, plot
from rlkit.report.curves import average, curve_figure, lesson_borders
from rlkit.report.groups import load_groups
from rlkit.report.ranking import Ranking
from rlkit.report.terminal import thousands
from rlkit.runs.run import Best, RunInfo, open_run
from rlkit.runs.statistics import band, improvement_interval, interval, iqm, probability_of_improvement


def line(slope: float, end: int = 10, **more: Any) -> Any:
    """Rows of a straight line: return = slope * iteration + seed, 1000 env steps and 2 s per iteration."""

    def rows(seed: int) -> list[dict[str, float]]:
        base = {"iteration": 1.0, "env_steps": 1000.0, "time_s": 2.0}
        return [
            {k: v * i for k, v in base.items()}
            | {"episode_return": slope * i + seed}
            | {k: f(i, seed) for k, f in more.items() if f(i, seed) is not None}
            for i in range(1, end + 1)
        ]

    return rows


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)[..., :3]


def has_color(path: Path, rgb: tuple[int, int, int]) -> int:
    return int((np.abs(pixels(path) * 255 - np.array(rgb)).max(axis=-1) < 3).sum())


BLUE, ORANGE = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)


def test_one_run_is_drawn_into_its_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dqn/t", line(40))
    assert plot(run) == str(run / "plot.png")
    height, width, _ = pixels(run / "plot.png").shape
    assert (width, height) == (1152, 672)
    assert has_color(run / "plot.png", BLUE) > 1000
    assert has_color(run / "plot.png", ORANGE) == 0


def test_two_recipes_have_two_colors_and_a_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = write_run(tmp_path / "dqn/t", line(40), seeds=range(5))
    b = write_run(tmp_path / "ppo/t", line(20), seeds=range(5), algorithm="PPO")
    monkeypatch.chdir(tmp_path)
    assert plot([a, b]) == "plot.png"
    assert has_color(Path("plot.png"), BLUE) > 1000
    assert has_color(Path("plot.png"), ORANGE) > 1000
    text = Path(plot([a, b], out=tmp_path / "both.svg")).read_text()
    for words in ("dqn (5 seeds)", "ppo (5 seeds)", "95 % interval of the IQM", "env steps",
                  "episode return [sum of rewards]", "CartPole-v1"):  # fmt: skip
        assert f"<!-- {words} -->" in text, words
    assert "<!-- evaluation -->" not in text
    assert Path(plot(a, out=tmp_path / "a.pdf")).read_bytes().startswith(b"%PDF")


def test_evaluations_are_dashed_and_lessons_are_bands(tmp_path: Path) -> None:
    lessons = [{"name": "short $pole$"}, {"name": "long pole"}, {"name": "never reached"}]
    rows = line(
        40,
        **{
            "curriculum/lesson": lambda i, seed: float(i > 4 + seed),
            "eval/episode_return": lambda i, seed: 42.0 * i if i % 5 == 0 else None,
        },
    )
    run = write_run(tmp_path / "cur/t", rows, seeds=(0, 1, 2), curriculum={"lessons": lessons})
    text = Path(plot(run, out=tmp_path / "a.svg")).read_text()
    assert "<!-- evaluation -->" in text
    assert "stroke-dasharray" in text
    assert "<!-- short $pole$ -->" in text
    assert "<!-- long pole -->" in text
    assert "never reached" not in text
    (group,) = load_groups(run, "episode_return")
    # 6,000 is the median of 5, 6 and 7 thousand.
    assert lesson_borders(group, "env_steps") == [(0.0, "short $pole$"), (6000.0, "long pole")]
    assert lesson_borders(group, "time_s") == [(0.0, "short $pole$"), (12.0, "long pole")]


def test_one_seed_shows_a_lesson_taken_back(tmp_path: Path) -> None:
    steps = [0, 0, 1, 1, 0, 1, 2, 2, 2, 2]
    rows = line(1, **{"curriculum/lesson": lambda i, seed: float(steps[i - 1])})
    run = write_run(tmp_path / "a/t", rows, curriculum={"lessons": [{"name": "a"}, {"name": "b"}]})
    (group,) = load_groups(run, "episode_return")
    assert lesson_borders(group, "iteration") == [(0, "a"), (3, "b"), (5, "a"), (6, "b"), (7, "lesson 2")]


def test_evaluations_with_nothing_in_common_are_points(tmp_path: Path) -> None:
    def rows(seed: int) -> Any:
        return [
            {
                "iteration": i,
                "env_steps": 100.0 * i + seed,
                "episode_return": float(i),
                **({"eval/episode_return": 5.0} if i == 3 else {}),
            }
            for i in range(1, 5)
        ]

    groups = load_groups([write_run(tmp_path / "a/t", rows, seeds=(0, 1))], "episode_return")
    axes = curve_figure(groups, "episode_return", "env_steps").axes[0]
    points = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert [float(line.get_xdata()[0]) for line in points] == [300.0, 301.0]
    assert "evaluation" not in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_mean_ends_where_the_first_seed_ends(tmp_path: Path) -> None:
    def rows(seed: int) -> Any:
        return line(10, end=10 if seed else 5)(seed)

    (group,) = load_groups(write_run(tmp_path / "a/t", rows, seeds=(0, 2)), "episode_return")
    common = average(group.curves("episode_return", "env_steps"))
    assert common is not None
    assert common[0].tolist() == [1000, 2000, 3000, 4000, 5000]
    assert common[1].mean(axis=0).tolist() == [11, 21, 31, 41, 51]


def test_seeds_are_grouped_across_runs_and_recipes_told_apart(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"name": "dqn", "config": {"training": {"lr": 0.001, "gamma": 0.99}}}
    a = write_run(tmp_path / "a", line(1), seeds=(0, 1), **kwargs)
    b = write_run(tmp_path / "b", line(1), seeds=(2,), **kwargs)
    kwargs["config"] = {"training": {"lr": 0.01, "gamma": 0.99}}
    c = write_run(tmp_path / "c", line(1), seeds=(0,), **kwargs)
    groups = load_groups([a, b, c, a], "episode_return")
    assert [(g.label, len(g.trials)) for g in groups] == [("dqn lr=0.001", 3), ("dqn lr=0.01", 1)]
    (one,) = load_groups(a / "trial_00001_seed=1", "episode_return")
    assert [t.name for t in one.trials] == ["trial_00001_seed=1"]
    assert load_groups(open_run(b), "episode_return")[0].label == "dqn"


def test_nan_infinite_and_missing_points_are_left_out(tmp_path: Path) -> None:
    values = {2: 2.0, 4: float("nan"), 6: 6.0, 8: float("-inf"), 10: 10.0}
    rows = line(1, **{"eval/episode_return": lambda i, seed: values.get(i)})
    (group,) = load_groups(write_run(tmp_path / "a/t", rows), "eval/episode_return")
    (curve,) = group.curves("eval/episode_return", "iteration")
    assert curve.x.tolist() == [2, 6, 10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            {"metric": "episode_retrun"},
            "no run here has reported 'episode_retrun'; did you mean 'episode_return'",
        ),
        ({"metric": "return/agent_9"}, "reported: env_steps, episode_return, iteration, time_s"),
        ({"metric": "xyzzy"}, "unknown metric 'xyzzy'"),
        ({"x": "steps"}, "'steps'; did you mean 'env_steps'"),
        ({"out": "a.gif"}, r"cannot draw 'a\.gif': expected a name ending in \.png, \.svg, \.pdf"),
        ({"out": "nowhere/a.png"}, "the folder nowhere does not exist"),
    ],
)
def test_what_cannot_be_drawn_is_explained(tmp_path: Path, call: dict, message: str) -> None:
    run = write_run(tmp_path / "dqn/t", line(1))
    with pytest.raises(UsageError, match=message):
        plot(run, **call)
    assert not list(run.glob("*.png"))


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="have no results yet"):
        plot(write_run(tmp_path / "dqn/t", lambda seed: []))
    with pytest.raises(UsageError, match="at least one run"):
        plot([])
    one = write_run(tmp_path / "one/t", line(1, end=1))
    assert has_color(Path(plot(one)), BLUE) > 10  # a single point is still seen
    assert "last 1" in plot(one, text=True)


def test_the_terminal_shows_the_shape_of_the_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dqn/t", line(40))
    lines = plot(run, text=True).splitlines()
    assert lines[0] == "dqn · CartPole-v1: episode return [sum of rewards]"
    assert lines[1].startswith("400 ┤")
    assert lines[16].startswith(" 40 ┤")
    assert lines[18].split() == ["1k", "10k", "env", "steps"]
    assert lines[19].strip() == "dqn: last 400, highest 400"
    rows = [[c not in "\u2800 " for c in text[5:].ljust(72)] for text in lines[1:17]]
    centre = [np.mean(np.flatnonzero(column)) for column in np.array(rows).T]
    assert centre[0] == 15  # a rising line: bottom left to top right, one cell after the other
    assert centre[-1] == 0
    assert np.all(np.diff(centre) <= 0)


def test_the_terminal_marks_several_curves_with_letters(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "up/t", line(40)), write_run(tmp_path / "down/t", line(-40))
    lines = plot([a, b], text=True).splitlines()
    assert lines[1].endswith("a")
    assert lines[16].endswith("b")
    assert [text.strip() for text in lines[-2:]] == [
        "a  up: last 400, highest 400",
        "b  down: last -400, highest -40",
    ]


def test_compare_gives_the_numbers_of_the_definition(tmp_path: Path) -> None:
    a = write_run(tmp_path / "good/t", line(10, end=20), seeds=(0, 1, 2, 3))
    b = write_run(tmp_path / "bad/t", line(1, end=20), seeds=(0, 1))
    values = json.loads(json.dumps(compare([a, b]).to_json()))
    good, bad = values["rows"]
    # The mean of iterations 19 and 20, beyond 90 % of the steps.
    assert good["final"]["CartPole-v1"] == [195, 196, 197, 198]
    assert good["mean"] == 196.5
    assert good["std"] == pytest.approx(np.std([0, 1, 2, 3], ddof=1))
    assert good["iqm"] == 196.5
    assert good["best"] == 201.5
    assert (good["seeds"], good["env_steps"], good["time_s"]) == (4, 20000, 40)
    assert 195 <= good["ci95"][0] < 196.5 < good["ci95"][1] <= 198
    assert bad["ci95"] is None  # two seeds have no interval
    assert values["improvements"] == [{"a": "good", "b": "bad", "probability": 1.0, "ci95": None}]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(compare([a, b]).table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "196.5 ± 1.3" in text
    assert "20k" in text
    assert "episode return [sum of rewards], last 10% of the env steps" in text
    assert "P(A > B)" in text


def test_compare_takes_the_lowest_loss_as_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", line(1, **{"loss/p/vf_loss": lambda i, seed: 11.0 - i}))
    assert compare(run, "loss/p/vf_loss").rows[0].best == 1
    with pytest.raises(UsageError, match="did you mean 'loss/p/vf_loss'"):
        compare(run, "loss/p/vf_los")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 10, 11])
def test_iqm_equals_the_trimmed_mean_rliable_uses(size: int) -> None:
    scores = np.random.default_rng(size).normal(size=(3, size))
    np.testing.assert_allclose(iqm(scores), scipy.stats.trim_mean(scores, 0.25, axis=-1))


def test_probability_of_improvement_equals_mann_whitney() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 9), rng.integers(0, 5, 7)
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert probability_of_improvement(x, y) == pytest.approx(u / 63)
    assert probability_of_improvement([1, 1], [1]) == 0.5
    low, high = improvement_interval([(x, y)])
    assert 0 <= low < u / 63 < high <= 1
    assert improvement_interval([([1, 2, 3], [4, 5, 6])]) == (0, 0)


def test_bootstrap_intervals_cover_and_repeat() -> None:
    rng = np.random.default_rng(1)
    draws = [rng.normal(size=30) for _ in range(200)]
    bounds = [interval(d, resamples=400) for d in draws]
    assert 0.88 <= np.mean([low < 0 < high for low, high in bounds]) <= 0.98  # 95 %, a little less at n = 30
    assert interval(draws[0]) == interval(draws[0])
    low, high = band([np.stack(draws[:5])])
    assert low.shape == (30,)
    assert np.all(low <= iqm(np.stack(draws[:5], axis=1)))
    assert np.all(high >= iqm(np.stack(draws[:5], axis=1)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (800, "800"),
        (1000, "1k"),
        (2400, "2400"),
        (41600, "41.6k"),
        (1.25e6, "1.25M"),
        (999_960, "1000k"),
    ],
)
def test_thousands(value: float, text: str) -> None:
    assert thousands(value) == text


def test_labels_name_what_differs_and_leave_out_what_a_recipe_does_not_have(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", line(1), name="dqn", config={}, stop={"env_steps": 2000.0})
    training = {"lr": 1e-3, "train_batch_size": 250000.0}
    config = {"training": training, "env_runners": {"num_env_runners": 2}}
    b = write_run(tmp_path / "b", line(1), name="dqn", config=config, stop={"env_steps": 1e5})
    labels = [g.label for g in load_groups([a, b], "episode_return")]
    assert labels == ["dqn (default)", "dqn lr=0.001, train_batch_size=250000"]
    c = write_run(tmp_path / "c", line(1), name="dqn", config={}, stop={"env_steps": 1e5})
    labels = [g.label for g in load_groups([a, c], "episode_return")]
    assert labels == ["dqn env_steps=2000", "dqn env_steps=100000"]


def test_trials_of_a_search_are_ranked_with_what_was_varied(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", line(1), seeds=(0, 1, 2), config={"training": {"lr": 0.1}})
    (run / "recipe.yaml").write_text("name: a\nalgorithm: DQN\nenv: CartPole-v1\nstop: {iterations: 10}\n")
    info = RunInfo.read(run)
    names = [trial.name for trial in open_run(run).trials]
    for name, value in zip(names, (3.0, 9.0), strict=False):
        info.trial_best[name] = Best(name, f"{name}/checkpoint_000001", "episode_return", value)
    info.write(run)
    (run / names[2] / "params.json").write_text(json.dumps({"seed": 2, "config": {"training": {"lr": 0.2}}}))
    rows = Ranking.of(open_run(run)).trials
    assert [row.trial for row in rows if row.value in (3.0, 9.0)] == [names[1], names[0]]
    assert {row.trial: row.varied["lr"] for row in rows} == dict(
        zip(names, ("0.1", "0.1", "0.2"), strict=True)
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(Ranking.of(open_run(run)).table())
    assert "9.0" in console.file.getvalue()


def test_a_trial_without_a_best_checkpoint_is_ranked_by_its_newest_number(tmp_path: Path) -> None:
    def rows(seed: int) -> list[dict[str, float]]:
        return [
            {"iteration": 1, "env_steps": 10, "eval/episode_return": 5.0 + seed},
            {"iteration": 2, "env_steps": 20},
        ]

    run = write_run(tmp_path / "a", rows, seeds=(0, 1))
    (run / "recipe.yaml").write_text(
        "name: a\nalgorithm: DQN\nenv: CartPole-v1\nstop: {iterations: 10}\n"
        "evaluation: {every: 2}\ncheckpoint: {best: eval/episode_return}\n"
    )
    assert [row.value for row in Ranking.of(open_run(run)).trials] == [6.0, 5.0]


def test_groups_that_look_alike_keep_their_own_numbers(tmp_path: Path) -> None:
    for name, value, training in (
        ("a", 1, {"gamma": 0.99999}), ("b", 30, {"gamma": 1.0}), ("c", 1, {"grad_clip": None}), ("d", 30, {}),
    ):  # fmt: skip
        write_run(tmp_path / name / "t", line(value), name="r", config={"training": training})
    table = compare([tmp_path / "a/t", tmp_path / "b/t"])
    assert [(row.name, row.mean) for row in table.rows] == [("r gamma=0.99999", 10.0), ("r gamma=1.0", 300.0)]
    assert table.improvements[0].probability == 0.0
    by = compare([tmp_path / "a/t", tmp_path / "b/t"], by=["config.training.gamma"])
    assert [(row.name, row.mean) for row in by.rows] == [("gamma=0.99999", 10.0), ("gamma=1.0", 300.0)]
    nulls = [tmp_path / "c/t", tmp_path / "d/t"]
    assert [row.name for row in compare(nulls).rows] == ["r grad_clip=null", "r (default)"]
    assert [row.name for row in compare(nulls, by=["config.training.grad_clip"]).rows] == [
        "grad_clip=null", "grad_clip=(default)",
    ]  # fmt: skip


def test_what_a_comparison_leaves_out_is_said(tmp_path: Path) -> None:
    some = line(1, **{"eval/episode_return": lambda i, seed: 5.0 if i < 3 and seed == 0 else None})
    run = write_run(tmp_path / "a/t", some, seeds=(0, 1))
    notes: list[str] = []
    compare(run, "eval/episode_return", notes=notes)
    first, second = (run / f"trial_0000{seed}_seed={seed}" for seed in (0, 1))
    assert notes == [
        f"{first}: its last eval/episode_return is of env_steps 2,000, it ended at 10,000",
        f"left out: {second}: has no value of eval/episode_return",
    ]
    again = [write_run(tmp_path / f"{name}/t", line(1), name="same") for name in "bc"]
    notes.clear()
    compare(again, notes=notes)
    assert notes == ["same: seed 0 in CartPole-v1 counts 2 times; these are not independent"]
    (again[0] / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    notes.clear()
    assert compare(again, notes=notes).rows[0].seeds == 1
    assert notes[0].startswith(f"left out: {again[0]}/metrics.csv: not a")


def test_a_loss_reaches_a_value_from_above(tmp_path: Path) -> None:
    name = "loss/default_policy/total_loss"
    run = write_run(tmp_path / "a/t", line(1, **{name: lambda i, seed: 10.0 - i}))
    (reached,) = compare(run, name, thresholds=[7.0]).reached
    assert (reached.seeds, reached.env_steps) == (1, 3000.0)
    (never,) = compare(run, name, thresholds=[-1.0]).reached
    assert (never.seeds, never.env_steps) == (0, None)


def test_thresholds_by_default_have_the_digits_that_tell_them_apart(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", line(1, end=21, episode_return=lambda i, seed: 9000.0 + min(i, 20)))
    assert [found.threshold for found in compare(run).reached] == [9010.0, 9015.0, 9018.0]
    with pytest.raises(UsageError, match="--threshold inf: expected a finite number"):
        compare(run, thresholds=[float("inf")])


def test_json_knows_no_infinity(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a/t", line(1, episode_return=lambda i, seed: 1e200 * (1 + seed)), seeds=(0, 1)
    )
    text = json.dumps(compare(run).to_json())
    assert "Infinity" not in text
    assert json.loads(text)["rows"][0]["std"] is None


def test_a_file_of_a_run_stands_for_the_run_and_trial_is_no_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/t", line(1))
    assert compare(run / "metrics.csv").rows[0].seeds == 1
    for call in (lambda: compare(run, "trial"), lambda: plot(run, x="trial", out=tmp_path / "a.png")):
        with pytest.raises(UsageError, match="unknown metric 'trial'"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "--text", "-o", "y.png"], "--text draws in the terminal and writes no file"),
        (["plot", "--profile", "--x", "time_s"], "leave out --x time_s"),
        (["compare", "--json", "--format", "csv"], "two forms"),
        (["compare", "--normalise", "--metric", "time_s"], "--normalise is for returns"),
        (["compare", "--score", "CartPole-v1=0:1", "--metric", "env_steps"], "--score is for returns"),
        (
            ["compare", "--score", "CartPole-v0=0:1"],
            "no run here is in CartPole-v0; did you mean 'CartPole-v1'",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    run = write_run(tmp_path / "a/t", line(1))
    result = CliRunner().invoke(app, [arguments[0], str(run), *arguments[1:]])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_a_table_in_a_pipe_is_not_cut(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{c}/t", line(i), name=c * 90) for i, c in enumerate("ab")]
    result = CliRunner().invoke(app, ["compare", *map(str, runs)])
    assert "a" * 90 in result.stdout
    assert "20 s" in result.stdout


def test_the_legend_of_a_long_name_leaves_room_for_the_curves(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{c}/t", line(i + 1), name="n" * 80 + c) for i, c in enumerate("ab")]
    text = Path(plot(runs, out=tmp_path / "a.svg")).read_text()
    assert f"<!-- {'n' * 18}…{'n' * 35}a -->" in text
    assert f"<!-- {'n' * 18}…{'n' * 35}b -->" in text
