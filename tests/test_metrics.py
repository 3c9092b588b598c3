"""Tidy names against RLlib's own results, and a metrics.csv that survives crashes, resumes, late columns."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.errors import CheckpointError, UsageError
from rlkit.metrics import FAMILIES, PATHS, known, label, measured, path_of, tidy, tidy_name
from rlkit.runs.metrics_csv import MetricsWriter

RESULT: dict[str, Any] = {
    "training_iteration": 4,
    "num_env_steps_sampled_lifetime": 800.0,
    "time_total_s": 12.5,
    "time_this_iter_s": 0.5,
    "pid": 7,
    "done": False,
    "hostname": "box",
    "env_runners": {
        "episode_return_mean": -30.0,
        "episode_len_mean": 25,
        "num_env_steps_sampled": 200,
        "num_agent_steps_sampled_lifetime": {"a": 800.0, "b": 400.0},
        "agent_episode_returns_mean": {"a": -10.0, "b": -20.0},
        "env_step_timer": 0.1,
        "pole": {"angle": np.float32(0.25)},
    },
    "learners": {
        "__all_modules__": {"num_env_steps_trained": 10, "learner_connector": {"timers": {"x": 1.0}}},
        "a": {"policy_loss": math.nan, "weights_seq_no": 3.0, "gate": {"expert_0": 0.5},
              "num_module_steps_trained_lifetime_throughput": {"throughput_since_last_reduce": 1.0}},
    },
    "curriculum": {"lesson": 1, "lesson_name": "short"},
    "timers": {"training_step": 1.0},
    "config": {"lr": 1.0},
    "mark": True,
}  # fmt: skip


def test_a_result_becomes_a_flat_row_of_tidy_names() -> None:
    row = tidy(RESULT)
    assert math.isnan(row.pop("loss/a/policy_loss"))
    assert row == {
        "iteration": 4,
        "env_steps": 800,
        "time_s": 12.5,
        "agent_steps": 1200,  # summed over the agents
        "steps_per_s": 400,  # 200 steps in 0.5 s
        "episode_return": -30,
        "episode_length": 25,
        "return/a": -10,
        "return/b": -20,
        "custom/pole/angle": 0.25,
        "loss/a/gate/expert_0": 0.5,
        "curriculum/lesson": 1,
        "algorithm/mark": 1,
    }
    assert all(type(value) is float for value in row.values())


def test_what_rllib_does_not_report_is_absent() -> None:
    assert tidy({"training_iteration": 1, "env_runners": {}, "learners": {}}) == {"iteration": 1}
    assert tidy({"training_iteration": 1, "env_runners": None}) == {"iteration": 1}


def test_an_evaluation_repeated_from_an_earlier_iteration_is_left_out() -> None:
    runners = {"episode_return_mean": 9.0, "agent_episode_returns_mean": {"a": 9.0}, "wins": 0.5}
    fresh = {"evaluation": {"env_runners": runners, "num_healthy_workers": 0}}
    assert tidy(fresh) == {"eval/episode_return": 9, "eval/return/a": 9, "eval/custom/wins": 0.5}
    assert tidy({"evaluation": {"env_runners": runners}}) == {}


def test_a_measurement_may_be_named_by_rllibs_path_and_counts_once() -> None:
    runners = {"episode_return_mean": 9.0, "episode_return_min": 3.0}
    fresh = {"evaluation": {"env_runners": runners, "num_healthy_workers": 0}}
    repeated = {"evaluation": {"env_runners": runners}}
    for name, value in {
        "eval/episode_return": 9.0,
        "evaluation/env_runners/episode_return_mean": 9.0,
        "evaluation/env_runners/episode_return_min": 3.0,
    }.items():
        assert measured(fresh, name) == value
        assert math.isnan(measured(repeated, name)), name
    assert measured({"env_runners": {"num_episodes": 4}}, "env_runners/num_episodes") == 4
    assert tidy_name("env_runners/agent_episode_returns_mean/a") == "return/a"
    assert tidy_name("episode_return") == "episode_return"


def test_tidy_names_lead_to_the_values_they_are_made_of() -> None:
    for name, value in tidy(RESULT).items():
        here: Any = RESULT
        for part in path_of(name).split("/"):
            here = here.get(part) if isinstance(here, dict) else None
        if name == "agent_steps":
            assert sum(here.values()) == value
        elif name != "steps_per_s" and not math.isnan(value):
            assert here == value, name


@pytest.mark.parametrize("path", ["env_runners/num_episodes", "learners/p0/vf_loss", "training_iteration"])
def test_a_full_rllib_path_is_taken_as_it_is(path: str) -> None:
    assert path_of(path) == path
    assert known(path)


def test_an_unknown_metric_names_the_closest_one() -> None:
    with pytest.raises(UsageError, match="unknown metric 'episode_retrun'; did you mean 'episode_return'"):
        path_of("episode_retrun")
    assert not known("return/")
    assert not known("reward")
    assert all(known(name) for name in PATHS)
    assert all(known(prefix + "x") for prefix in FAMILIES)


def test_labels_have_units() -> None:
    assert label("eval/episode_length") == "evaluation episode length [env steps]"
    assert label("time_s") == "time [s]"
    assert label("loss/a/vf_loss") == "loss/a/vf loss"


def test_every_name_of_a_real_result_is_tidy(ray_local: None) -> None:
    """PPO, two modules, evaluation every second iteration, metrics logged by a user: RLlib's own dicts."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.callbacks.callbacks import RLlibCallback
    from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole

    class Mine(RLlibCallback):
        def on_episode_end(self, *, metrics_logger: Any, **kwargs: Any) -> None:
            metrics_logger.log_value("angle", 0.5, window=10)

    config = (
        PPOConfig()
        .environment(MultiAgentCartPole, env_config={"num_agents": 2})
        .env_runners(num_env_runners=0)
        .multi_agent(policies={"p0", "p1"}, policy_mapping_fn=lambda agent, *_, **__: f"p{agent}")
        .training(train_batch_size_per_learner=100, minibatch_size=50, num_epochs=1)
        .evaluation(evaluation_interval=2, evaluation_duration=2, evaluation_num_env_runners=0)
        .callbacks(Mine)
    )
    algorithm = config.build_algo()
    rows = [tidy(algorithm.train()) for _ in range(3)]
    algorithm.stop()
    for row, iteration in zip(rows, (1, 2, 3), strict=True):
        assert row["iteration"] == iteration
        assert row["env_steps"] == pytest.approx(100 * iteration, abs=10)
        assert row["env_steps"] < row["agent_steps"] <= 2 * row["env_steps"] + 50
        assert row["steps_per_s"] > 0
        assert row["episode_return"] == pytest.approx(row["return/0"] + row["return/1"], rel=0.01)
        assert {f"loss/{m}/{n}" for m in ("p0", "p1") for n in ("policy_loss", "vf_loss", "entropy")} <= set(
            row
        )
        assert row["custom/angle"] == 0.5
        families = {name.split("/")[0] for name in row if "/" in name}
        assert families <= {"return", "loss", "custom", "eval"}, "RLlib reports something new: sort it in"
        assert {n for n in row if n.startswith("custom/")} == {"custom/angle"}
        assert not [n for n in row if n.startswith("loss/") and n.split("/")[1] not in ("p0", "p1")]
    assert ["eval/episode_return" in row for row in rows] == [False, True, False]
    assert rows[1]["eval/episode_return"] == pytest.approx(
        rows[1]["eval/return/0"] + rows[1]["eval/return/1"]
    )


def test_a_late_column_fills_up_the_rows_before_it(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.write("t0", {"iteration": 1, "env_steps": 10, "loss/p/x": 0.1})
    writer.write("t1", {"iteration": 1, "env_steps": 12})
    writer.write("t0", {"iteration": 2, "env_steps": 20, "loss/p/x": math.nan, "eval/episode_return": 475.25})
    assert (tmp_path / "metrics.csv").read_text() == (
        "trial,iteration,env_steps,eval/episode_return,loss/p/x\n"
        "t0,1,10,,0.1\n"
        "t1,1,12,,\n"
        "t0,2,20,475.25,nan\n"
    )  # fmt: skip


def test_a_restarted_trial_replaces_its_rows_from_there_on(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    for i in (1, 2, 3, 4):
        writer.write("t0", {"iteration": i, "episode_return": i})
        writer.write("t1", {"iteration": i, "episode_return": i})
    writer.write("t0", {"iteration": 3, "episode_return": 30})  # Tune restored the trial from iteration 2
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame[frame.trial == "t0"].episode_return.tolist() == [1, 2, 30]
    assert frame[frame.trial == "t1"].iteration.tolist() == [1, 2, 3, 4]


def test_truncate_drops_the_rows_beyond_a_resume_point(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    assert writer.truncate("t0", after_iteration=0) == 0
    for i in (1, 2, 3):
        writer.write("t0", {"iteration": i})
        writer.write("t1", {"iteration": i})
    again = MetricsWriter(path)
    assert again.truncate("t0", after_iteration=1) == 2
    again.write("t0", {"iteration": 2})
    frame = pd.read_csv(path)
    assert frame[frame.trial == "t0"].iteration.tolist() == [1, 2]
    assert frame[frame.trial == "t1"].iteration.tolist() == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsWriter(path)
    first.write("t0", {"iteration": 1, "x": 1.5})
    whole = path.read_bytes()
    first.write("t0", {"iteration": 2, "x": 2.5})
    path.write_bytes(path.read_bytes()[:-cut] if cut < len(path.read_bytes()) - len(whole) else whole + b"t")
    second = MetricsWriter(path)
    second.write("t0", {"iteration": 2, "x": 2.5})
    assert pd.read_csv(path).x.tolist() == [1.5, 2.5]


def test_an_empty_file_and_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"trial,itera")  # cut off inside the header
    MetricsWriter(path).write("t0", {"iteration": 1})
    assert path.read_text() == "trial,iteration\nt0,1\n"
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(CheckpointError, match="the first column is 'step', expected 'trial'"):
        MetricsWriter(path)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
rows = st.lists(
    st.dictionaries(st.sampled_from(["a", "loss/x/y", 'cus"tom', "eval/b,c"]), numbers), max_size=8
)


@settings(deadline=None, max_examples=50)
@given(rows=rows, reopen=st.integers(0, 8))
def test_every_value_comes_back_to_the_last_bit(tmp_path_factory: Any, rows: list, reopen: int) -> None:
    path = tmp_path_factory.mktemp("csv") / "metrics.csv"
    writer = MetricsWriter(path)
    for i, row in enumerate(rows):
        writer = MetricsWriter(path) if i == reopen else writer
        writer.write("t,0", {"iteration": i, **row})
    if not rows:
        return
    with open(path, newline="") as file:
        got = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        cells = {k: float(v) for k, v in got[i].items() if v and k not in ("trial", "iteration")}
        assert got[i]["trial"] == "t,0"
        np.testing.assert_equal(cells, {k: float(v) for k, v in row.items()})
