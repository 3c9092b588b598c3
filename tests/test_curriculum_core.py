"""Samplers, lessons and the driver of curricula, without RLlib. No Ray, no torch."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
from curriculum_samples import LESSONS, played, rng

from rlkit.curriculum import Lessons
from rlkit.curriculum.base import Clock, EpisodeReport, Outcome
from rlkit.curriculum.driver import Decider
from rlkit.curriculum.levels import LearningProgress
from rlkit.curriculum.samplers import corner_tasks, draw, parse, parse_task

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


def test_draw_is_reproducible():
    task = parse_task({"x": {"uniform": [0, 1]}, "y": {"gaussian": [0, 1]}})
    assert draw(task, rng(5)) == draw(task, rng(5))


# lessons


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


def report(decider: Decider, order: int, value: float, **overrides: object) -> EpisodeReport:
    fields = {
        "life": decider.life,
        "stage": decider.curriculum.stage,
        "order": (1, 0, 0, order),
        "task": {"x": 1},
        "outcome": played(value),
    }
    return EpisodeReport(**{**fields, **overrides})  # type: ignore[arg-type]


def test_numbers_of_another_measure_say_nothing_of_a_changed_condition():
    def made(until):
        return Lessons([{"name": "a", "until": until}, {"name": "b"}])

    first = made({"measure": "return", "threshold": 400, "min_episodes": 20, "smoothing": 20})
    for _ in range(20):
        first.update(first.sample(rng()), played(50.0))
    second = made({"measure": "success", "threshold": 0.8, "min_episodes": 20, "smoothing": 20})
    second.state = copy.deepcopy(first.state)
    second.advance(Clock(0))
    assert second.lesson.name == "a"
    third = made({"measure": "return", "threshold": 40, "min_episodes": 20, "smoothing": None})
    third.state = copy.deepcopy(first.state)
    third.advance(Clock(0))
    assert third.lesson.name == "b"


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
