"""Curricula without RLlib: samplers, lessons, the automatic ones. No Ray, no torch."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys

import numpy as np
import pytest

from rlkit.curriculum import Lessons, validate
from rlkit.curriculum.alp_gmm import ALPGMM
from rlkit.curriculum.base import Clock, Curriculum, Outcome, Report
from rlkit.curriculum.driver import Decider
from rlkit.curriculum.gmm import best_of, fit
from rlkit.curriculum.levels import Learnability, LearningProgress
from rlkit.curriculum.plr import PrioritisedLevelReplay
from rlkit.curriculum.randomise import Annealing, DomainRandomisation, ExpandingBox
from rlkit.curriculum.samplers import corner_tasks, draw, parse, parse_task
from rlkit.curriculum.self_play import SelfPlay


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def played(value: float = 0.0, success: float | None = None, **more: object) -> Outcome:
    return Outcome(episode_return=value, length=10, success=success, **more)  # type: ignore[arg-type]


# samplers


@pytest.mark.parametrize(
    ("sampler", "inside"),
    [
        ({"uniform": [2, 3]}, lambda x: 2 <= x < 3),
        ({"integer": [2, 4]}, lambda x: x in (2, 3, 4)),
        ({"gaussian": [0, 5, -1, 1]}, lambda x: -1 <= x <= 1),
        ({"multirange": [[0, 1], [4, 5]]}, lambda x: 0 <= x <= 1 or 4 <= x <= 5),
        ({"choice": ["a", "b"]}, lambda x: x in ("a", "b")),
    ],
)
def test_a_sampler_stays_in_its_range_and_reaches_both_halves_of_it(sampler, inside):
    values = [parse(sampler).draw(r) for r in [rng()] for _ in range(300)]
    assert all(inside(x) for x in values)
    ends = parse(sampler).corners()
    assert all(inside(x) or x == ends[-1] for x in ends)
    assert len({str(x) for x in values}) > 1


def test_multirange_gives_each_interval_its_width():
    sampler = parse({"multirange": [[0, 1], [10, 13]]})
    r = rng()
    assert np.mean([sampler.draw(r) >= 10 for _ in range(4000)]) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"uniform": [3, 1]}, "lo 3 > hi 1"),
        ({"unifrom": [0, 1]}, "did you mean 'uniform'"),
        ({"gaussian": [0, -1]}, "standard deviation"),
        ({"choice": []}, "at least one"),
        ({"integer": [0.5, 2]}, "whole numbers"),
        ({"uniform": [0]}, r"\[lo, hi\]"),
        ({"uniform": ["a", 1]}, "expected a number"),
        ({"multirange": [[0, 1], [2, 1]]}, "lo 2 > hi 1"),
        ({"a": 1, "b": 2}, "expected a value"),
    ],
)
def test_a_wrong_sampler_says_what_is_wrong(value, message):
    with pytest.raises(ValueError, match=message):
        parse(value)


def test_corner_tasks_try_every_end_once():
    task = parse_task({"x": {"uniform": [0, 1]}, "y": {"choice": [1, 2, 3]}, "z": "fixed"})
    assert corner_tasks(task) == [
        {"x": 0.0, "y": 1, "z": "fixed"},
        {"x": 1.0, "y": 1, "z": "fixed"},
        {"x": 0.0, "y": 2, "z": "fixed"},
        {"x": 0.0, "y": 3, "z": "fixed"},
    ]


# lessons

LESSONS = [
    {"name": "a", "task": {"x": 1}, "until": {"measure": "return", "threshold": 10, "min_episodes": 5}},
    {
        "name": "b",
        "task": {"x": 2},
        "until": {"measure": "success", "threshold": 0.5, "min_episodes": 4},
        "back": {"measure": "success", "threshold": 0.1, "min_episodes": 8},
    },
    {"name": "c", "task": {"x": {"uniform": [3, 4]}}},
]


def advance(lessons: Lessons, outcomes: list[Outcome], steps: int = 0) -> str:
    for outcome in outcomes:
        lessons.update(lessons.sample(rng()), outcome)
    lessons.advance(Clock(env_steps=steps))
    return lessons.lesson.name


def test_a_lesson_ends_when_the_mean_of_its_window_reaches_the_threshold():
    lessons = Lessons(LESSONS)
    assert advance(lessons, [played(100)] * 4) == "a"  # too few episodes, whatever their return
    assert advance(lessons, [played(0)] * 5) == "a"
    assert advance(lessons, [played(10)] * 4) == "a"  # 0, 10, 10, 10, 10
    assert advance(lessons, [played(10)]) == "b"
    assert lessons.history[0] == {
        "from": "a", "to": "b", "env_steps": 0, "episodes": 14, "measure": "return", "value": 10.0,
    }  # fmt: skip


def test_a_new_lesson_starts_with_an_empty_measure():
    lessons = Lessons([LESSONS[0], {**LESSONS[0], "name": "a2"}, LESSONS[2]])
    assert advance(lessons, [played(50)] * 100) == "a2"
    assert advance(lessons, [played(50)] * 4) == "a2"
    assert lessons.metrics()["measure"] == 50
    assert lessons.metrics()["lesson_episodes"] == 4


def test_collapse_goes_back_and_the_lesson_must_be_learnt_again():
    lessons = Lessons(LESSONS)
    advance(lessons, [played(10)] * 5, steps=100)
    assert advance(lessons, [played(success=0.0)] * 8, steps=200) == "a"
    assert [h["to"] for h in lessons.history] == ["b", "a"]
    assert lessons.stage == 2
    assert advance(lessons, [played(10)] * 4, steps=300) == "a"
    assert advance(lessons, [played(10)], steps=400) == "b"


@pytest.mark.parametrize("measure", ["steps", "progress", "length"])
def test_measures_of_time_and_length(measure):
    threshold = {"steps": 50, "progress": 0.5, "length": 9}[measure]
    until = {"measure": measure, "threshold": threshold, "min_episodes": 0}
    lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
    lessons.update({}, Outcome(0.0, 5))
    lessons.advance(Clock(env_steps=40, total_steps=100))
    assert lessons.lesson.name == "a"
    for _ in range(30):
        lessons.update({}, Outcome(0.0, 9))
    lessons.advance(Clock(env_steps=50, total_steps=100))
    assert lessons.lesson.name == "b"


def test_steps_count_from_the_beginning_of_the_lesson():
    until = {"measure": "steps", "threshold": 100}
    lessons = Lessons([{"name": n, "task": {}, "until": until} for n in "ab"] + [{"name": "c", "task": {}}])
    names = []
    for steps in range(50, 300, 50):
        lessons.advance(Clock(env_steps=steps))
        names.append(lessons.lesson.name)
    assert names == ["a", "b", "b", "c", "c"]


def test_a_metric_counts_from_this_lesson_on_and_repeated_evaluations_do_not():
    until = {"measure": "eval/episode_return", "threshold": 5, "smoothing": 2}
    lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
    result = {"evaluation": {"env_runners": {"episode_return_mean": 9.0}}}
    for evaluated, expected in [(True, "a"), (False, "a"), (False, "a"), (True, "b")]:
        lessons.advance(Clock(env_steps=0, result=result, evaluated=evaluated))
        assert lessons.lesson.name == expected


def test_return_of_one_policy():
    until = {"measure": "return", "of": "red", "threshold": 1, "min_episodes": 1}
    lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
    assert lessons.needs == {"returns"}
    assert advance(lessons, [played(9.0, returns={"red": 0.0, "blue": 9.0})]) == "a"
    assert advance(lessons, [played(9.0, returns={"red": 1.0, "blue": 8.0})]) == "b"


def test_a_threshold_no_episode_reaches_is_warned_about_from_the_data(caplog):
    until = {"measure": "return", "threshold": 501, "min_episodes": 10}
    lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
    with caplog.at_level(logging.WARNING):
        advance(lessons, [played(x) for x in range(90)])
        advance(lessons, [played(500.0)] * 60)
        advance(lessons, [played(500.0)] * 60)
    assert len(caplog.records) == 1
    assert "best of 150 episodes was 500, reached 60 times" in caplog.text


def test_no_warning_while_returns_are_still_rising(caplog):
    until = {"measure": "return", "threshold": 501}
    lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
    with caplog.at_level(logging.WARNING):
        advance(lessons, [played(x) for x in range(400)])
    assert not caplog.records


def test_missing_success_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        until = {"measure": "success", "threshold": 0.5}
        lessons = Lessons([{"name": "a", "task": {}, "until": until}, {"name": "b", "task": {}}])
        advance(lessons, [played(1.0)] * 100)
    assert "reported no success in 100 episodes" in caplog.text


def test_resuming_with_a_lesson_inserted_finds_the_saved_one_by_name():
    lessons = Lessons(LESSONS)
    advance(lessons, [played(10)] * 5)
    advance(lessons, [played(success=1.0)] * 3)
    longer = Lessons([LESSONS[0], {**LESSONS[0], "name": "new"}, LESSONS[1], LESSONS[2]])
    longer.state = copy.deepcopy(lessons.state)
    assert longer.lesson.name == "b"
    assert advance(longer, [played(success=1.0)]) == "c"
    with pytest.raises(ValueError, match="in lesson 'b', which is not among"):
        Lessons([LESSONS[0], LESSONS[2]]).state = lessons.state


# the driver


def report(decider: Decider, order: int, value: float, **overrides: object) -> Report:
    fields = {
        "life": decider.life,
        "stage": decider.curriculum.stage,
        "order": (1, 0, 0, order),
        "task": {"x": 1},
        "outcome": played(value),
    }
    return Report(**{**fields, **overrides})  # type: ignore[arg-type]


def test_outcomes_of_an_earlier_lesson_or_life_never_reach_the_measure():
    decider = Decider(Lessons(LESSONS), seed=0, total_steps=None)
    decider.end_iteration([report(decider, i, 10) for i in range(5)], {}, False)
    assert decider.curriculum.lesson.name == "b"
    late = [report(decider, i, 0, stage=0, outcome=played(success=1.0)) for i in range(50)]
    metrics = decider.end_iteration(late, {}, False)
    assert decider.curriculum.lesson.name == "b"
    assert metrics["episodes"] == 0
    saved = decider.get_state()
    decider.set_state(saved)
    old_life = [report(decider, i, 0, life=0, outcome=played(success=1.0)) for i in range(50)]
    assert decider.end_iteration(old_life, {}, False)["episodes"] == 0


def test_the_order_in_which_runners_answer_changes_nothing():
    def run(reverse: bool) -> dict:
        decider = Decider(LearningProgress([{"x": 1}, {"x": 2}]), seed=0, total_steps=None)
        reports = [
            report(decider, i, 0, task={"x": 1 + i % 2}, outcome=played(success=float(i % 3 == 0)))
            for i in range(40)
        ]
        decider.end_iteration(reports[::-1] if reverse else reports, {}, False)
        return decider.get_state()

    assert run(False) == run(True)


def test_metrics_of_an_iteration():
    decider = Decider(Lessons(LESSONS), seed=0, total_steps=None)
    metrics = decider.end_iteration([report(decider, 0, 4), report(decider, 1, 8, task={"x": 3})], {}, False)
    assert metrics["return"] == {"a": 6.0}
    assert metrics["task"] == {"x": 2.0}
    assert (metrics["task_min"], metrics["task_max"]) == ({"x": 1.0}, {"x": 3.0})
    assert (metrics["lesson"], metrics["lesson_name"], metrics["threshold"]) == (0, "a", 10)


# automatic curricula

SPACE = {"x": {"uniform": [0, 10]}, "y": {"uniform": [-1, 1]}}
EVERY: list[Curriculum] = [
    Lessons(LESSONS),
    DomainRandomisation(SPACE),
    Annealing(start={"x": 1.0}, end={"x": 5.0}, over=100),
    ExpandingBox(start={"x": {"uniform": [4, 5]}}, space={"x": {"uniform": [0, 10]}}, window=5),
    LearningProgress([{"x": i} for i in range(4)]),
    Learnability(tasks={"easy": {"x": 0}, "hard": {"x": 1}}),
    Learnability(space=SPACE, levels=8),
    PrioritisedLevelReplay(tasks=[{"x": i} for i in range(4)]),
    PrioritisedLevelReplay(space=SPACE, levels=8),
    ALPGMM(SPACE, history=50, refit=25, components=3),
    SelfPlay("main", "b", pool=3),
]


@pytest.mark.parametrize("curriculum", EVERY, ids=lambda c: type(c).__name__)
def test_state_carries_everything_that_sampling_and_learning_depend_on(curriculum):
    first = copy.deepcopy(curriculum)
    second = copy.deepcopy(curriculum)
    runner = copy.deepcopy(curriculum)
    r = rng(1)

    def learn(c: Curriculum, tasks: list, seed: int) -> None:
        values = rng(seed)
        for task in tasks:
            x = float(values.random())
            c.update(task, Outcome(x * 20, 3, float(x > 0.4), {"main": x, "main_past_0": 0.5}, x))
        c.advance(Clock(env_steps=seed * 20))

    for i in range(1, 4):
        learn(first, [first.sample(r) for _ in range(40)], i)
    second.state = copy.deepcopy(first.state)
    runner.state = copy.deepcopy(first.runner_state())
    a, b, c = rng(2), rng(2), rng(2)
    tasks = [first.sample(a) for _ in range(60)]
    assert [second.sample(b) for _ in range(60)] == tasks
    assert [runner.sample(c) for _ in range(60)] == tasks
    learn(first, tasks, 9)
    learn(second, tasks, 9)
    assert repr(first.state) == repr(second.state)
    assert [first.sample(a) for _ in range(20)] == [second.sample(b) for _ in range(20)]


def test_annealing_shapes():
    ends = {"start": {"x": 1.0}, "end": {"x": 100.0}, "over": 10}
    assert Annealing(**ends).at(0.5) == {"x": 50.5}
    assert Annealing(**ends, shape="cosine").at(0.25)["x"] == pytest.approx(1 + 99 * 0.1464466)
    assert Annealing(**ends, shape="exponential").at(0.5)["x"] == pytest.approx(10.0)
    annealing = Annealing(**ends)
    annealing.advance(Clock(env_steps=25))
    assert annealing.sample(rng()) == {"x": 100.0}


def test_the_box_grows_at_the_end_that_is_mastered_and_shrinks_no_further_than_the_start():
    box = ExpandingBox(
        start={"x": {"uniform": [4, 5]}}, space={"x": {"uniform": [0, 10]}}, step=0.1, window=5, boundary=1.0
    )
    r = rng()
    for _ in range(400):
        task = box.sample(r)
        box.update(task, played(success=float(task["x"] > 4.5)))
    assert box.box["x"] == [4.0, 10.0]
    for _ in range(400):
        task = box.sample(r)
        box.update(task, played(success=0.0))
    assert box.box["x"] == [4.0, 5.0]
    assert box.metrics()["volume"] == pytest.approx(0.1)


def student(curriculum: Curriculum, episodes: int, learnable: int, tasks: int) -> list[float]:
    """A stand-in for an agent: task i < learnable is learnt in 60 plays once task i - 1 is; the rest never.

    Returns the skill on every learnable task. Counting plays needs no environment, so the choice is tested alone.
    """
    skill = [0.0] * tasks
    r = rng(3)
    for _ in range(episodes):
        i = curriculum.sample(r)["x"]
        success = float(r.random() < skill[i])
        if i < learnable and (i == 0 or skill[i - 1] > 0.5):
            skill[i] = min(1.0, skill[i] + 1 / 60)
        curriculum.update({"x": i}, played(success, success, score=abs(success - skill[i])))
    return skill[:learnable]


@pytest.mark.parametrize(
    "curriculum",
    [
        LearningProgress([{"x": i} for i in range(20)]),
        Learnability(tasks=[{"x": i} for i in range(20)]),
        PrioritisedLevelReplay(tasks=[{"x": i} for i in range(20)]),
    ],
    ids=lambda c: type(c).__name__,
)
def test_unlearnable_tasks_get_little_of_the_budget(curriculum):
    uniform = DomainRandomisation({"x": {"integer": [0, 19]}})
    assert np.mean(student(curriculum, 2000, 5, 20)) > 1.5 * np.mean(student(uniform, 2000, 5, 20))


def test_learnability_targets_a_success_rate():
    curriculum = Learnability(tasks=[{"x": p} for p in (0.05, 0.3, 0.7, 1.0)], target=0.7, explore=0.1)
    r = rng()
    for _ in range(1000):
        p = curriculum.sample(r)["x"]
        curriculum.update({"x": p}, played(success=float(r.random() < p)))
    assert int(np.argmax(curriculum.probabilities())) == 2
    assert curriculum.probabilities()[2] > 0.6


def test_plr_matches_the_paper_s_distribution_by_hand():
    plr = PrioritisedLevelReplay(tasks=[{"x": i} for i in range(3)], temperature=0.5, staleness=0.25)
    for i, score in enumerate([1.0, 3.0, 2.0]):
        plr.update({"x": i}, played(score=score))
    by_score = np.array([1 / 9, 1.0, 1 / 4]) / (1 / 9 + 1 + 1 / 4)  # ranks 3, 1, 2; (1 / rank)^2
    by_staleness = np.array([2, 1, 0]) / 3
    np.testing.assert_allclose(plr.weights(), 0.75 * by_score + 0.25 * by_staleness)


def test_plr_plays_every_level_of_a_list_before_replaying_only():
    plr = PrioritisedLevelReplay(tasks=[{"x": i} for i in range(6)], replay=0.0)
    r = rng()
    seen = []
    for _ in range(6):
        task = plr.sample(r)
        seen.append(task["x"])
        plr.update(task, played(score=1.0))
    assert sorted(seen) == list(range(6))


def test_levels_of_a_space_keep_the_wanted_ones():
    curriculum = Learnability(space={"x": {"uniform": [0, 1]}}, levels=10, explore=0.5, window=20)
    r = rng()
    for _ in range(3000):
        task = curriculum.sample(r)
        curriculum.update(task, played(success=float(0.4 < task["x"] < 0.6 and r.random() < 0.5)))
    assert len(curriculum.levels) == 10
    kept = [level.task["x"] for level in curriculum.levels if level.plays > 20]
    assert kept
    assert all(0.4 < x < 0.6 for x in kept)


def test_the_mixture_finds_two_clusters():
    r = rng()
    points = np.concatenate([r.normal([0, 0], 0.1, (100, 2)), r.normal([3, 1], 0.2, (50, 2))])
    mixture = fit(points, 2, r)
    order = np.argsort(mixture.means[:, 0])
    np.testing.assert_allclose(mixture.means[order], [[0, 0], [3, 1]], atol=0.1)
    np.testing.assert_allclose(mixture.weights[order], [2 / 3, 1 / 3], atol=0.02)
    assert best_of(points, range(1, 5), r).aic <= mixture.aic < fit(points, 1, r).aic


def test_the_likelihood_of_one_gaussian_is_the_closed_form():
    points = rng().normal(2.0, 3.0, (500, 1))
    mixture = fit(points, 1, rng())
    variance = points.var() + 1e-6
    expected = -0.5 * 500 * np.log(2 * np.pi * variance) - ((points - points.mean()) ** 2).sum() / (
        2 * variance
    )
    assert mixture.log_likelihood == pytest.approx(expected, rel=1e-6)
    assert mixture.aic == pytest.approx(2 * 2 - 2 * expected, rel=1e-6)


def test_alp_gmm_goes_where_returns_change():
    curriculum = ALPGMM({"x": {"uniform": [0, 1]}}, history=150, refit=25, components=5)
    r = rng()
    late = []
    for i in range(1500):
        task = curriculum.sample(r)
        learning = 0.6 < task["x"] < 0.8
        curriculum.update(task, played(float(r.random() < 0.5) * 10 if learning else 0.0))
        if i > 800:
            late.append(learning)
    assert np.mean(late) > 0.5  # 0.2 of the space, and a fifth of all episodes is uniform


def test_self_play_elo_and_sampling():
    pool = SelfPlay("main", "b", pool=["p0", "p1"], sampling="prioritised")
    for i, slot in enumerate(pool.slots):
        slot.born = i
    for _ in range(30):
        pool.update({"opponent": "p0"}, played(returns={"main": 1.0, "p0": -1.0}))
        pool.update({"opponent": "p1"}, played(returns={"main": -1.0, "p1": 1.0}))
    assert pool.slots[0].elo < 900 < 1100 < pool.slots[1].elo
    assert sum(slot.elo for slot in pool.slots) + pool.elo == pytest.approx(3000)
    r = rng()
    assert np.mean([pool.sample(r)["opponent"] == "p1" for _ in range(300)]) > 0.95
    assert pool.metrics()["win_rate"] == {"p0": 1.0, "p1": 0.0}


# what a recipe may say


def problems(**section: object) -> dict:
    return {".".join(map(str, path)): message for path, message in validate(section)}


def test_every_shipped_form_is_accepted():
    assert not problems(lessons=LESSONS)
    assert not problems(type="random", space=SPACE)
    assert not problems(type="annealing", start={"x": 1}, end={"x": 2}, over=10)
    assert not problems(
        type="expanding_box", start={"x": {"uniform": [1, 2]}}, space={"x": {"uniform": [0, 3]}}
    )
    assert not problems(type="learning_progress", tasks=[{"x": 1}], success={"info": "won"})
    assert not problems(type="plr", space=SPACE, task={"via": "set_task", "key": "x"})
    assert not problems(type="alp_gmm", space=SPACE, evaluate_on="final")
    assert not problems(type="self_play", policy="main", opponents=["b"], snapshot={"win_rate": 0.6})


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ({"lessons": []}, "lessons", "the list is empty"),
        ({"type": "lesons", "lessons": LESSONS}, "type", "did you mean 'lessons'"),
        (
            {"lessons": [*LESSONS[:2], {**LESSONS[2], "until": LESSONS[0]["until"]}]},
            "lessons.2.until",
            "is the last one",
        ),
        ({"lessons": [{"name": "a", "task": {}}, LESSONS[2]]}, "lessons.0", "no `until`"),
        (
            {"lessons": [LESSONS[0], {**LESSONS[2], "name": "a"}]},
            "lessons.1.name",
            "has the name 'a' already",
        ),
        (
            {"lessons": [{**LESSONS[2], "back": LESSONS[1]["back"]}]},
            "lessons.0.back",
            "nothing to go back to",
        ),
        ({"lessons": [{"name": "a", "task": {"x": {"uniform": [2, 1]}}}]}, "lessons.0.task.x", "lo 2 > hi 1"),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "retrun", "threshold": 1}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "did you mean 'return'",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "episode_return", "threshold": 1}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "use measure: return",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "success", "threshold": 80}}, LESSONS[2]]},
            "lessons.0.until",
            "share in [0, 1]",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "progress", "threshold": 0.5}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "total_steps",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "return", "treshold": 1}}, LESSONS[2]]},
            "lessons.0.until.treshold",
            "did you mean 'threshold'",
        ),
        ({"lessons": LESSONS, "task": {"via": "atribute"}}, "task.via", "did you mean 'attribute'"),
        ({"lessons": LESSONS, "task": {"method": "go"}}, "task.method", "belongs to via: set_task"),
        ({"lessons": LESSONS, "evaluate_on": "last"}, "evaluate_on", "expected one of current, final, each"),
        ({"lessons": LESSONS, "seed": "1"}, "seed", "valid integer"),
        ({"type": "random", "space": {}}, "space", "at least 1"),
        ({"type": "plr"}, "", "one of `tasks`"),
        ({"type": "learning_progress", "tasks": []}, "tasks", "the list is empty"),
        ({"type": "annealing", "start": {"x": 1}, "end": {"y": 1}, "over": 5}, "end", "start has ['x']"),
        (
            {
                "type": "expanding_box",
                "start": {"x": {"uniform": [0, 9]}},
                "space": {"x": {"uniform": [0, 3]}},
            },
            "start.x",
            "not inside the space",
        ),
        (
            {"type": "self_play", "policy": "a", "opponents": "b", "snapshot": {"episodes": 3}},
            "snapshot",
            "one of",
        ),
    ],
)
def test_bad_sections_are_reported_with_their_path(section, path, message):
    found = problems(**section)
    assert path in found, found
    assert message in found[path]


def test_the_schema_imports_neither_ray_nor_torch_nor_numpy():
    code = (
        "import sys; from rlkit.curriculum import validate; validate({'lessons': []});"
        "print([m for m in ('ray', 'torch', 'numpy', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_draw_is_reproducible():
    task = parse_task({"x": {"uniform": [0, 1]}, "y": {"gaussian": [0, 1]}})
    assert draw(task, rng(5)) == draw(task, rng(5))
