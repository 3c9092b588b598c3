"""The automatic curricula, without RLlib. No Ray, no torch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from curriculum_samples import LESSONS, SPACE, played, rng

from rlkit.curriculum import Lessons
from rlkit.curriculum.alp_gmm import ALPGMM
from rlkit.curriculum.base import Clock, Curriculum, Outcome
from rlkit.curriculum.gmm import best_of, fit
from rlkit.curriculum.levels import Learnability, LearningProgress
from rlkit.curriculum.plr import PrioritisedLevelReplay
from rlkit.curriculum.randomise import Annealing, DomainRandomisation, ExpandingBox
from rlkit.curriculum.self_play import SelfPlay

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


def test_a_pool_of_past_policies_is_spread_over_the_run():
    pool = SelfPlay("main", "b", pool=4)
    for number in range(50):
        pool.snapshots = number
        pool._slot_to_fill().born = number
    born = sorted(slot.born for slot in pool.slots)
    assert (born[0], born[-1]) == (0, 49)
    assert max(np.diff(born)) < 0.6 * 49  # [0, 2, 48, 49] has a hole of 46


def test_tasks_whose_short_names_are_alike_stay_apart():
    levels = LearningProgress(tasks=[{"x": 1.0000001}, {"x": 1.0000002}]).levels
    assert [level.task["x"] for level in levels] == [1.0000001, 1.0000002]


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


def test_a_level_s_value_may_be_a_list_of_lists():
    maps = [{"map": [[0, 1], [1, 0]]}, {"map": [[1, 1], [0, 0]]}]
    levels = LearningProgress(tasks={"a": maps[0], "b": maps[1]})
    assert [levels.label(task) for task in maps] == ["a", "b"]
