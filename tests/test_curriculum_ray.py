"""Curricula in whole algorithms: deciding, saving, restarting, the training function, self-play."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from coin_race import CoinRace
from curriculum_envs import MultiProbe, Probe
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rlkit.algos import SACConfig
from rlkit.curriculum import active, configure, train_phases
from rlkit.curriculum.scores import td_errors
from rlkit.curriculum.transfer import hand_over
from rlkit.errors import EnvError, RunFailed

pytestmark = pytest.mark.usefixtures("ray_local")

LESSONS: list[dict[str, Any]] = [
    {"name": "one", "task": {"level": 1}, "until": {"measure": "return", "threshold": 3, "min_episodes": 30}},
    {"name": "two", "task": {"level": 2}, "until": {"measure": "return", "threshold": 3, "min_episodes": 50}},
    {"name": "three", "task": {"level": {"uniform": [3, 4]}}},
]


register_env("coin-race", lambda config: CoinRace(**config))


def ppo(env: Any = Probe, runners: int = 0, batch: int = 60, **section: Any) -> Any:
    config = (
        PPOConfig()
        .environment(
            "coin-race" if env is CoinRace else env, env_config={"length": 3} if env is Probe else {}
        )
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=2, rollout_fragment_length="auto")
        .training(train_batch_size_per_learner=batch, minibatch_size=batch, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [4]})
        .debugging(seed=0)
    )
    if env in (MultiProbe, CoinRace):
        config.multi_agent(
            policies={"main"}, policy_mapping_fn=lambda *_, **__: "main", policies_to_train=["main"]
        )
    if section:
        configure(config, section)
    return config


@pytest.fixture
def stopped() -> Iterator[list[Any]]:
    """Algorithms put in here are stopped at the end."""
    algorithms: list[Any] = []
    yield algorithms
    for algorithm in algorithms:
        algorithm.stop()


def played_now(algorithm: Any) -> list[tuple[float, float]]:
    """(level in the environment, level of its task) of every sub-environment, asked on the runners."""

    def ask(runner: Any) -> list[tuple[float, float]]:
        callback = runner._callbacks[-1]
        if runner.env is None:
            return []
        return [
            (float(env.unwrapped.level), float(callback._playing[i].task["level"]))
            for i, env in enumerate(runner.env.unwrapped.envs)
        ]

    return [pair for pairs in algorithm.env_runner_group.foreach_env_runner(ask) for pair in pairs]


def test_lessons_go_on_are_reported_saved_and_taken_up_again(tmp_path, stopped):
    algorithm = ppo(lessons=LESSONS).build_algo()
    results = [algorithm.train() for _ in range(4)]
    # 20 episodes per iteration: lesson one takes two (30 episodes), lesson two three (50)
    assert [r["curriculum"]["lesson"] for r in results] == [0, 0, 1, 1]
    assert results[3]["curriculum"]["lesson_episodes"] >= 38
    assert all("curriculum_reports" not in r["env_runners"] for r in results)
    assert results[2]["curriculum"]["return"] == {"two": 3.0}
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()

    resumed = Algorithm.from_checkpoint(path)
    stopped.append(resumed)
    assert active(resumed).curriculum.lesson.name == "two"
    result = resumed.train()
    assert (result["curriculum"]["lesson_name"], result["curriculum"]["measure"]) == ("two", 3.0)
    assert active(resumed).curriculum.lesson.name == "three"
    assert [h["to"] for h in active(resumed).curriculum.history] == ["two", "three"]
    levels = resumed.train()["curriculum"]
    assert levels["lesson"] == 2
    assert 3 <= levels["task_min"]["level"] < levels["task_max"]["level"] <= 4
    assert all(seen == wanted and 3 <= seen <= 4 for seen, wanted in played_now(resumed))


def kill_a_runner(algorithm: Any, index: int) -> None:
    """End the process of a remote runner; Ray starts another in its place."""
    actor = algorithm.env_runner_group._worker_manager.actors()[index]
    ray.kill(actor, no_restart=False)


def train_until_restored(algorithm: Any, restarts: int, most: int = 200) -> list[dict]:
    results = []
    for _ in range(most):
        results.append(algorithm.train())
        if (
            algorithm.env_runner_group.num_remote_worker_restarts() >= restarts
            and len(played_now(algorithm)) == 4
        ):
            return results
        time.sleep(0.1)  # the iterations of this toy are shorter than the start of a process
    raise AssertionError("the runner did not come back")


def check_levels(algorithm: Any, expected: set[float]) -> None:
    pairs = played_now(algorithm)
    assert len(pairs) == 4
    assert all(seen == wanted for seen, wanted in pairs)
    assert {wanted for _, wanted in pairs} == expected


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_runner_killed_in_the_middle_of_a_lesson_comes_back_in_that_lesson(rounds, stopped):
    lessons = [
        {**LESSONS[0], "until": {"measure": "steps", "threshold": 60}},
        {"name": "two", "task": {"level": 2}},
    ]
    algorithm = ppo(runners=2, lessons=lessons).build_algo()
    stopped.append(algorithm)
    algorithm.train()
    algorithm.train()
    for i in range(rounds):
        kill_a_runner(algorithm, 1 + i % 2)
        results = train_until_restored(algorithm, restarts=i + 1)
        algorithm.train()
        check_levels(algorithm, {2.0})
        assert {r["curriculum"]["task"]["level"] for r in results if r["curriculum"]["episodes"]} == {2.0}
        assert all(r["curriculum"]["ignored"] == 0 for r in results[1:])
    assert active(algorithm).decider.births == rounds


KILLED = """
name: killed
algorithm: PPO
env: grid_world
env_config: {size: 9, max_steps: 4}
seed: 0
config:
  training: {train_batch_size_per_learner: 200, minibatch_size: 200, num_epochs: 1}
  env_runners: {num_env_runners: 1, num_envs_per_env_runner: 4}
  reporting: {min_time_s_per_iteration: 0.3}
model: {fcnet_hiddens: [4]}
curriculum:
  lessons:
LESSONS
    - {name: last, task: {distance: 12}}
stop: {iterations: 400}
checkpoint: {every: 1, keep: 3}
"""


@pytest.mark.slow
def test_a_run_killed_ten_times_goes_on_in_the_lesson_it_was_in(tmp_path):
    lessons = [
        f"    - {{name: l{d}, task: {{distance: {d}}}, until: {{measure: steps, threshold: 4000}}}}"
        for d in range(1, 12)
    ]
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(KILLED.replace("LESSONS", "\n".join(lessons)))
    rlkit = [sys.executable, "-m", "rlkit", "train"]
    command = [*rlkit, str(recipe), "--out", str(tmp_path / "runs"), "--quiet"]
    seen = 0
    for _ in range(11):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and len(rows_of(tmp_path)) < seen + 5:
            time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = len(rows_of(tmp_path))
        command = [*rlkit, "--resume", str(next((tmp_path / "runs" / "killed").iterdir())), "--quiet"]
    rows = rows_of(tmp_path)
    assert len(rows) > 40
    lessons_played = [int(float(row["curriculum/lesson"])) for row in rows]
    assert lessons_played == sorted(lessons_played)
    assert lessons_played[-1] >= 3
    for row, lesson, before in zip(rows, lessons_played, [0, *lessons_played], strict=False):
        assert float(row["curriculum/task/distance"]) == lesson + 1
        assert not row.get("curriculum/task_min/distance")
        if lesson == before:  # also right after a restart: no episode was begun in another lesson
            assert float(row["curriculum/ignored"]) == 0


def rows_of(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("runs/killed/*/metrics.csv"))
    if not files:
        return []
    with open(files[0], newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("curriculum/lesson")]


def test_going_back_to_an_older_checkpoint_in_the_same_process(tmp_path, stopped):
    algorithm = ppo(lessons=LESSONS).build_algo()
    stopped.append(algorithm)
    algorithm.train()
    path = algorithm.save_to_path(tmp_path / "early")
    for _ in range(5):
        algorithm.train()
    assert active(algorithm).curriculum.lesson.name == "three"
    algorithm.restore_from_path(path)
    assert active(algorithm).curriculum.lesson.name == "one"
    result = algorithm.train()
    # Episodes of lesson three that were under way when the state was rolled back do not count for lesson one.
    assert result["curriculum"]["task"]["level"] == 1.0
    assert 36 <= result["curriculum"]["lesson_episodes"] <= 40


def test_evaluation_with_and_without_its_own_runners(stopped):
    section = {"lessons": LESSONS, "evaluate_on": "each"}
    config = ppo(**section).evaluation(
        evaluation_interval=1, evaluation_duration=6, evaluation_num_env_runners=0
    )
    algorithm = config.build_algo()
    stopped.append(algorithm)
    result = algorithm.train()
    assert result["curriculum"]["eval"] == {"one": 3.0, "two": 3.0, "three": 3.0}
    assert result["curriculum"]["task"] == {"level": 1.0}

    alone = ppo(**section).build_algo()
    stopped.append(alone)
    alone.train()
    alone.evaluate()
    assert active(alone).curriculum.metrics()["lesson_episodes"] <= 20
    result = alone.train()
    assert result["curriculum"]["task"] == {"level": 1.0}
    assert result["curriculum"]["eval"] == {"one": 3.0, "two": 3.0, "three": 3.0}


def test_same_seed_same_tasks(stopped):
    def tasks() -> list[dict]:
        algorithm = ppo(type="random", space={"level": {"uniform": [0, 9]}}).build_algo()
        stopped.append(algorithm)
        return [algorithm.train()["curriculum"]["task"] for _ in range(3)]

    assert tasks() == tasks()


def test_off_policy_algorithms_report_the_same(stopped):
    config = (
        DQNConfig()
        .environment(Probe)
        .env_runners(num_envs_per_env_runner=2)
        .training(num_steps_sampled_before_learning_starts=10_000)
        .reporting(min_sample_timesteps_per_iteration=60)
    )
    configure(config, {"lessons": LESSONS})
    algorithm = config.build_algo()
    stopped.append(algorithm)
    results = [algorithm.train()["curriculum"] for _ in range(3)]
    assert [r["lesson"] for r in results] == [0, 0, 1]
    assert results[2]["return"] == {"two": 3.0}


# the training function


def boundaries(results: list[dict]) -> list[int]:
    lessons = [r["curriculum"]["lesson"] for r in results]
    pairs = zip(results, lessons[:-1], lessons[1:], strict=False)
    return [int(r["num_env_steps_sampled_lifetime"]) for r, a, b in pairs if a != b]


def test_the_training_function_ends_lessons_where_the_callback_does(stopped):
    algorithm = ppo(lessons=LESSONS).build_algo()
    stopped.append(algorithm)
    callback = [algorithm.train() for _ in range(7)]
    phases = list(train_phases(ppo(), {"type": "lessons", "lessons": LESSONS}, stop={"iterations": 7}))
    assert boundaries(phases) == boundaries(callback)
    assert len(boundaries(phases)) == 2
    assert [r["training_iteration"] for r in phases] == list(range(1, 8))


@pytest.mark.parametrize("carry", [True, False])
def test_phases_carry_what_they_are_told(carry):
    def weights(algorithm: Any) -> np.ndarray:
        state = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"]
        return np.concatenate([np.ravel(x) for x in state["default_policy"].values()])

    def moments(algorithm: Any) -> int:
        learner = algorithm.learner_group._learner
        return sum(len(o.state) for o in learner._named_optimizers.values())

    before: list[np.ndarray] = []
    phases: list[tuple[str, np.ndarray, int, float]] = []
    lessons = [{**LESSONS[0], "config": {"training": {"lr": 1e-2}}}, {"name": "two", "task": {"level": 2}}]
    current: list[Any] = []
    run = train_phases(
        ppo(),
        {"lessons": lessons, "carry": {"weights": carry, "optimizer": carry}},
        stop={"iterations": 3},
        on_phase=lambda a, lesson: (
            current.append(a),
            phases.append((lesson.name, weights(a), moments(a), a.config.lr)),
        ),
    )
    for result in run:
        if result["training_iteration"] == 1:
            before.append(weights(current[0]))
    (first, start, _, lr), (second, taken_up, kept, other_lr) = phases
    assert (first, second) == ("one", "two")
    assert (lr, other_lr) == (1e-2, PPOConfig().lr)
    assert not np.array_equal(start, before[0])
    assert (kept > 0) is carry
    # The same seed builds the same initial weights, so what was not carried is the start again.
    assert np.array_equal(taken_up, start) is not carry


def test_phases_carry_the_temperature_and_take_their_own_rate(ray_local: None) -> None:
    def of(rate: float) -> Any:
        config = SACConfig().environment("Pendulum-v1").env_runners(num_env_runners=0)
        return config.training(actor_lr=rate, critic_lr=rate, alpha_lr=rate).build_algo()

    old, new = of(1e-2), of(1e-4)
    learner, other = old.learner_group._learner, new.learner_group._learner
    with torch.no_grad():
        learner.curr_log_alpha["default_policy"].fill_(-3.0)
    hand_over(old, new)
    assert float(other.curr_log_alpha["default_policy"]) == -3.0
    rates = {group["lr"] for o in other._named_optimizers.values() for group in o.param_groups}
    assert rates == {1e-4}
    hand_over(old, of(1e-4), weights=False)
    for algorithm in (old, new):
        algorithm.stop()


def test_phases_name_a_wrong_setting_before_they_start():
    lessons = [LESSONS[0], {"name": "two", "task": {}, "config": {"training": {"learning_rat": 1}}}]
    with pytest.raises(ValueError, match=r"lesson 'two': config.training: .*learning_rat"):
        next(iter(train_phases(ppo(), {"lessons": lessons}, stop={"iterations": 1})))


def test_the_callback_forgets_the_optimiser_when_told(stopped):
    algorithm = ppo(lessons=LESSONS, carry={"optimizer": False}).build_algo()
    stopped.append(algorithm)
    learner = algorithm.learner_group._learner

    def moments() -> int:
        return sum(len(o.state) for o in learner._named_optimizers.values())

    algorithm.train()
    assert moments() > 0
    algorithm.train()
    assert active(algorithm).curriculum.lesson.name == "two"
    assert moments() == 0


# errors


def test_a_rejected_task_ends_the_build_with_its_name():
    lessons = [{"name": "low", "task": {"level": -1}}]
    with pytest.raises(
        RunFailed, match=r"lesson 'low': the environment rejects the task \{'level': -1\}"
    ) as caught:
        ppo(lessons=lessons, task={"via": "set_task"}).build_algo()
    assert isinstance(caught.value.__cause__, EnvError)


def test_a_task_rejected_on_a_remote_runner_ends_the_run(stopped):
    section = {
        "type": "random",
        "space": {"level": {"choice": [-1]}},
        "task": {"via": "set_task"},
        "check": False,
    }
    algorithm = ppo(runners=1, **section).build_algo()
    stopped.append(algorithm)
    with pytest.raises(RunFailed, match=r"rejects task \{'level': -1\}.*level must be >= 0"):
        [algorithm.train() for _ in range(3)]


# scores and self-play


def test_td_errors_are_taken_back_out_of_gae():
    gamma, lambda_, errors = 0.9, 0.8, np.array([1.0, -2.0, 0.5])
    advantages = np.zeros(3)
    running = 0.0
    for t in (2, 1, 0):
        running = errors[t] + gamma * lambda_ * running
        advantages[t] = running
    np.testing.assert_allclose(td_errors(advantages, gamma, lambda_), errors)


@pytest.mark.parametrize("score", ["value_loss", "td"])
def test_plr_scores_are_the_critic_s_errors(score, stopped):
    tasks = [{"length": 2}, {"length": 9}]
    algorithm = ppo(type="plr", tasks=tasks, score=score, staleness=0.0, temperature=1.0).build_algo()
    stopped.append(algorithm)
    results = [algorithm.train()["curriculum"] for _ in range(3)]
    # A critic at its start says about 0: the error is the return to go, larger where episodes are longer.
    # One-step errors are the reward of 1, wherever.
    scores = results[0]["score"]
    if score == "value_loss":
        assert scores["length=9"] > 2 * scores["length=2"] > 0
    else:
        assert all(0.3 < x < 2 for x in scores.values())
    assert sum(results[-1]["probability"].values()) == pytest.approx(1.0)


def test_plr_needs_a_critic():
    config = DQNConfig().environment(Probe)
    configure(config, {"type": "plr", "tasks": [{"level": 1}]})
    with pytest.raises(RunFailed, match="critic of an algorithm with GAE"):
        config.build_algo()


def test_self_play_keeps_a_pool_of_past_policies(tmp_path, stopped):
    section = {
        "type": "self_play", "policy": "main", "opponents": "player_1", "pool": 2,
        "snapshot": {"iterations": 2}, "swap": True,
    }  # fmt: skip
    algorithm = ppo(CoinRace, batch=200, **section).training(lr=0.01).build_algo()

    def weights(algorithm: Any, module: str) -> tuple[float, float]:
        learner = algorithm.learner_group._learner.module[module]
        runner = algorithm.env_runner.module[module]
        parts = [k for k, _ in runner.named_parameters()]
        state = dict(learner.named_parameters())
        return (
            float(sum(state[k].detach().abs().sum() for k in parts)),
            float(sum(p.detach().abs().sum() for p in runner.parameters())),
        )

    start = weights(algorithm, "main_past_0")
    assert start[0] == pytest.approx(weights(algorithm, "main")[0])
    results = [algorithm.train()["curriculum"] for _ in range(3)]
    assert [r["snapshots"] for r in results] == [1, 1, 2]
    assert set(results[-1]["pool_elo"]) == {"main_past_0", "main_past_1"}
    assert weights(algorithm, "main_past_0") == start  # frozen
    second = weights(algorithm, "main_past_1")
    assert second[0] == pytest.approx(second[1])
    assert second[0] != pytest.approx(start[0])
    path = algorithm.save_to_path(tmp_path / "pool")
    elo = active(algorithm).curriculum.elo
    algorithm.stop()

    resumed = Algorithm.from_checkpoint(path)
    stopped.append(resumed)
    assert active(resumed).curriculum.elo == elo
    assert weights(resumed, "main_past_0") == pytest.approx(start)
    assert weights(resumed, "main_past_1") == pytest.approx(second)
    assert resumed.train()["curriculum"]["snapshots"] == 2


def test_an_evaluation_of_rllib_s_reports_the_trained_side_of_self_play(stopped):
    section = {
        "type": "self_play", "policy": "main", "opponents": "player_1", "pool": 1, "evaluate_on": "each",
    }  # fmt: skip
    config = ppo(CoinRace, batch=100, **section).evaluation(
        evaluation_interval=1, evaluation_duration=25, evaluation_num_env_runners=0
    )
    algorithm = config.build_algo()
    stopped.append(algorithm)
    mean = algorithm.train()["curriculum"]["eval"]["main_past_0"]
    paid = active(algorithm).evaluation_returns["main_past_0"]
    assert len(paid) == 25
    assert mean == pytest.approx(sum(paid) / 25)
    assert set(paid) > {0.0}, "won or lost, not the sum of both sides"
