"""A whole run through tune.run: files, resume, search spaces, failures."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from ray.air.execution._internal.actor_manager import RayActorManager

import rlkit
from rlkit import registry
from rlkit.callbacks import Callback
from rlkit.errors import CheckpointError, RunFailed, UsageError
from rlkit.launch import tracking, tune_run
from rlkit.launch.experiment import Experiment
from rlkit.launch.interrupt import Interrupt, Stopped
from rlkit.launch.train import latest
from rlkit.recipe import Recipe, RecipeError
from rlkit.registry import TABLES, register_env
from rlkit.runs import manifest
from rlkit.runs.run import Best, RunInfo

TINY = {
    "name": "tiny",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "config": {
        "training": {"train_batch_size_per_learner": 128, "minibatch_size": 64, "num_epochs": 1},
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 4},
    },
    "model": {"name": "mlp", "hiddens": [16]},
    "stop": {"iterations": 3},
    "evaluation": {"every": 2, "episodes": 3},
    "checkpoint": {"every": 1, "keep": 2},
}


def without(recipe: dict, *keys: str) -> dict:
    return {key: value for key, value in recipe.items() if key not in keys}


def results_of(run: rlkit.Run) -> list[dict]:
    lines = (run.trials[0].path / "result.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def run(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> rlkit.Run:
    return rlkit.train(TINY, out=tmp_path_factory.mktemp("runs"), command="rlkit train tiny")


def test_the_driver_forgets_results_that_it_has_handled(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    own = RayActorManager.next

    def next_event(self: RayActorManager, timeout: float | None = None) -> bool:
        kept.extend(map(len, self._tracked_actors_to_task_futures.values()))
        return own(self, timeout)

    monkeypatch.setattr(RayActorManager, "next", next_event)
    run = rlkit.train({**without(TINY, "evaluation", "checkpoint"), "stop": {"iterations": 12}}, out=tmp_path)
    assert len(run.metrics) == 12
    assert 1 <= max(kept) <= 2  # Tune alone: one more with each iteration


def test_a_run_leaves_its_recipe_its_versions_and_one_row_per_iteration(run: rlkit.Run) -> None:
    assert run.status == "done"
    assert run.info.command == "rlkit train tiny"
    assert run.info.versions["ray"].startswith("2.60")
    assert run.recipe.env == "CartPole-v1"
    assert list(run.metrics["iteration"]) == [1, 2, 3]
    assert list(run.metrics["env_steps"].diff().dropna() > 0) == [True, True]
    assert run.metrics["eval/episode_return"].notna().tolist() == [False, True, False]
    assert [row["training_iteration"] for row in results_of(run)] == [1, 2, 3]
    assert list(run.trials[0].path.glob("events.out.tfevents.*"))


def scalars(path: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of a file of TensorBoard: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_has_the_tidy_metrics_and_each_evaluation_once(run: rlkit.Run) -> None:
    (file,) = run.trials[0].path.glob("events.out.tfevents.*")
    found, rows = scalars(file), run.metrics
    returns = dict(zip(rows["env_steps"], rows["episode_return"], strict=True))
    assert found["ray/tune/episode_return"] == pytest.approx(returns)
    (evaluated,) = rows["env_steps"][rows["eval/episode_return"].notna()]
    for tag in ("eval/episode_return", "evaluation/env_runners/episode_return_mean"):
        assert list(found[f"ray/tune/{tag}"]) == [evaluated]


def test_the_best_checkpoint_is_the_evaluated_one_and_outlives_newer_ones(run: rlkit.Run) -> None:
    assert run.best_checkpoint is not None
    assert run.best_checkpoint.name == "checkpoint_000002"
    assert run.info.best is not None
    assert run.info.best.metric == "eval/episode_return"
    assert [path.name for path in run.trials[0].checkpoints] == ["checkpoint_000002", "checkpoint_000003"]
    assert not list(run.trials[0].path.glob(".writing_*"))


def test_of_equal_checkpoints_the_newest_is_the_best_one(ray_local: None, tmp_path: Path) -> None:
    recipe = {**TINY, "env_config": {"max_episode_steps": 5}, "stop": {"iterations": 5}}
    found = rlkit.train({**recipe, "evaluation": {"every": 1, "episodes": 2}}, out=tmp_path)
    assert set(found.metrics["eval/episode_return"]) == {5.0}
    assert found.info.best is not None
    assert found.info.best.checkpoint == "trial_00000/checkpoint_000005"
    assert found.best_checkpoint == found.trials[0].best_checkpoint == found.last_checkpoint


def test_of_equal_trials_the_first_is_the_best_one(tmp_path: Path) -> None:
    tracker = tracking.Tracker.__new__(tracking.Tracker)
    tracker.sign = -1.0
    before = Best("a", "a/checkpoint_000001", "loss", 1.0)
    after = {value: Best("b", "b/checkpoint_000002", "loss", value) for value in (0.5, 1.0, 2.0)}
    assert [value for value, entry in after.items() if tracker._takes_over(entry, before)] == [0.5]
    assert tracker._takes_over(Best("a", "a/checkpoint_000003", "loss", 1.0), before)
    assert tracker._takes_over(before, None)


def test_every_checkpoint_verifies_and_reads_back_as_the_plain_algorithm(run: rlkit.Run) -> None:
    from ray.rllib.algorithms.algorithm import Algorithm

    from rlkit.algos.ppo import PPO

    for path in run.trials[0].checkpoints:
        notes = manifest.verify(path)
        assert notes.recipe is not None
        assert notes.recipe["algorithm"] == "PPO"
    algorithm = Algorithm.from_checkpoint(str(run.last_checkpoint))
    assert type(algorithm) is PPO
    assert algorithm.training_iteration == 3 or algorithm.metrics is not None
    algorithm.stop()


def test_files_of_callbacks_lie_in_the_trials_folder(ray_local: None, tmp_path: Path) -> None:
    callbacks = [
        {"name": "EpisodeGif", "every": 1, "max_steps": 3},
        {"name": "Histograms", "every": 1},
        {"name": "BestCheckpoint", "folder": "kept", "metric": "episode_return"},
    ]
    recipe = {**without(TINY, "evaluation", "checkpoint"), "callbacks": callbacks, "stop": {"iterations": 1}}
    trial = rlkit.train(recipe, out=tmp_path).trials[0].path
    assert (trial / "gifs" / "iteration_000001.gif").read_bytes().startswith(b"GIF8")
    assert list((trial / "histograms").glob("events.*"))
    assert (trial / "kept" / "rllib_checkpoint.json").is_file()


def test_two_runs_never_share_a_folder(run: rlkit.Run, tmp_path: Path) -> None:
    from rlkit.runs.run import new_run_folder

    assert len({new_run_folder(tmp_path, "same") for _ in range(3)}) == 3


def test_a_finished_run_goes_on_to_a_new_limit(run: rlkit.Run) -> None:
    with pytest.raises(UsageError, match="finished"):
        rlkit.resume(run.path)
    with pytest.raises(UsageError, match=r"config.training.lr cannot change"):
        rlkit.resume(run.path, ["config.training.lr=1e-3"])
    before = run.metrics
    again = rlkit.resume(run.path, ["stop.iterations=5"])
    assert again.status == "done"
    assert list(again.metrics["iteration"]) == [1, 2, 3, 4, 5]
    assert again.metrics["env_steps"].is_monotonic_increasing
    assert list(again.metrics["env_steps"][:3]) == list(before["env_steps"])
    assert [row["training_iteration"] for row in results_of(again)] == [1, 2, 3, 4, 5]


def test_a_new_limit_stays_where_a_signal_comes_before_it(ray_local: None, tmp_path: Path) -> None:
    done = rlkit.train({**TINY, "stop": {"iterations": 2}}, out=tmp_path)

    def interrupt() -> None:
        while len(done.metrics) < 4:
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        rlkit.resume(done.path, ["stop.iterations=60"])
    assert done.info.status == "terminated"
    assert 4 <= len(done.metrics) < 60
    again = rlkit.resume(done.path)
    assert list(again.metrics["iteration"]) == list(range(1, 61))
    further = rlkit.resume(done.path, ["stop.iterations=61", "tune.max_failures=1"])
    assert further.info.resumed_with == ["stop.iterations=61", "tune.max_failures=1"]
    assert len(further.metrics) == 61


def test_of_limits_for_the_same_thing_the_last_word_holds() -> None:
    words = ["stop.env_steps=2000", "stop={iterations: 50}", "stop.env_steps=3000"]
    assert latest(words) == ["stop={iterations: 50}", "stop.env_steps=3000"]


def test_failures_that_a_resume_allows_are_allowed(ray_local: None, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    recipe = {
        **without(TINY, "evaluation"), "env": "case_fails",
        "env_config": {"how": "raise", "once": str(flag), "number": 80},
        "config": {
            "training": {"train_batch_size_per_learner": 20, "minibatch_size": 20, "num_epochs": 1},
            "env_runners": {"num_env_runners": 0},
        },
        "stop": {"iterations": 8},
    }  # fmt: skip
    with pytest.raises(RunFailed, match="boom"):
        rlkit.train(recipe, out=tmp_path, imports=["case_envs"])
    run = next(tmp_path.glob("*/*/run.json")).parent
    flag.unlink()
    assert rlkit.resume(run, ["tune.max_failures=1"], imports=["case_envs"]).status == "done"


@pytest.mark.parametrize(
    ("how", "reason"), [("raise", "ValueError: boom in my environment"), ("exit", "without an exception")]
)
def test_a_failure_that_max_failures_allows_is_told_and_the_trial_goes_on(
    how: str, reason: str, ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_config = {"how": how, "once": str(tmp_path / "flag"), "number": 80}
    run = rlkit.train(
        {
            **without(TINY, "evaluation"), "env": "case_fails", "env_config": env_config,
            "config": {
                "training": {"train_batch_size_per_learner": 20, "minibatch_size": 20, "num_epochs": 1},
                "env_runners": {"num_env_runners": 0},
            },
            "stop": {"iterations": 8}, "tune": {"max_failures": 1},
        },
        out=tmp_path, imports=["case_envs"], quiet=False,
    )  # fmt: skip
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "trial_00000 failed" in line]
    assert reason in line
    assert "going on from checkpoint_00000" in line
    assert "(failure 1 of 1 allowed; " in line
    assert run.status == "done"
    assert list(run.metrics["iteration"]) == list(range(1, 9))
    assert [row["training_iteration"] for row in results_of(run)] == list(range(1, 9))


def test_resume_passes_over_a_damaged_checkpoint_and_computes_its_rows_again(
    ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = rlkit.train({**TINY, "checkpoint": {"every": 1, "keep": None}}, out=tmp_path)
    newest = first.trials[0].checkpoints[-1]
    victim = newest / "learner_group" / "learner" / "state.pkl"
    victim.write_bytes(victim.read_bytes()[:-10])
    again = rlkit.resume(first.path, ["stop.iterations=4"], quiet=False)
    assert list(again.metrics["iteration"]) == [1, 2, 3, 4]
    assert [row["training_iteration"] for row in results_of(again)] == [1, 2, 3, 4]
    said = capsys.readouterr().err.replace("\n", " ")
    assert "passing over" in said
    assert "state.pkl" in said
    assert "going on from checkpoint_000002" in said


def test_a_run_of_another_user_goes_on_only_when_trusted(
    run: rlkit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Path(shutil.copytree(run.path, tmp_path / "runs" / run.path.name))
    monkeypatch.setenv("RLKIT_KEY", str(tmp_path / "another.key"))
    manifest.signing.make_key()
    with pytest.raises(CheckpointError, match=r"run.json was signed with the key .*--trust"):
        rlkit.resume(theirs, ["stop.iterations=50"])
    limit = int(run.metrics["iteration"].max()) + 1
    again = rlkit.resume(theirs, [f"stop.iterations={limit}"], trust=True)
    assert again.metrics["iteration"].max() == limit


def test_resume_forgets_checkpoints_that_a_crash_left_in_the_notes_only(
    ray_local: None, tmp_path: Path
) -> None:
    first = rlkit.train({**without(TINY, "evaluation"), "checkpoint": {"every": 1, "keep": 3}}, out=tmp_path)
    for checkpoint in first.trials[0].checkpoints[:-1]:
        shutil.rmtree(checkpoint)
    again = rlkit.resume(first.path, ["stop.iterations=6"])
    assert again.status == "done"
    assert list(again.metrics["iteration"]) == [1, 2, 3, 4, 5, 6]


class BreaksLate(Callback):
    """Raises in the third iteration."""

    def on_train_result(self, *, result: dict, **kwargs: object) -> None:
        if result["training_iteration"] == 3:
            raise RuntimeError("nothing left to say")


def test_what_was_learned_is_saved_before_a_callback_that_raises_ends_the_run(
    ray_local: None, tmp_path: Path
) -> None:
    rlkit.register_callback("breaks_late", BreaksLate, "Raises")
    recipe = {
        **without(TINY, "evaluation"),
        "stop": {"iterations": 9},
        "checkpoint": {"every": 100},
        "callbacks": [{"name": "breaks_late"}],
    }
    try:
        with pytest.raises(RunFailed, match=r"BreaksLate failed in on_train_result.*nothing left to say"):
            rlkit.train(recipe, out=tmp_path)
    finally:
        TABLES["callbacks"].pop("breaks_late")
    (folder,) = tmp_path.glob("tiny/*")
    saved = rlkit.open_run(folder).last_checkpoint
    assert saved is not None
    assert saved.name == "checkpoint_000003"
    manifest.verify(saved)


def test_a_module_imported_earlier_is_imported_by_the_trials_that_use_its_names(
    ray_local: None, tmp_path: Path
) -> None:
    mine = str(Path(__file__).parents[1] / "examples" / "my_model.py")
    registry.load_plugins([mine])
    recipe = {**without(TINY, "evaluation"), "stop": {"iterations": 1}}
    assert rlkit.train(recipe, out=tmp_path).info.imports == []
    run = rlkit.train({**recipe, "model": {"name": "fourier"}}, out=tmp_path)
    assert run.info.imports == [mine]


def test_classes_of_a_file_reach_runners_of_a_ray_that_ran_before(ray_local: None, tmp_path: Path) -> None:
    """Ray hands on the import path of its start, which does not hold the file's folder."""
    mine = tmp_path / "elsewhere" / "tips.py"
    mine.parent.mkdir()
    mine.write_text(
        "import rlkit\n"
        "from ray.rllib.callbacks.callbacks import RLlibCallback\n"
        "class Tip(RLlibCallback):\n"
        "    def on_episode_end(self, *, metrics_logger, **kwargs):\n"
        "        metrics_logger.log_value('tip', 1.0)\n"
        "rlkit.register_callback('tip', Tip)\n"
    )
    recipe = {**without(TINY, "evaluation"), "stop": {"iterations": 1}, "callbacks": [{"name": "tip"}]}
    remote = {"config.env_runners.num_env_runners": 1}
    run = rlkit.train(recipe, remote, imports=[str(mine)], out=tmp_path)
    assert list(run.metrics["custom/tip"]) == [1.0]


def test_samples_with_a_seed_are_seeds_and_grids_reach_the_model(ray_local: None, tmp_path: Path) -> None:
    recipe = {
        **without(TINY, "evaluation"),
        "stop": {"iterations": 1},
        "model": {"name": "mlp", "hiddens": {"grid_search": [[8], [12]]}},
        "tune": {"samples": 2},
    }
    run = rlkit.train(recipe, {"seed": 3}, out=tmp_path)
    asked = sorted((trial.recipe.seed, trial.recipe.model["hiddens"]) for trial in run.trials)
    assert asked == [(3, [8]), (3, [12]), (4, [8]), (4, [12])]
    assert run.metrics["trial"].nunique() == 4
    sizes = set()
    for trial in run.trials:
        agent = rlkit.load(trial.last_checkpoint)
        module = next(iter(agent.modules.values()))
        sizes.add(sum(parameter.numel() for parameter in module.parameters()))
    assert len(sizes) == 2


class Raises(gym.Env):
    """Breaks in its third step."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple:
        self.steps += 1
        if self.steps > 2:
            raise RuntimeError("the robot fell over")
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_an_environment_that_raises_ends_the_run_with_its_own_words(ray_local: None, tmp_path: Path) -> None:
    register_env("raises", Raises)
    try:
        with pytest.raises(RunFailed, match="the robot fell over") as error:
            rlkit.train({**without(TINY, "evaluation"), "env": "raises"}, out=tmp_path)
    finally:
        del TABLES["envs"]["raises"]
    assert "error.txt" in str(error.value)
    (folder,) = tmp_path.glob("tiny/*")
    assert rlkit.open_run(folder).status == "failed"


class Reads(Raises):
    """Observes text, which no network takes."""

    observation_space = gym.spaces.Text(5)


def test_an_observation_no_network_takes_is_found_before_a_trial_starts(
    ray_local: None, tmp_path: Path
) -> None:
    register_env("reads", Reads)
    try:
        with pytest.raises(UsageError, match=r"reads observes Text\(1, 5.*Text cannot become a vector"):
            rlkit.train({**TINY, "env": "reads"}, out=tmp_path)
    finally:
        del TABLES["envs"]["reads"]
    (folder,) = tmp_path.glob("tiny/*")
    assert rlkit.open_run(folder).status == "failed"
    assert not rlkit.open_run(folder).trials


def test_a_disk_without_space_is_refused_with_the_bytes(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"bytes free, .* needed"):
        tune_run.check_disk(tmp_path, need=1 << 62)


def test_root_cause_is_the_innermost_exception_line() -> None:
    text = "RayTaskError(ValueError): ray::f()\n  File y\nmy.ValueError: alpha is 7\n\nRuntimeError\n"
    assert tracking.root_cause(text) == "ValueError: alpha is 7"
    assert tracking.root_cause("") == "no reason was recorded"
    two = "Failure # 1 (occurred at 1)\nValueError: old\nFailure # 2 (occurred at 2)\nThe actor died.\n"
    assert tracking.root_cause(two) == "The actor died."


def test_the_second_signal_ends_at_once() -> None:
    said: list[str] = []
    with Interrupt() as interrupt, interrupt.saving(said.append):
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        with pytest.raises(Stopped) as stopped:
            signal.raise_signal(signal.SIGINT)
    assert (stopped.value.exit_code, stopped.value.status) == (143, "terminated")  # the first one counts
    assert len(said) == 1
    assert "checkpoint" in said[0]


def test_a_signal_whose_exception_was_dropped_ends_the_run_before_trials_train() -> None:
    with Interrupt() as interrupt:
        with contextlib.suppress(BaseException):  # as in a weakref's callback, or a library's `except:`
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"), interrupt.saving(print):
            pytest.fail("trials train")


def test_a_signal_while_a_run_starts_ends_it_and_one_at_its_end_is_ignored() -> None:
    with Interrupt() as interrupt:
        with pytest.raises(Stopped) as stopped:
            signal.raise_signal(signal.SIGTERM)
        assert stopped.value.exit_code == 143
        interrupt.over()
        signal.raise_signal(signal.SIGINT)


def test_nohup_keeps_its_meaning() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_signal_that_lands_inside_a_print_is_announced_after_it() -> None:
    printing = threading.Lock()  # what the main thread holds while it prints (or imports to print)
    said: list[bool] = []
    announce = lambda message: said.append(printing.acquire(timeout=5.0))  # noqa: E731
    with Interrupt() as interrupt, interrupt.saving(announce), printing:
        signal.raise_signal(signal.SIGINT)
    assert said == [True]


@pytest.mark.parametrize(
    ("state", "free", "nodes", "expected"),
    [
        ("PENDING", 1.0, 1, ["waiting for Ray: the next trial needs 3 CPU; free are 1 CPU"]),
        (
            "PENDING",
            3.0,
            2,
            ["waiting for Ray: the next trial needs 3 CPU; free are 3 CPU, on no node together"],
        ),
        ("PENDING", 3.0, 1, []),  # just set free
        ("CREATED", 0.0, 1, []),  # the trial itself holds them: a slow start is no wait
    ],
)
def test_a_full_cluster_is_said_once_and_a_slow_start_is_not(
    state: str,
    free: float,
    nodes: int,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    clock = iter(range(0, 1000, 15))
    monkeypatch.setattr(tracking.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(tracking.ray, "available_resources", lambda: {"CPU": free})
    monkeypatch.setattr(tracking.ray, "nodes", lambda: [{"Alive": True}] * nodes)
    group = {"state": state, "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 2.0}}}
    monkeypatch.setattr(tracking.ray.util, "placement_group_table", lambda: {"id": group})
    said: list[str] = []
    experiment = Experiment(Recipe.from_dict(TINY), tmp_path, RunInfo("tiny"))
    tracker = tracking.Tracker(experiment, SimpleNamespace(signal=None), SimpleNamespace(say=said.append))
    needs = SimpleNamespace(required_resources={"CPU": 3.0}, bundles=[{"CPU": 1}, {"CPU": 2}])
    trial = SimpleNamespace(status="PENDING", PENDING="PENDING", placement_group_factory=needs)
    for i in range(5):
        tracker.on_step_end(i, [trial])
    assert said == expected


WORKERS = """
import ray
from rlkit.launch.session import RaySession
with RaySession(None, 1, False) as session:
    session.wait()
    print(ray.get(ray.remote(lambda: hash("agent_0")).remote()))
"""


def test_workers_of_every_run_go_through_sets_of_agents_in_the_same_order() -> None:
    """RLlib's episodes keep agents in sets: with the process's own hash seed a run could not be repeated."""

    def said(*args: str, **env: str) -> str:
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
        return subprocess.check_output([sys.executable, *args], env={**clean, **env}, text=True)

    assert said("-c", WORKERS) == said("-c", "print(hash('agent_0'))", PYTHONHASHSEED="0")


def test_train_without_a_recipe_needs_both_algorithm_and_environment() -> None:
    for given in ({}, {"algorithm": "DQN"}, {"env": "CartPole-v1"}, {"recipe": TINY, "env": "CartPole-v1"}):
        with pytest.raises(UsageError, match="algorithm="):
            rlkit.train(**given)
    with pytest.raises(RecipeError, match="gamma"):
        rlkit.train(overrides=["config.training.gamma=5"], algorithm="DQN", env="CartPole-v1")
