"""Remote env runners that raise, die or say nothing: one message, a limit, or a restart that is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import case_envs
import pytest

import rlkit
from rlkit.errors import EnvRunnerError, RlkitError, RunFailed
from rlkit.launch.tracking import root_cause
from rlkit.launch.trial import NAMES, trainable
from rlkit.runs import manifest

pytestmark = pytest.mark.usefixtures("ray_local")


def recipe(
    algorithm: str = "PPO", iterations: int = 2, tolerate: bool = False, **env_config: Any
) -> dict[str, Any]:
    training: dict[str, Any] = {"train_batch_size": 20, "minibatch_size": 20, "num_epochs": 1}
    config: dict[str, Any] = {"env_runners": {"num_env_runners": 1, "rollout_fragment_length": 10}}
    if algorithm == "DQN":
        training = {"train_batch_size": 8, "num_steps_sampled_before_learning_starts": 10}
        config["reporting"] = {"min_sample_timesteps_per_iteration": 20}
    if tolerate:
        config["fault_tolerance"] = {"restart_failed_env_runners": True}
    return {
        "name": "faults", "algorithm": algorithm, "env": "case_fails", "env_config": env_config, "seed": 0,
        "config": {"training": training, **config}, "model": {"name": "mlp", "hiddens": [8]},
        "stop": {"iterations": iterations},
    }  # fmt: skip


def trial(given: dict[str, Any]) -> Any:
    """The trial of a recipe, without Tune: `train()` is one iteration."""
    from rlkit import registry

    registry.begin(["case_envs"])
    algorithm = registry.resolve("algorithms", given["algorithm"])().algo_class
    return trainable(algorithm)({**given, NAMES: registry.names()})


def chain(error: BaseException) -> str:
    return f"{error}" + (chain(error.__cause__) if error.__cause__ is not None else "")


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_an_exception_of_a_remote_environment_ends_the_run_with_its_traceback(algorithm: str) -> None:
    own = trial(recipe(algorithm))
    try:
        with pytest.raises(
            EnvRunnerError, match=r"env runner 1: EnvError: .*ValueError: boom in my environment"
        ) as caught:
            own.train()
    finally:
        own.stop()
    assert "case_envs.py" in chain(caught.value)
    assert 'raise ValueError("boom in my environment")' in chain(caught.value)


def test_a_remote_environment_that_blocks_ends_the_run_with_the_line_it_is_in() -> None:
    own = trial({**recipe(how="block"), "env_timeout_s": 1})
    try:
        with pytest.raises(
            EnvRunnerError, match=r"env runner 1: .*Fails: step\(\).* has not returned for 1 s"
        ) as caught:
            own.train()
    finally:
        own.stop()
    assert "(fail: time.sleep(10_000))" in str(caught.value)
    assert "in step" in chain(caught.value), "the traceback leads from the runner into the environment"


@pytest.mark.parametrize("runners", [0, 1])
def test_several_agents_whose_environment_always_raises_show_what_it_raised(runners: int) -> None:
    given = {**recipe(), "env": "case_two_fail"}
    given["config"]["env_runners"]["num_env_runners"] = runners
    own = trial(given)
    try:
        with pytest.raises(
            RlkitError, match=r"reset\(\) of episode 1 raised ValueError: boom in the reset of two"
        ):
            own.train()
    finally:
        own.stop()


def test_a_run_shows_the_reason_once_and_fails(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        rlkit.train(recipe("DQN", how="nan"), out=tmp_path, imports=["case_envs"])
    assert str(caught.value).count("got nan at index 0") == 1
    assert "env runner 1: EnvError" in str(caught.value)
    text = next(tmp_path.glob("*/*/trial_*/error.txt")).read_text()
    assert root_cause(text).startswith("EnvRunnerError: env runner 1")


def with_remote_learner() -> Any:
    """A trial of DQN that learns in a process of its own."""
    given = {**recipe("DQN"), "env": "CartPole-v1"}
    given["config"]["learners"] = {"num_learners": 1}
    given["config"]["env_runners"]["num_env_runners"] = 0
    return trial(given)


def _die_in_a_save(learner: Any) -> None:
    learner.save_to_path = lambda *args, **kwargs: os._exit(1)


def test_a_checkpoint_without_the_learners_state_is_not_finished(tmp_path: Path) -> None:
    """RLlib drops the error of a learner that dies while it saves."""
    own = with_remote_learner()
    try:
        own.train()
        own.learner_group.foreach_learner(_die_in_a_save)
        with pytest.raises(RunFailed, match="1 of 1 learners ended without an exception"):
            own.save_checkpoint(str(tmp_path))
    finally:
        own.stop()
    assert (tmp_path / "rllib_checkpoint.json").exists()
    assert not (tmp_path / manifest.NAME).exists()


def _fail(learner: Any) -> None:
    raise ValueError("no such weights")


def test_a_learner_that_is_gone_is_named() -> None:
    own = with_remote_learner()
    try:
        own.train()
        (answer,) = own.learner_group.foreach_learner(lambda learner: os.getpid())
        own.learner_group.foreach_learner(_fail)  # as in a restore, whose errors RLlib drops
        with pytest.raises(RunFailed, match="1 of 1 learners failed: ValueError: no such weights"):
            own._check_learners()
        own.learner_group._worker_manager.set_actor_state(0, healthy=True)
        os.kill(answer.get(), signal.SIGKILL)
        for _ in range(2):  # whoever asks first, and whoever finds nobody to ask
            with pytest.raises(RunFailed, match="1 of 1 learners ended without an exception"):
                own.train()
    finally:
        own.stop()


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_a_process_that_ends_without_an_exception_is_started_again(tmp_path: Path, how: str) -> None:
    own = trial(recipe(how=how, once=str(tmp_path / "once")))
    try:
        results = [own.train() for _ in range(2)]
    finally:
        own.stop()
    assert [r["env_runners"]["num_env_steps_sampled"] >= 20 for r in results] == [True, True]
    assert [r["env_runner_restarts"] for r in results] == [1, 1]
    assert results[0]["env_runner_failures"] == [
        "env runner 1 failed and is started again: its process ended"
    ]
    assert "env_runner_failures" not in results[1]


def test_an_exception_is_survived_where_that_was_asked_for(tmp_path: Path) -> None:
    own = trial(recipe(tolerate=True, once=str(tmp_path / "once")))
    try:
        result = own.train()
    finally:
        own.stop()
    assert result["env_runners"]["num_env_steps_sampled"] >= 20
    assert result["env_runner_restarts"] == 1
    assert "ValueError: boom in my environment" in result["env_runner_failures"][0]


def with_runners(runners: int, **given: Any) -> dict[str, Any]:
    made = recipe(**given)
    made["config"]["env_runners"]["num_env_runners"] = runners
    return made


@pytest.mark.parametrize("runners", [0, 1])
def test_memory_that_runs_out_is_an_error_with_its_step(runners: int) -> None:
    own = trial(with_runners(runners, how="memory"))
    try:
        with pytest.raises(
            RlkitError, match=r"step 3 of episode 1 raised \w*MemoryError: Unable to allocate"
        ):
            own.train()
    finally:
        own.stop()


@pytest.mark.parametrize("runners", [0, 1])
def test_a_child_process_of_an_environment_does_not_hold_the_run_up(runners: int) -> None:
    own = trial(with_runners(runners, how="fork", number=case_envs.Fails.taken + 3 if not runners else 3))
    started = time.monotonic()
    try:
        results = [own.train() for _ in range(2)]
    finally:
        own.stop()
    assert all(result["env_runners"]["num_env_steps_sampled"] >= 20 for result in results)
    assert not any(result.get("env_runner_restarts") for result in results)
    assert time.monotonic() - started < 60


def command(folder: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Call `rlkit train --json` as a user does, with a Ray of its own."""
    (folder / "faults.yaml").write_text(json.dumps(given))
    words = ["train", "faults.yaml", "--json", "--import", "case_envs", "--out", "runs"]
    return subprocess.run(
        [sys.executable, "-m", "rlkit", *words], cwd=folder, capture_output=True, text=True, timeout=240
    )


def test_what_environments_print_is_not_among_the_results(tmp_path: Path) -> None:
    """The recipe's check makes one in the driver; a remote runner and the evaluation of the trial play others."""
    given = {**with_runners(1, iterations=1, how="print"), "evaluation": {"every": 1, "episodes": 1}}
    done = command(tmp_path, given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    assert "the environment talks in C" in done.stderr


def test_a_worker_that_dies_leaves_json_alone_on_stdout(tmp_path: Path) -> None:
    done = command(tmp_path, with_runners(1, how="segfault", once=str(tmp_path / "once")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    assert "env runner 1 failed and is started again" in done.stderr


def test_a_crash_of_a_local_environment_ends_the_run_with_a_word(tmp_path: Path) -> None:
    done = command(tmp_path, with_runners(0, iterations=1, how="segfault"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "trial_00000 failed: " in done.stderr
    assert "process" in done.stderr.partition("trial_00000 failed: ")[2]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "tolerate"), [("exit", False), ("segfault", False), ("raise", True)])
def test_an_environment_that_never_finishes_a_sample_ends_the_run(how: str, tolerate: bool) -> None:
    own = trial(recipe(how=how, tolerate=tolerate, at="reset"))
    try:
        with pytest.raises(RlkitError, match=r"env runner 1 failed 4 times in a row.* allowed are 3"):
            own.train()
    finally:
        own.stop()


def test_an_iteration_goes_on_until_there_is_an_env_step() -> None:
    given = recipe()
    from rlkit import registry
    from rlkit.launch.build import build
    from rlkit.recipe import Recipe

    registry.begin(["case_envs"])

    config = build(Recipe.from_dict(given))
    assert config.min_sample_timesteps_per_iteration == 1
    assert config.num_consecutive_env_runner_failures_tolerance == 3
    given["config"]["reporting"] = {"min_sample_timesteps_per_iteration": 50}
    given["config"]["fault_tolerance"] = {"num_consecutive_env_runner_failures_tolerance": 7}
    config = build(Recipe.from_dict(given))
    assert config.min_sample_timesteps_per_iteration == 50
    assert config.num_consecutive_env_runner_failures_tolerance == 7
