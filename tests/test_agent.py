"""`rlkit.load`: checkpoints that act without Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tree
from trained import TAG, trained

from rlkit.envs.make import make_env
from rlkit.errors import CheckpointError, UsageError
from rlkit.play.agent import Agent, load
from rlkit.play.evaluation import evaluate
from rlkit.play.export import export
from rlkit.play.observations import as_rows
from rlkit.runs import manifest
from rlkit.runs.run import Best, RunInfo

NAMES = ("dqn", "sac_filtered", "ppo_lstm", "ppo_tag")


@pytest.fixture(scope="session")
def agents(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Agent]:
    return {name: load(trained(name, tmp_path_factory).path) for name in NAMES}


@pytest.fixture(autouse=True)
def forget(agents: dict[str, Agent]) -> None:
    for agent in agents.values():
        agent.reset()


def observations(agent: Agent, rows: int) -> list[Any]:
    """Observations of an environment under random actions."""
    recipe: Any = agent.manifest.recipe
    env = make_env(recipe["env"], recipe["env_config"])
    seen = [env.reset(seed=3)[0]]
    env.action_space.seed(3)
    while len(seen) < rows:
        seen.append(env.step(env.action_space.sample())[0])
    return seen


def test_nan_is_no_observation(agents: dict[str, Agent]) -> None:
    with pytest.raises(UsageError, match="1 NaN"):
        agents["dqn"].act(np.array([0.0, np.nan, 0.0, 0.0], np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_played_by_hand_is_a_row_of_evaluate(agents: dict[str, Agent], name: str) -> None:
    agent = agents[name]
    recipe: Any = agent.manifest.recipe
    env = make_env(recipe["env"], recipe["env_config"])
    expected = evaluate(agent, episodes=2, seed=5).rows
    for row in expected:
        agent.reset()
        obs, _ = env.reset(seed=row.seed)
        total, length, over = 0.0, 0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
            if name == "ppo_tag":
                total += sum(reward.values())
                over = terminated["__all__"] or truncated["__all__"]
            else:
                total += reward
                over = terminated or truncated
            length += 1
        assert length == row.length
        # A batch of one row has other last bits than the block of an evaluation.
        assert total == pytest.approx(row.ret, rel=1e-3)


def test_loading_and_acting_starts_no_ray(agents: dict[str, Agent]) -> None:
    code = (
        "import sys, rlkit, numpy as np\n"
        "agent = rlkit.load(sys.argv[1])\n"
        "print(agent.act(np.zeros(4, np.float32)), agent.q_values(np.zeros(4)).shape)\n"
        "import ray; print(ray.is_initialized())"
    )
    path = str(agents["dqn"].manifest.path)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["0", "(2,)", "False"], ["1", "(2,)", "False"])
    assert "Deprecat" not in done.stderr


def test_one_observation_a_batch_and_a_list(agents: dict[str, Agent]) -> None:
    agent = agents["dqn"]
    rows = np.stack(observations(agent, 6))
    each = [agent.act(row) for row in rows]
    assert all(isinstance(action, np.integer) for action in each)
    batch = agent.act(rows)
    assert batch.shape == (6,)
    assert batch.tolist() == each
    assert agent.act(rows.tolist()).tolist() == each
    assert agent.act(rows[:2]).shape == (2,)  # nothing remembered: another size is fine


def test_continuous_actions_are_scaled_to_the_space(agents: dict[str, Agent]) -> None:
    agent = agents["sac_filtered"]
    rows = np.stack(observations(agent, 20))
    actions = agent.act(rows, explore=True)
    assert actions.shape == (20, 1)
    assert actions.dtype == np.float32
    assert all(agent.action_space.contains(action) for action in actions)
    assert np.abs(actions).max() > 1.0  # [-2, 2], not [-1, 1]
    assert np.array_equal(agent.act(rows), agent.act(rows))
    assert not np.array_equal(agent.act(rows, explore=True), actions)


def test_every_agent_gets_the_action_of_its_module(agents: dict[str, Agent]) -> None:
    agent = agents["ppo_tag"]
    assert set(agent.modules) == {"predators", "prey"}
    rows = observations(agent, 3)
    actions = agent.act(rows[0])
    assert list(actions) == list(rows[0])
    some = {"agent_0": rows[0]["agent_0"]}
    assert agent.act(some) == {"agent_0": actions["agent_0"]}
    batch = agent.act(rows)
    assert len(batch) == 3
    assert batch[0] == actions


def recalled(agent: Agent, row: int) -> np.ndarray:
    """The recurrent state of a row, flat."""
    parts = tree.flatten(agent._memories[row].states["default_agent"])
    return np.concatenate([part.numpy().ravel() for part in parts])


def after(agent: Agent, *steps: np.ndarray) -> np.ndarray:
    """The recurrent state of the first row after some steps of a new episode."""
    agent.reset()
    for step in steps:
        agent.act(step)
    return recalled(agent, 0)


def test_a_recurrent_agent_remembers_each_row(agents: dict[str, Agent]) -> None:
    agent = agents["ppo_lstm"]
    a0, a1, b0, b1 = np.stack(observations(agent, 4))
    both, first, second = after(agent, a0, a1), after(agent, a0), after(agent, a1)
    assert np.abs(both - second).max() > 1e-4
    assert np.abs(both - first).max() > 1e-4
    assert after(agent, np.stack([a0, b0]), np.stack([a1, b1])) == pytest.approx(both, abs=1e-5)
    with pytest.raises(UsageError, match="got 3 rows after 2; this agent remembers"):
        agent.act(np.stack([a0, a0, a0]))

    agent.reset()
    agent.act(np.stack([a0, b0]))
    with pytest.raises(UsageError, match="got the row 7, expected one of the batch's"):
        agent.reset([7])
    agent.reset([0])  # the first environment starts anew, the second goes on
    agent.act(np.stack([a1, b1]))
    in_batch = recalled(agent, 1)
    assert recalled(agent, 0) == pytest.approx(second, abs=1e-5)
    assert in_batch == pytest.approx(after(agent, b0, b1), abs=1e-5)


def test_q_values_of_dqn_choose_the_action(agents: dict[str, Agent]) -> None:
    agent = agents["dqn"]
    rows = np.stack(observations(agent, 8))
    values = agent.q_values(rows)
    assert values.shape == (8, 2)
    assert values.argmax(axis=1).tolist() == agent.act(rows).tolist()
    assert agent.q_values(rows[3]) == pytest.approx(values[3], rel=1e-5)
    assert agent.q_values(rows, [0, 1] * 4) == pytest.approx(values[range(8), [0, 1] * 4], rel=1e-5)
    assert float(agent.q_values(rows[3], 1)) == pytest.approx(values[3, 1], rel=1e-5)
    # Distributional, 11 atoms between -10 and 10: expected values, not probabilities.
    module = agent.modules["default_policy"]
    assert module.num_atoms == 11
    assert np.all(np.abs(values) <= 10)


def test_q_values_of_sac_judge_actions_of_the_environment(agents: dict[str, Agent]) -> None:
    agent = agents["sac_filtered"]
    rows = np.stack(observations(agent, 4))
    own = agent.q_values(rows)
    assert own.shape == (4,)
    assert agent.q_values(rows, agent.act(rows)) == pytest.approx(own, abs=1e-4)
    assert agent.q_values(rows, np.full((4, 1), 2.0)) != pytest.approx(own, abs=1e-4)
    assert agent.q_values(rows[0]).shape == ()
    with pytest.raises(UsageError, match="got 2 actions for 4 observations"):
        agent.q_values(rows, [[0.0], [1.0]])


def test_asking_for_q_values_leaves_memories_alone(
    agents: dict[str, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents["dqn"]
    monkeypatch.setattr(type(agent.policy), "memoryless", False)  # as with a recurrent module
    row = observations(agent, 1)[0]
    agent.reset()
    agent.q_values(np.stack([row, row]))
    assert agent.act(row) in agent.action_space  # an agent that remembers two rows refuses one
    agent.reset()


def test_modules_without_q_values_say_so(agents: dict[str, Agent]) -> None:
    with pytest.raises(UsageError, match=r"default_policy \(DefaultPPOTorchRLModule\) has no Q-values"):
        agents["ppo_lstm"].q_values(np.zeros(4))


def test_wrong_observations_name_got_and_expected(agents: dict[str, Agent]) -> None:
    with pytest.raises(UsageError, match=r"got an observation of shape \(5,\), expected \(4,\)"):
        agents["dqn"].act(np.zeros(5))
    with pytest.raises(UsageError, match="got 'x', expected an observation of Box"):
        agents["dqn"].act("x")
    with pytest.raises(UsageError, match="unknown agent 'agnet_0'; did you mean 'agent_0'"):
        agents["ppo_tag"].act({"agnet_0": np.zeros(14)})
    with pytest.raises(UsageError, match="got a ndarray, expected a dict"):
        agents["ppo_tag"].act(np.zeros(14))
    with pytest.raises(UsageError, match="give a list of dicts"):
        agents["ppo_tag"].act({"agent_0": np.zeros((2, 14))})


def test_a_plain_rllib_checkpoint_acts_with_trust(agents: dict[str, Agent], tmp_path: Path) -> None:
    shutil.copytree(agents["dqn"].manifest.path, tmp_path / "plain")
    (tmp_path / "plain" / manifest.NAME).unlink()
    with pytest.raises(CheckpointError, match="plain RLlib checkpoint"):
        load(tmp_path / "plain")
    agent = load(tmp_path / "plain", trust=True)
    row = observations(agents["dqn"], 1)[0]
    assert agent.q_values(row).tolist() == agents["dqn"].q_values(row).tolist()


def test_a_plain_rllib_checkpoint_explores_at_its_own_steps_or_says_why_not(
    agents: dict[str, Agent], tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(agents["dqn"].manifest.path, folder)
    (folder / manifest.NAME).unlink()
    steps = agents["dqn"].manifest.env_steps
    for lost in (None, "algorithm_state.pkl"):  # the metrics' count, then the runner's
        if lost:
            (folder / lost).unlink()
        agent = load(folder, trust=True)
        assert agent.policy.env_steps == agent.manifest.env_steps == steps > 0
    (folder / "env_runner" / "state.pkl").unlink()
    agent, row = load(folder, trust=True), observations(agents["dqn"], 1)[0]
    assert agent.act(row) == agents["dqn"].act(row)
    with pytest.raises(UsageError, match="does not say how many environment steps"):
        agent.act(row, explore=True)
    with pytest.raises(UsageError, match="does not say how many environment steps"):
        export(folder, tmp_path / "policy.pt2", explore=True, trust=True)


@pytest.mark.parametrize("missing", ["module_state.pkl", "class_and_ctor_args.pkl"])
def test_without_weights_there_is_an_error_not_random_weights(
    agents: dict[str, Agent], tmp_path: Path, missing: str
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(agents["dqn"].manifest.path, folder)
    (folder / manifest.NAME).unlink()
    module = folder / "learner_group" / "learner" / "rl_module"
    (module / ("default_policy" if missing == "module_state.pkl" else "") / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        load(folder, trust=True)


def test_a_module_that_cannot_be_imported_is_named(agents: dict[str, Agent], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(agents["dqn"].manifest.path, folder)
    manifest.write(
        folder, recipe={"env": "CartPole-v1"}, imports=["no_such_models"], iteration=1, env_steps=1
    )
    with pytest.raises(CheckpointError, match="--import no_such_models: ModuleNotFoundError"):
        load(folder)
    assert load(folder, imports=["json"]).act(np.zeros(4)) in (0, 1)  # the user names another


def test_paths_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load(tmp_path / "none")
    with pytest.raises(UsageError):
        load(tmp_path)


def test_what_an_agent_says_about_itself(agents: dict[str, Agent]) -> None:
    agent = agents["ppo_tag"]
    assert agent.manifest.recipe == {"env": TAG, "env_config": {"max_cycles": 25}}
    assert isinstance(agent.observation_space, gym.spaces.Dict)
    assert "predators" in repr(agent)


SPACE = gym.spaces.Dict(
    place=gym.spaces.Discrete(5),
    sight=gym.spaces.Tuple([gym.spaces.Box(0, 1, (2, 2)), gym.spaces.MultiBinary(3)]),
)


def test_nested_observations_row_by_row() -> None:
    one = {"place": 3, "sight": (np.ones((2, 2)), [1, 0, 1])}
    (row,), batched = as_rows(one, SPACE)
    assert not batched
    assert SPACE.contains({**row, "place": int(row["place"])})
    rows, batched = as_rows({"place": [1, 2], "sight": (np.ones((2, 2, 2)), np.zeros((2, 3)))}, SPACE)
    assert batched
    assert [int(row["place"]) for row in rows] == [1, 2]
    assert rows[0]["sight"][0].shape == (2, 2)
    rows, batched = as_rows([one, one, one], SPACE)
    assert batched
    assert len(rows) == 3
    for wrong, said in ((1.5, "1.5"), (np.nan, "NaN"), (np.array([2.0, 2.5]), "2.5"), (2.0**70, "1.18")):
        with pytest.raises(UsageError, match=f"got an observation with .*{said}"):
            as_rows(wrong, SPACE["place"])
    assert as_rows(2.0, SPACE["place"])[0] == [2]
    with pytest.raises(UsageError, match=r"300.*whole numbers of uint8"):
        as_rows([0, 300], gym.spaces.Box(0, 255, (2,), np.uint8))
    with pytest.raises(UsageError, match="disagree about the number of rows"):
        as_rows({"place": [1, 2], "sight": (np.ones((3, 2, 2)), np.zeros((3, 3)))}, SPACE)
    with pytest.raises(
        UsageError, match=r"got an observation with \['place'\], expected \['place', 'sight'\]"
    ):
        as_rows({"place": 1}, SPACE)


def test_a_damaged_best_checkpoint_of_a_run_is_passed_over_aloud(
    agents: dict[str, Agent], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "dqn" / "now"
    trial = run / "trial_0"
    for number in (1, 2, 3):
        shutil.copytree(agents["dqn"].manifest.path, trial / f"checkpoint_{number:06d}")
    best = Best(trial="trial_0", checkpoint="trial_0/checkpoint_000001", metric="x", value=1.0)
    RunInfo(name="dqn", status="done", best=best, trial_best={"trial_0": best}).write(run)
    (trial / "params.json").write_text("{}")
    assert load(run).manifest.path.name == "checkpoint_000001"
    os.truncate(trial / "checkpoint_000001" / "algorithm_state.pkl", 10)
    assert load(run).manifest.path.name == "checkpoint_000003"
    said = capsys.readouterr().err
    assert "skipping checkpoint_000001" in said
    assert "algorithm_state.pkl: damaged, 10 bytes" in said
    with pytest.raises(CheckpointError, match=r"algorithm_state\.pkl"):
        load(trial / "checkpoint_000001")  # named itself, it has no stand-in
    shutil.rmtree(trial / "checkpoint_000001")
    for path in (run, trial):
        assert load(path).manifest.path.name == "checkpoint_000003"
        assert (
            "is gone, trial_0/checkpoint_000001; using the last, checkpoint_000003" in capsys.readouterr().err
        )
