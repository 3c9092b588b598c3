"""Exact evaluation of checkpoints, and the same during training."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image, ImageSequence
from trained import EPISODES, trained

import rlkit
from rlkit import registry
from rlkit.envs.make import make_env
from rlkit.errors import EnvError, UsageError, csv_cell
from rlkit.play.agent import Agent, load
from rlkit.play.answers import ALONE, Answer
from rlkit.play.evaluation import Evaluation, _alike, during_training, evaluate, statistics
from rlkit.play.in_training import FIRST_SEED
from rlkit.play.recording import Trace, Video
from rlkit.play.rollout import Moment, Row
from rlkit.runs import manifest

NAMES = ("dqn", "sac_filtered", "ppo_lstm", "ppo_tag")
AGENTS = ["adversary_0", "adversary_1", "adversary_2", "agent_0"]


@pytest.fixture(scope="session")
def agents(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Agent]:
    return {name: load(trained(name, tmp_path_factory).path) for name in NAMES}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_statistics_by_hand() -> None:
    found = statistics([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert found["mean"] == 4.5
    assert found["iqm"] == 4.5  # of 3, 4, 5, 6
    assert found["std"] == pytest.approx(np.sqrt(5.25))
    assert (found["min"], found["max"]) == (1.0, 8.0)
    low, high = found["ci95"]
    # Normal approximation: 4.5 +- 1.96 * 2.29 / sqrt(8); the percentile bootstrap is close to it.
    assert low == pytest.approx(4.5 - 1.59, abs=0.15)
    assert high == pytest.approx(4.5 + 1.59, abs=0.15)
    assert statistics([3.0])["ci95"] == [3.0, 3.0]
    assert statistics([0.0] * 9 + [100.0])["iqm"] == 0.0
    assert statistics([1.0, 2.0, 4.0]) == statistics([1.0, 2.0, 4.0])


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluate_agree_on_the_same_weights(
    ray_local: None, tmp_path_factory: pytest.TempPathFactory, agents: dict[str, Agent], name: str
) -> None:
    """Also for connectors with a state (a MeanStdFilter), recurrent modules and several agents."""
    during = trained(name, tmp_path_factory).evaluation
    result = evaluate(agents[name], episodes=EPISODES, seed=FIRST_SEED)
    assert during["num_episodes"] == EPISODES
    assert during["episode_return_mean"] == pytest.approx(result.episode_return["mean"], rel=1e-12)
    assert during["episode_return_min"] == result.episode_return["min"]
    assert during["episode_return_max"] == result.episode_return["max"]
    assert during["episode_len_mean"] == pytest.approx(result.episode_length["mean"])
    assert during["num_env_steps_sampled"] == sum(row.length for row in result.rows)
    means = {agent: pytest.approx(found["mean"]) for agent, found in result.agents.items()}
    assert during.get("agent_episode_returns_mean", {}) == means


def test_the_mean_is_rllibs_within_sampling_error(
    ray_local: None, tmp_path_factory: pytest.TempPathFactory, agents: dict[str, Agent]
) -> None:
    """RLlib's `Algorithm.evaluate` of the same checkpoint, 100 episodes each."""
    theirs = trained("dqn", tmp_path_factory).rllib_evaluation
    assert theirs["num_episodes"] >= 100
    ours = evaluate(agents["dqn"], episodes=100).episode_return
    error = ours["std"] * np.sqrt(2 / 100)
    assert error > 0
    assert abs(ours["mean"] - theirs["episode_return_mean"]) < 4 * error


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_episodes_asked_for_twice_the_same(agents: dict[str, Agent], name: str) -> None:
    options: dict[str, Any] = {"episodes": 7, "seed": 40, "max_steps": 60}
    result = evaluate(agents[name], **options)
    assert [row.seed for row in result.rows] == [40, 41, 42, 43, 44, 45, 46]
    assert all(row.length > 0 for row in result.rows)
    assert result.to_json() == evaluate(agents[name], **options).to_json()
    for slots in (1, 3):
        assert evaluate(agents[name], num_envs=slots, **options).rows == result.rows
    assert evaluate(agents[name], **{**options, "episodes": 3, "seed": 42}).rows == result.rows[2:5]


@pytest.mark.parametrize("name", NAMES)
def test_exploring_episodes_are_the_same_twice(agents: dict[str, Agent], name: str) -> None:
    rows = evaluate(agents[name], episodes=4, max_steps=40, explore=True).rows
    assert evaluate(agents[name], episodes=4, max_steps=40, explore=True, num_envs=2).rows == rows
    assert rows != evaluate(agents[name], episodes=4, max_steps=40).rows


def test_json_is_the_documented_object(agents: dict[str, Agent]) -> None:
    result = evaluate(agents["ppo_tag"], episodes=3, seed=2)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(content) == [
        "checkpoint",
        "env",
        "episodes",
        "seed",
        "explore",
        "episode_return",
        "episode_length",
        "agents",
        "per_episode",
    ]
    assert (content["env"], content["episodes"], content["seed"], content["explore"]) == (
        "pettingzoo/mpe2.simple_tag_v3",
        3,
        2,
        False,
    )
    for found in (content["episode_return"], content["episode_length"], *content["agents"].values()):
        assert list(found) == ["mean", "std", "min", "max", "iqm", "ci95"]
    assert sorted(content["agents"]) == AGENTS
    for episode in content["per_episode"]:
        assert list(episode) == ["seed", "return", "length", "agents"]
        assert episode["return"] == pytest.approx(sum(episode["agents"].values()))  # the team's sum
        assert episode["length"] == 25


def test_csv_has_a_row_per_episode(agents: dict[str, Agent], tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    result = evaluate(agents["ppo_tag"], episodes=3, csv=path)
    rows = read(path)
    assert list(rows[0]) == ["episode", "seed", "return", "length", *(f"return/{a}" for a in result.agents)]
    assert [float(row["return"]) for row in rows] == [row.ret for row in result.rows]
    assert [float(row["return/agent_0"]) for row in rows] == [row.agents["agent_0"] for row in result.rows]


def test_the_table_says_what_was_played() -> None:
    from rich.console import Console

    result = Evaluation(
        "runs/x/checkpoint_000010", "CartPole-v1", 0, False, [Row(0, 500.0, 500), Row(1, 400.0, 400)]
    )
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(result.table())
    text = console.export_text()
    for part in (
        "CartPole-v1: 2 episodes, seeds 0 to 1, greedy",
        "450.00",
        "50.00",
        "runs/x/checkpoint_000010",
    ):
        assert part in text


def test_names_of_agents_are_no_markup() -> None:
    from rich.console import Console

    name = "[/x]\x1b]0;title\x07"
    result = Evaluation("checkpoint", "mine", 0, False, [Row(0, 1.0, 1, agents={name: 1.0})])
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(result.table())
    text = console.export_text()
    assert "return/[/x]" in text
    assert "\x1b]0" not in text


def test_names_in_a_table_are_no_formulas(tmp_path: Path) -> None:
    measured = Row(0, -1.0, 1, agents={"=1+1": -1.0}, measures={"@SUM(A1)": 2.0})
    Evaluation("checkpoint", "mine", 0, False, [measured]).to_csv(tmp_path / "rows.csv")
    assert list(read(tmp_path / "rows.csv")[0]) == [
        "episode", "seed", "return", "length", "return/=1+1", "'@SUM(A1)",
    ]  # fmt: skip
    assert (csv_cell("-2+3\x1b"), csv_cell(-2.5), csv_cell(None)) == ("'-2+3\\x1b", -2.5, None)


def test_a_billion_episodes_are_refused() -> None:
    with pytest.raises(UsageError, match="got 1,000,000,000 episodes, expected at most 1,000,000"):
        evaluate("zoo/dqn_cartpole", episodes=1_000_000_000)


def test_trace_of_a_single_agent(agents: dict[str, Agent], tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    result = evaluate(agents["dqn"], episodes=3, seed=9, num_envs=2, trace=path)
    rows = read(path)
    observed = [f"observation_{i}" for i in range(4)]
    assert list(rows[0]) == [
        *("episode", "seed", "t", *observed, "action_0", "reward", "terminated", "truncated", "q_0", "q_1")
    ]
    assert len(rows) == sum(row.length for row in result.rows)
    assert [row["episode"] for row in rows] == sorted(row["episode"] for row in rows)
    env = make_env("CartPole-v1", {})
    for index, row in enumerate(result.rows):
        steps = [r for r in rows if int(r["episode"]) == index]
        assert [int(r["t"]) for r in steps] == list(range(row.length))
        assert sum(float(r["reward"]) for r in steps) == row.ret
        assert [int(r["terminated"]) for r in steps] == [0] * (row.length - 1) + [1]
        assert {r["truncated"] for r in steps} == {"0"}
        obs, _ = env.reset(seed=row.seed)
        for step in steps:  # replayed in the environment, the actions give the observations
            assert np.array([step[name] for name in observed], np.float32).tolist() == obs.tolist()
            better = int(float(step["q_1"]) > float(step["q_0"]))
            assert better == int(step["action_0"])
            obs, *_ = env.step(int(step["action_0"]))


def test_trace_of_several_agents(agents: dict[str, Agent], tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    result = evaluate(agents["ppo_tag"], episodes=2, trace=path)
    rows = read(path)
    assert len(rows) == 2 * 25 * 4
    assert [row["agent"] for row in rows[:4]] == AGENTS
    assert "q_0" not in rows[0]
    # Predators see 16 numbers, the prey 14: its last two cells are empty.
    assert rows[0]["observation_15"] != ""
    assert rows[3]["observation_14"] == rows[3]["observation_15"] == ""
    prey = sum(float(row["reward"]) for row in rows if row["agent"] == "agent_0" and row["episode"] == "1")
    assert prey == pytest.approx(result.rows[1].agents["agent_0"])
    assert all(row["truncated"] == ("1" if row["t"] == "24" else "0") for row in rows)


def test_a_trace_adds_what_comes_between_turns_to_the_last_action(
    agents: dict[str, Agent], tmp_path: Path
) -> None:
    trace = Trace(tmp_path / "t.csv", agents["ppo_tag"].policy, 1)
    prey, hunter = AGENTS[3], AGENTS[0]

    def moment(t: int, actors: list[str], rewards: dict, terminated: dict) -> Moment:
        actions = {agent: np.zeros(5, np.float32) for agent in actors}
        seen = {agent: np.full(14, t, np.float32) for agent in actors}
        return Moment(t, seen, Answer(actions), rewards, terminated, {})

    trace.start(0, 7, None)
    trace.step(0, None, moment(0, [prey], {hunter: 5.0}, {}))  # before its first action: no row
    trace.step(0, None, moment(1, [hunter], {hunter: 1.0, prey: 0.5}, {hunter: True}))
    trace.step(0, None, moment(2, [], {prey: 0.25, hunter: -1.0}, {"__all__": True}))
    trace.end(0)
    trace.close(True)
    rows = {row["agent"]: row for row in read(tmp_path / "t.csv")}
    assert (float(rows[prey]["reward"]), rows[prey]["terminated"]) == (0.75, "1")
    assert (float(rows[hunter]["reward"]), rows[hunter]["terminated"]) == (0.0, "1")


def test_a_trace_of_several_switches_and_nothing_left_of_one_that_fails(tmp_path: Path) -> None:
    policy: Any = SimpleNamespace(
        multi_agent=False,
        modules={"default_policy": SimpleNamespace(compute_q_values=lambda batch: None)},
        observation_space=gym.spaces.Box(-1, 1, (2,)),
        action_space=gym.spaces.MultiBinary([2, 2]),
    )
    trace = Trace(tmp_path / "t.csv", policy, 1)
    trace.start(0, 7, None)
    action = np.array([[0, 1], [1, 0]], np.int8)
    trace.step(
        0,
        None,
        Moment(0, {ALONE: np.zeros(2)}, Answer({ALONE: action}, {}, {ALONE: np.float32(3)}), {}, {}, {}),
    )
    trace.end(0)
    trace.close(True)
    (row,) = read(tmp_path / "t.csv")
    assert [row[f"action_{i}"] for i in range(4)] == ["0", "1", "1", "0"]
    assert (row["q_0"], "q_1" in row) == ("3.0", False)
    (tmp_path / "t.csv").unlink()
    policy.action_space = None
    with pytest.raises(AttributeError):
        Trace(tmp_path / "t.csv", policy, 1)
    assert list(tmp_path.iterdir()) == []


class Reuses(gym.Wrapper):
    """Writes each observation into the array that it has returned before."""

    def reset(self, **options: Any) -> Any:
        self.seen, info = self.env.reset(**options)
        return self.seen, info

    def step(self, action: Any) -> Any:
        self.seen[:], *rest = self.env.step(action)
        return (self.seen, *rest)


def test_an_environment_may_use_its_array_again(agents: dict[str, Agent], tmp_path: Path) -> None:
    registry.register_env("reuses", lambda **_: Reuses(gym.make("CartPole-v1")))
    for env in ("CartPole-v1", "reuses"):
        evaluate(
            agents["dqn"], episodes=2, env=env, trace=tmp_path / f"{env}.csv", record=tmp_path / f"{env}.npz"
        )
    assert read(tmp_path / "reuses.csv") == read(tmp_path / "CartPole-v1.csv")
    again, given = (dict(np.load(tmp_path / f"{env}.npz")) for env in ("reuses", "CartPole-v1"))
    observed = [key for key in given if "obs" in key]
    assert observed
    assert all(np.array_equal(again[key], given[key]) for key in observed)


def test_trace_of_continuous_actions(agents: dict[str, Agent], tmp_path: Path) -> None:
    evaluate(agents["sac_filtered"], episodes=1, max_steps=20, trace=tmp_path / "t.csv")
    rows = read(tmp_path / "t.csv")
    assert len(rows) == 20
    assert all(abs(float(row["action_0"])) <= 2 and np.isfinite(float(row["q_0"])) for row in rows)
    # The environment's own observation: cos and sin of an angle, not the filtered numbers.
    assert float(rows[0]["observation_0"]) ** 2 + float(rows[0]["observation_1"]) ** 2 == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_video_of_the_first_episodes(agents: dict[str, Agent], tmp_path: Path, suffix: str) -> None:
    import imageio.v3

    path = tmp_path / f"film{suffix}"
    result = evaluate(agents["dqn"], episodes=5, num_envs=3, max_steps=15, video=path, video_episodes=2)
    assert result.rows == evaluate(agents["dqn"], episodes=5, max_steps=15).rows
    frames = imageio.v3.imread(path)
    assert frames.shape[1:] == (400, 600, 3)
    pictures = sum(row.length + 1 for row in result.rows[:2])
    if suffix == ".gif":  # equal pictures in a row are one that is shown longer; 50 a second
        with Image.open(path) as gif:
            shown = sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))
        assert shown == pytest.approx(20 * pictures, abs=40)
    else:
        assert len(frames) == pytest.approx(pictures, abs=2)
    assert frames[0].std() > 10  # a picture, not a plain colour
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_film_with_fewer_frames_is_as_long(tmp_path: Path) -> None:
    import imageio.v3

    env = gym.make("CartPole-v1", render_mode="rgb_array")  # 50 frames a second
    film = Video(tmp_path / "film.mp4", most_fps=20)
    env.reset(seed=0)
    film.start(0, 0, env)
    for _ in range(50):
        film.step(0, env, None)  # type: ignore[arg-type]
    film.close(True)
    assert len(imageio.v3.imread(tmp_path / "film.mp4")) == pytest.approx(17, abs=2)
    assert imageio.v3.immeta(tmp_path / "film.mp4")["fps"] == pytest.approx(50 / 3, abs=0.1)


def test_video_of_several_agents(agents: dict[str, Agent], tmp_path: Path) -> None:
    evaluate(agents["ppo_tag"], episodes=1, video=tmp_path / "tag.gif")
    assert (tmp_path / "tag.gif").stat().st_size > 1000


class Dark(gym.Env):
    """CartPole's spaces, no pictures."""

    observation_space = gym.make("CartPole-v1").observation_space
    action_space = gym.spaces.Discrete(2)
    length: int | None = 5
    reward: Any = 1.0
    fail = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.t, self.seed_given = 0, seed
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self.t += 1
        if self.seed_given == 3 and self.t == 2:
            if self.fail:
                raise RuntimeError
            return np.zeros(4, np.float32), self.reward, False, False, {}
        return np.zeros(4, np.float32), 1.0, self.t == self.length, False, {}


@pytest.fixture
def dark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> type[Dark]:
    Own = type(request.node.name, (Dark,), {})  # failures are counted by name

    monkeypatch.setitem(registry.TABLES["envs"], "dark", registry.Entry("dark", Own))
    return Own


def test_another_environment_than_the_recipes(agents: dict[str, Agent], dark: type[Dark]) -> None:
    result = evaluate(agents["dqn"], episodes=4, env="dark")
    assert result.env == "dark"
    assert [row.length for row in result.rows] == [5] * 4


def test_an_environment_without_pictures(agents: dict[str, Agent], dark: type[Dark], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot film"):
        evaluate(agents["dqn"], episodes=1, env="dark", video=tmp_path / "x.mp4")
    with pytest.raises(UsageError, match=r"x\.avi: expected a name ending in \.mp4 or \.gif"):
        evaluate(agents["dqn"], episodes=1, video=tmp_path / "x.avi")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        evaluate(agents["dqn"], episodes=1, video=tmp_path / "file" / "x.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_environment_that_never_ends(
    agents: dict[str, Agent], dark: type[Dark], monkeypatch: pytest.MonkeyPatch
) -> None:
    dark.length = None
    monkeypatch.setattr("rlkit.play.rollout.ENDLESS", 50)
    with pytest.raises(EnvError, match=r"seed 7 has not ended after 50 steps; .*max_steps=N"):
        evaluate(agents["dqn"], episodes=1, seed=7, env="dark")
    result = evaluate(agents["dqn"], episodes=2, env="dark", max_steps=60)
    assert [(row.length, row.ret) for row in result.rows] == [(60, 60.0)] * 2


def test_an_environment_that_fails_names_the_seed(
    agents: dict[str, Agent], dark: type[Dark], tmp_path: Path
) -> None:
    dark.fail = True
    with pytest.raises(EnvError, match=r"RuntimeError.*seed 3, step 1"):
        evaluate(agents["dqn"], episodes=5, env="dark", trace=tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize("reward", [float("nan"), None, float("inf")])
def test_a_reward_that_is_no_number_names_the_seed(
    agents: dict[str, Agent], dark: type[Dark], reward: Any
) -> None:
    dark.reward = reward
    with pytest.raises(EnvError, match=r"reward.*seed 3, step 1"):
        evaluate(agents["dqn"], episodes=5, env="dark")


def test_an_environment_that_does_not_fit(agents: dict[str, Agent]) -> None:
    with pytest.raises(UsageError, match=r"Pendulum-v1 has the observation_space Box.*trained with Box"):
        evaluate(agents["dqn"], episodes=1, env="Pendulum-v1")


BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
WIDER = gym.spaces.Box(-9, 9, (3,), np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs", "alike"),
    [
        (BOX, WIDER, True),
        (BOX, gym.spaces.Box(-1, 1, (4,), np.float32), False),
        (gym.spaces.Discrete(4), gym.spaces.Discrete(4), True),
        (gym.spaces.Discrete(4), gym.spaces.Discrete(9), False),
        (gym.spaces.Discrete(4), gym.spaces.Discrete(4, start=1), False),
        (gym.spaces.MultiDiscrete([2, 2]), gym.spaces.MultiDiscrete([2, 2]), True),
        (gym.spaces.MultiDiscrete([2, 2]), gym.spaces.MultiDiscrete([9, 9]), False),
        (gym.spaces.MultiDiscrete([2, 2]), gym.spaces.MultiDiscrete([2, 2], start=[0, 1]), False),
        (gym.spaces.MultiBinary((2, 2)), gym.spaces.MultiBinary((2, 2)), True),
        (gym.spaces.MultiBinary((2, 2)), gym.spaces.MultiBinary(4), False),
        (gym.spaces.Dict(a=BOX, b=BOX), gym.spaces.Dict(b=WIDER, a=BOX), True),
        (gym.spaces.Dict(a=BOX), gym.spaces.Dict(b=BOX), False),
        (gym.spaces.Dict(a=BOX), gym.spaces.Dict(a=gym.spaces.Discrete(3)), False),
        (gym.spaces.Tuple([BOX, BOX]), gym.spaces.Tuple([BOX, WIDER]), True),
        (gym.spaces.Tuple([BOX]), gym.spaces.Tuple([BOX, BOX]), False),
        (gym.spaces.Tuple([gym.spaces.Discrete(2)]), gym.spaces.Tuple([gym.spaces.Discrete(3)]), False),
    ],
    ids=str,
)
def test_one_space_stands_for_another_where_only_bounds_differ(
    ours: gym.Space, theirs: gym.Space, alike: bool
) -> None:
    assert _alike(ours, theirs) == _alike(theirs, ours) == alike


@pytest.mark.parametrize("argument", ["episodes", "num_envs", "max_steps"])
def test_counts_below_one(agents: dict[str, Agent], argument: str) -> None:
    with pytest.raises(UsageError, match=f"{argument} must be at least 1, got 0"):
        evaluate(agents["dqn"], **{argument: 0})


def plain(agents: dict[str, Agent], name: str, tmp_path: Path) -> Path:
    """A checkpoint as RLlib alone would have left it."""
    folder = tmp_path / name
    shutil.copytree(agents[name].manifest.path, folder)
    (folder / manifest.NAME).unlink()
    return folder


def test_a_plain_rllib_checkpoint_of_a_gymnasium_environment(
    agents: dict[str, Agent], tmp_path: Path
) -> None:
    rows = evaluate(plain(agents, "dqn", tmp_path), episodes=3, trust=True).rows
    assert rows == evaluate(agents["dqn"], episodes=3).rows


def test_a_plain_rllib_checkpoint_knows_the_arguments_of_its_environment(
    agents: dict[str, Agent], tmp_path: Path
) -> None:
    rows = evaluate(plain(agents, "ppo_tag", tmp_path), episodes=2, trust=True).rows
    assert rows == evaluate(agents["ppo_tag"], episodes=2).rows
    assert rows[0].length == 25


def test_a_package_function_not_a_module(agents: dict[str, Agent]) -> None:
    result = rlkit.evaluate(agents["dqn"].manifest.path, episodes=2)
    assert isinstance(result, rlkit.Evaluation)
    assert result.checkpoint == str(agents["dqn"].manifest.path)


def test_the_function_given_to_rllib_travels_without_environments() -> None:
    function = during_training(episodes=3, num_envs=2)
    function.rows = [Row(1)]
    function._pool = object()  # type: ignore[assignment]
    copy = pickle.loads(pickle.dumps(function))
    assert (copy.episodes, copy.seed, copy.slots) == (3, FIRST_SEED, 2)
    assert copy._pool is None
    assert copy.rows == []


DOCS = Path(__file__).parents[1] / "docs" / "evaluation.md"


def test_the_python_in_the_documentation_runs_and_the_walk_ends_at_the_agents_action(
    agents: dict[str, Agent],
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (use,) = (block for block in blocks if "agent.q_values(obs)" in block)
    (walk,) = (block for block in blocks if "manifest.verify(path)" in block)
    trained, filtered = agents["dqn"].manifest.path, agents["sac_filtered"].manifest.path
    names: dict[str, Any] = {}
    exec(compile(use.replace('"runs/dqn_cartpole"', repr(str(trained))), str(DOCS), "exec"), names)
    assert names["values"].argmax() == names["action"]
    found = 'rlkit.open_run("runs/sac_pendulum").best_checkpoint.absolute()'
    assert found in walk
    exec(compile(walk.replace(found, repr(str(filtered))), str(DOCS), "exec"), names)
    assert names["action"] == pytest.approx(agents["sac_filtered"].act(names["obs"]), abs=1e-3)


def test_a_trace_names_the_keys_of_a_dict_that_all_agents_have() -> None:
    from rlkit.play.recording import observation_names

    space = gym.spaces.Dict(
        speed=gym.spaces.Box(-1, 1, (1,)), arm=gym.spaces.Dict(angle=gym.spaces.Box(-1, 1, (2,)))
    )
    expected = ["observation/arm/angle_0", "observation/arm/angle_1", "observation/speed_0"]
    assert observation_names(space, multi_agent=False) == expected
    assert observation_names(gym.spaces.Dict(a=space, b=space), multi_agent=True) == expected
    other = gym.spaces.Dict(a=space, b=gym.spaces.Box(-1, 1, (3,)))
    assert observation_names(other, multi_agent=True) == []


def test_an_agent_s_statistics_are_over_the_episodes_it_was_in() -> None:
    rows = [
        Row(0, ret=7.0, length=3, agents={"a": 1.0, "b": 6.0}),
        Row(1, ret=2.0, length=3, agents={"a": 2.0}),
    ]
    found = Evaluation("checkpoint", "mine", 0, False, rows).agents
    assert (found["a"]["mean"], found["b"]["mean"], found["b"]["min"]) == (1.5, 6.0, 6.0)
