"""Cross-play and measures: pairings of untrained checkpoints, without Ray."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from policies import Pair, make
from ray.rllib.algorithms.ppo import PPOConfig
from typer.testing import CliRunner

import rlkit
from rlkit import registry
from rlkit.algos.dron import DRONConfig
from rlkit.cli import app
from rlkit.envs.make import make_env
from rlkit.envs.measures import Success, Touches, make_measure
from rlkit.envs.pettingzoo import PettingZooEnv
from rlkit.envs.soccer import SoccerParallelEnv
from rlkit.errors import UsageError
from rlkit.play.answers import BLOCK, Answer
from rlkit.play.connectors import ConnectorPolicy
from rlkit.play.crossplay import Sides, cross_play
from rlkit.play.recording import Measuring
from rlkit.play.rollout import Moment
from rlkit.roster import PolicyMapping
from rlkit.runs import manifest

TAG, ADVERSARY = "pettingzoo/mpe2.simple_tag_v3", "pettingzoo/mpe2.simple_adversary_v3"
SPEAKER = "pettingzoo/mpe2.simple_speaker_listener_v4"
SPLIT = "adversary_*=A,agent_*=B"
SHORT = {"max_cycles": 8}

registry.TABLES["envs"].setdefault("pair", registry.Entry("pair", Pair))
registry.TABLES["envs"].setdefault("numbered", registry.Entry("numbered", lambda: Numbered()))


def checkpoint(folder: Path, env: str, seed: int, env_config: dict[str, Any] | None = None) -> Path:
    """Write a checkpoint of untrained modules, one per agent."""
    inner = make_env(env, env_config or {}).unwrapped
    inner.observation_space = inner.observation_space or rlkit_dict(inner.observation_spaces)
    config = PPOConfig().rl_module(model_config={"fcnet_hiddens": [16]})
    config.multi_agent(
        policies=set(map(str, inner.possible_agents)),
        policy_mapping_fn=PolicyMapping({str(agent): [str(agent)] for agent in inner.possible_agents}),
    )
    policy = make(config, inner, seed=seed)
    path = folder / f"{env.rpartition('.')[2]}_{seed}"
    policy.modules.save_to_path(path / "learner_group" / "learner" / "rl_module")
    for name, pipeline in (("env_to_module", policy.env_to_module), ("module_to_env", policy.module_to_env)):
        state = {type(piece).__name__: piece.get_state() for piece in pipeline.connectors}
        pipeline.save_to_path(path / "env_runner" / f"{name}_connector", state=state)
    manifest.write(path, recipe={"env": env, "env_config": env_config or {}}, iteration=1, env_steps=1)
    return path


def rlkit_dict(spaces: Any) -> Any:
    return gymnasium.spaces.Dict(spaces)


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tag")
    return [checkpoint(folder, TAG, seed, SHORT) for seed in (0, 1)]


def test_a_checkpoint_against_itself_gives_the_rows_of_its_evaluation(tags):
    alone = rlkit.evaluate(tags[0], episodes=5, seed=3)
    together = cross_play([tags[0], tags[0]], SPLIT, episodes=5, seed=3)
    assert together.pairings[0].evaluation.rows == alone.rows
    explored = [
        cross_play([tags[0], tags[0]], SPLIT, episodes=3, explore=True, num_envs=n).pairings[0]
        for n in (1, 3)
    ]
    assert explored[0].evaluation.rows == explored[1].evaluation.rows


class Deaf(ConnectorPolicy):
    watches_others = False


def test_dron_sees_opponents_that_another_side_plays():
    env = PettingZooEnv(SoccerParallelEnv())
    config = DRONConfig().environment("pair").training(opponents=["player_*"])
    config.multi_agent(policies={"player"}, policy_mapping_fn=lambda agent, *args, **kwargs: "player")
    own = {agent: (env.observation_spaces[agent], env.action_spaces[agent]) for agent in env.possible_agents}
    every = {"__env_single__": (env.observation_space, env.action_space), **own}
    torch.manual_seed(3)
    observing = [config.build_env_to_module_connector(spaces=every) for _ in range(2)]
    seen = observing[0].observation_space["player"], env.action_spaces["player_a"]
    modules = config.get_multi_rl_module_spec(spaces={"player": seen}).build()
    sides = [
        ConnectorPolicy(modules, pipeline, config.build_module_to_env_connector(spaces=every), 1000)
        for pipeline in observing
    ]

    def values(policy: Any) -> list[Any]:
        memory, found = policy.begin("game"), []
        policy.see(memory, *env.reset(seed=0))
        for _ in range(5):
            (answer,) = policy.act([memory], q_values=True, block=BLOCK)
            found.append({agent: q.tolist() for agent, q in answer.q_values.items()})
            observation, reward, terminated, truncated, info = env.step(answer.actions)
            policy.see(memory, observation, info, reward, terminated, truncated)
        return found

    together = Sides(dict(zip("AB", sides, strict=True)), {"player_a": "A", "player_b": "B"})
    alone = values(sides[0])
    assert values(together) == alone
    for side in sides:
        side.__class__ = Deaf
    assert values(together) != alone


@pytest.mark.parametrize("connectors", [False, True])
def test_agents_that_come_and_go(tmp_path, connectors):
    path = checkpoint(tmp_path, "pair", 0)
    agents = [rlkit.load(path), rlkit.load(path)]
    if connectors:
        for agent in agents:
            policy = agent.policy
            agent.policy = ConnectorPolicy(policy.modules, policy.env_to_module, policy.module_to_env, 1)
    alone = rlkit.evaluate(path, episodes=4)
    for globs in ("early=A,*=B", "late=A,*=B", "steady=A,*=B"):
        assert cross_play(agents, globs, episodes=4).pairings[0].evaluation.rows == alone.rows


class Numbered(Pair):
    """Agents are whole numbers."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.agents = self.possible_agents = [0, 1]
        self.observation_spaces = {n: self.observation_spaces["steady"] for n in self.agents}
        self.action_spaces = {n: self.action_spaces["steady"] for n in self.agents}
        self.observation_space = rlkit_dict(self.observation_spaces)
        self.action_space = rlkit_dict(self.action_spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.t, self.random = 0, np.random.default_rng(seed)
        return self._observe([0, 1]), {}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.t += 1
        rewards = {agent: float(action) * 10**agent for agent, action in actions.items()}
        return self._observe([0, 1]), rewards, {"__all__": self.t == 3}, {"__all__": False}, {}


class Odd(Pair):
    """One agent has another space, or is called otherwise."""

    def __init__(self, agent: str, kind: str, space: Any):
        super().__init__()
        getattr(self, f"{kind}s")[agent] = space
        setattr(self, kind, rlkit_dict(getattr(self, f"{kind}s")))


class Crowd(Numbered):
    """An agent more or less."""

    def __init__(self, count: int):
        super().__init__()
        observed, acts = self.observation_spaces[0], self.action_spaces[0]
        self.agents = self.possible_agents = list(range(count))
        self.observation_spaces = dict.fromkeys(self.agents, observed)
        self.action_spaces = dict.fromkeys(self.agents, acts)
        self.observation_space = rlkit_dict(self.observation_spaces)
        self.action_space = rlkit_dict(self.action_spaces)

    def _observe(self, agents: Any) -> dict:
        return super()._observe(self.agents)


@pytest.mark.parametrize(
    ("agent", "kind", "space"),
    [
        ("early", "observation_space", gymnasium.spaces.Box(-1, 1, (4,), np.float32)),
        ("steady", "action_space", gymnasium.spaces.Discrete(9)),
        ("steady", "action_space", gymnasium.spaces.Discrete(4, start=1)),
    ],
)
def test_an_environment_whose_agents_do_not_fit(tmp_path, agent, kind, space):
    path = checkpoint(tmp_path, "pair", 0)
    registry.TABLES["envs"]["odd"] = registry.Entry("odd", lambda: Odd(agent, kind, space))
    expected = f"odd has the {kind} {space} for the agent '{agent}'; the checkpoint was trained with "
    with pytest.raises(UsageError, match=re.escape(expected)):
        rlkit.evaluate(path, episodes=1, env="odd")


def test_a_team_may_be_smaller_and_a_stranger_is_named(tmp_path):
    path = checkpoint(tmp_path, "numbered", 0)
    for count in (1, 3):
        registry.TABLES["envs"][f"crowd_{count}"] = registry.Entry(
            f"crowd_{count}", lambda count=count: Crowd(count)
        )
    assert list(rlkit.evaluate(path, episodes=1, env="crowd_1").rows[0].agents) == ["0"]
    with pytest.raises(UsageError, match="no policy plays agent 2"):
        rlkit.evaluate(path, episodes=1, env="crowd_3")


def test_agents_may_be_whole_numbers(tmp_path):
    path = checkpoint(tmp_path, "numbered", 0)
    alone = rlkit.evaluate(path, episodes=2)
    result = cross_play([path, path], "0=A,1=B", episodes=2, csv=tmp_path / "rows.csv")
    pairing = result.pairings[0]
    assert pairing.evaluation.rows == alone.rows
    assert pairing.side_returns("A") == [row.agents["0"] for row in alone.rows]
    assert result.to_json()["agents"] == {"0": "A", "1": "B"}
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [float(row["return/B"]) for row in rows] == [row.agents["1"] for row in alone.rows]
    with pytest.raises(UsageError, match="wolf=B fits no agent of numbered; it has 0, 1"):
        cross_play([path, path], "0=A,*=B,wolf=B", episodes=1)


def test_each_side_is_played_by_its_own_checkpoint(tags):
    result = cross_play(tags, SPLIT, episodes=2, seed=7)
    chasers, runners = (rlkit.load(path).policy for path in tags)
    for k, row in enumerate(result.pairings[0].evaluation.rows):
        env = make_env(TAG, SHORT)
        observation, _ = env.reset(seed=7 + k)
        returns = dict.fromkeys(observation, 0.0)
        for _ in range(8):
            actions = {}
            for policy, prefix in ((chasers, "adversary"), (runners, "agent")):
                memory = policy.begin("by hand")
                policy.see(memory, observation)
                (answer,) = policy.act([memory], block=BLOCK)
                actions |= {a: action for a, action in answer.actions.items() if a.startswith(prefix)}
            observation, rewards, *_ = env.step(actions)
            for agent, paid in rewards.items():
                returns[agent] += paid
        assert row.agents == returns
    pairing = result.pairings[0]
    assert pairing.players == {"A": str(tags[0]), "B": str(tags[1])}
    chased = [sum(v for a, v in r.agents.items() if a.startswith("adv")) for r in pairing.evaluation.rows]
    assert pairing.returns["A"]["mean"] == pytest.approx(np.mean(chased))


def test_a_matrix_pairs_every_run_with_every_run_on_the_same_seeds(tags):
    result = cross_play(tags, SPLIT, episodes=3, matrix=True, measures=["touches"])
    a, b = map(str, tags)
    assert [tuple(p.players.values()) for p in result.pairings] == [(a, a), (a, b), (b, a), (b, b)]
    for pairing in result.pairings:
        assert [row.seed for row in pairing.evaluation.rows] == [0, 1, 2]
        # every contact pays each of the three chasers 10
        for row in pairing.evaluation.rows:
            assert row.agents["adversary_0"] == pytest.approx(10 * row.measures["touches"])
    single = cross_play([tags[0], tags[1]], SPLIT, episodes=3, measures=["touches"]).pairings[0]
    assert result.pairings[1].evaluation.rows == single.evaluation.rows


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", *words])


def test_the_command_prints_a_table_json_and_csv(tags, tmp_path):
    words = [str(tags[0]), "--versus", str(tags[1]), "--agents", SPLIT, "--matrix", "--episodes", "3"]
    shown = run(*words, "--measure", "touches")
    assert shown.exit_code == 0, shown.exception
    assert "A plays adversary_0, adversary_1, adversary_2; B plays agent_0" in shown.stdout
    assert shown.stdout.count("│ #1 │ #2 │") == 1
    assert "touches" in shown.stdout
    file = tmp_path / "rows.csv"
    found = json.loads(run(*words, "--json", "--csv", str(file), "--measure", "touches").stdout)
    assert found["agents"]["agent_0"] == "B"
    assert [p["players"]["A"] for p in found["pairings"]] == [str(tags[0])] * 2 + [str(tags[1])] * 2
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 12
    first, line = found["pairings"][1]["per_episode"][2], rows[5]
    assert (line["A"], line["B"], line["episode"]) == (str(tags[0]), str(tags[1]), "2")
    assert float(line["return/A"]) == first["returns"]["A"]
    assert float(line["touches"]) == first["measures"]["touches"]
    assert float(line["return"]) == pytest.approx(float(line["return/A"]) + float(line["return/B"]))


def test_measures_of_one_checkpoint(tags):
    found = json.loads(run(str(tags[0]), "--episodes", "3", "--measure", "touches", "--json").stdout)
    assert found["measures"]["touches"]["mean"] == np.mean(
        [row["measures"]["touches"] for row in found["per_episode"]]
    )
    assert found["agents"]["adversary_1"]["mean"] == pytest.approx(10 * found["measures"]["touches"]["mean"])


def goals(env: str) -> tuple[Any, Any]:
    made = make_env(env, {})
    made.reset(seed=0)
    return made, made.unwrapped.env.unwrapped.world


def test_success_is_judged_at_the_last_step_within_the_radius():
    env, world = goals(ADVERSARY)
    adversary, *good = world.agents
    goal = good[0].goal_a.state.p_pos
    for offset, others, radius, expected in (
        (0.39, 2.0, 0.4, (0.0, 1.0, -1.0)),
        (0.41, 0.1, 0.4, (1.0, 0.0, 1.0)),
        (0.41, 0.1, 0.5, (1.0, 1.0, 0.0)),
    ):
        adversary.state.p_pos = goal + np.array([offset, 0.0])
        good[0].state.p_pos = goal + np.array([0.0, 5.0])
        good[1].state.p_pos = goal + np.array([0.0, others])
        measure = Success(radius)
        measure.step(env, {})
        names = ("success/agent", "success/adversary", "success/difference")
        assert tuple(measure.end()[name] for name in names) == expected


def test_frames_count_the_steps_each_team_was_at_the_goal():
    env, world = goals(ADVERSARY)
    adversary, *good = world.agents
    goal = good[0].goal_a.state.p_pos
    measure = make_measure("frames:0.3")
    for theirs, ours in ((0.2, (1.0, 0.2)), (0.4, (0.2, 0.1)), (0.2, (0.35, 1.0)), (1.0, (0.1, 1.0))):
        adversary.state.p_pos = goal + np.array([theirs, 0.0])
        for agent, distance in zip(good, ours, strict=True):
            agent.state.p_pos = goal + np.array([0.0, distance])
        measure.step(env, {})
    assert measure.end() == {"frames:0.3/adversary": 2.0, "frames:0.3/agent": 3.0}


def test_measures_with_radii_of_their_own_stand_side_by_side():
    env, world = goals(ADVERSARY)
    goal = world.agents[1].goal_a.state.p_pos
    for agent, distance in zip(world.agents, (0.05, 0.3, 0.3), strict=True):
        agent.state.p_pos = goal + np.array([distance, 0.0])
    measuring = Measuring(["success:0.1", "success", "success:0.5", "success"], 1)
    measuring.start(0, 0, env)
    measuring.step(0, env, Moment(0, {}, Answer(), {}, {}, {}))
    measuring.end(0)
    assert measuring.values[0] == {
        "success:0.1/adversary": 1.0, "success:0.1/agent": 0.0, "success:0.1/difference": -1.0,
        "success/adversary": 1.0, "success/agent": 1.0, "success/difference": 0.0,
        "success:0.5/adversary": 1.0, "success:0.5/agent": 1.0, "success:0.5/difference": 0.0,
    }  # fmt: skip


def test_a_listener_succeeds_at_its_speakers_landmark():
    env, world = goals(SPEAKER)
    speaker, listener = world.agents
    for distance, expected in ((0.3, 1.0), (0.5, 0.0)):
        listener.state.p_pos = speaker.goal_b.state.p_pos + np.array([distance, 0.0])
        measure = make_measure("success")
        measure.step(env, {})
        assert measure.end() == {"success/agent": expected}


def test_infos_are_read_at_the_last_step():
    measure = make_measure("infos/score")
    measure.step(None, {"a": {"score": 9}, "b": {"score": 9}})
    measure.step(None, {"a": {"score": 1}, "b": {"score": 4}, "c": {}})
    assert measure.end() == {"score": 2.5}
    lost = make_measure("infos/scor")
    lost.step(None, {"a": {"score": 1}})
    with pytest.raises(UsageError, match="did you mean 'score'"):
        lost.end()
    for early, late, said in (
        (None, 2, None),
        (1, None, "have None, expected numbers"),
        (1, np.ones(2), "array"),
    ):
        measure = make_measure("infos/score")
        measure.step(None, {"a": {"score": early}})
        measure.step(None, {"a": {"score": late}})
        if said is None:
            assert measure.end() == {"score": 2.0}
        else:
            with pytest.raises(UsageError, match=f"'infos/score': the last infos .*{said}"):
                measure.end()
    with pytest.raises(UsageError, match="has none"):
        Touches().step(Pair(), {})


@pytest.mark.parametrize("key", ["return", "length", "seed", "episode", "return/agent_0"])
def test_infos_named_like_something_in_the_results_are_refused(tags, key):
    with pytest.raises(UsageError, match=f"measure 'infos/{key}': the results have a '{key}' of their own"):
        rlkit.evaluate(tags[0], episodes=1, measures=[f"infos/{key}"])


def test_two_measures_of_one_name_are_refused():
    measuring = Measuring(["infos/touches", "touches"], 1)
    measuring.start(0, 0, None)
    env = make_env(TAG, SHORT)
    env.reset(seed=0)
    measuring.step(0, env, Moment(0, {}, Answer(), {}, {}, {}, {"a": {"touches": 1}}))
    with pytest.raises(UsageError, match="measure 'touches': another measure gives 'touches' too"):
        measuring.end(0)


@pytest.mark.parametrize(
    ("globs", "matrix", "message"),
    [
        ("adversary_*=A", False, "expected A, B"),
        ("adversary_*=A,agent_1=B", False, "nobody plays 'agent_0'"),
        ("adversary_*=A,agent_*=B,wolf=A", False, "wolf=A fits no agent"),
        ("adversary_*=A,agent_*=C", False, "expected A, B"),
        ("adversary_*:A", False, "expected GLOB=LETTER"),
        ("adversary_*=A,agent_*=C", True, "--matrix needs the letters A and B"),
    ],
)
def test_letters_and_agents_that_do_not_fit(tags, globs, matrix, message):
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        cross_play(tags, globs, episodes=1, matrix=matrix)


def test_spaces_that_differ_and_half_a_command(tags, tmp_path):
    other = checkpoint(tmp_path, TAG, 0, {**SHORT, "num_obstacles": 1})
    with pytest.raises(UsageError, match=r"B \(.*\) cannot play 'agent_0': it learnt the observation_space"):
        cross_play([tags[0], other], SPLIT, episodes=1)
    result = run(str(tags[0]), "--versus", str(tags[1]))
    assert isinstance(result.exception, UsageError)
    assert "--agents" in str(result.exception)
    for name in ("succes", "success:-1", "touches:2"):
        with pytest.raises(UsageError, match="measure"):
            make_measure(name)
