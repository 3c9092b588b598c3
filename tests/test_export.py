"""Exports: the same answers as the Agent, files that name what is wrong, and nothing from a stranger that runs."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.models.configs import FreeLogStdMLPHeadConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch.export import Dim
from trained import trained

import rlkit
from rlkit import rllib
from rlkit.algos.dron import DRONConfig
from rlkit.algos.opponents.graph import OpponentGraph
from rlkit.algos.opponents.history import ActionCode, FeatureOptions
from rlkit.algos.opponents.inputs import LearnerInputs
from rlkit.algos.sampling.actions import ActionMap
from rlkit.algos.sampling.graph import Flatten
from rlkit.errors import CheckpointError, UsageError
from rlkit.files import swap_folder
from rlkit.play import bundle, spaces
from rlkit.play.connectors import ConnectorPolicy
from rlkit.play.evaluation import _alike
from rlkit.play.export import export
from rlkit.play.export.checking import Comparison, compare, draw
from rlkit.play.export.choosing import LOG_STD, ForEnv, TorchSquashedGaussian
from rlkit.play.export.files import describe, write_bundle
from rlkit.play.export.graph import graphs_of
from rlkit.play.graph_policy import Graph, GraphPolicy, Member, Port
from rlkit.play.program import Program, encode
from rlkit.roster import flat
from rlkit.runs.manifest import Manifest

SPACES = [
    gym.spaces.Discrete(3, start=-1),
    gym.spaces.MultiDiscrete([[2, 3], [4, 2]]),
    gym.spaces.MultiBinary((2, 2)),
    gym.spaces.MultiBinary(3),
    gym.spaces.Box(-2.0, 3.0, (2, 3), np.float32),
    gym.spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, 5.0]), dtype=np.float64),
    gym.spaces.Box(0, 9, (3,), np.int64),
    gym.spaces.Dict(
        b=gym.spaces.Box(-1.0, 1.0, (), np.float32), a=gym.spaces.Tuple([gym.spaces.Discrete(2)])
    ),
]


@pytest.fixture(scope="module")
def dqn(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("dqn", tmp_path_factory).path


@pytest.fixture(scope="module")
def dqn_bundle(dqn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(dqn, tmp_path_factory.mktemp("exported") / "policy").path


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_actions_on_tensors_are_those_of_the_map(space: gym.Space, normalize: bool) -> None:
    from rlkit.roster import module_space

    inner, actions = module_space(space), ActionMap(space, normalize, True)
    inner.seed(0)
    rows = [inner.sample() for _ in range(5)]
    batch = _stacked(rows)
    expected = flat(space, actions(batch))
    got = flat(space, ForEnv(actions)(_tensors(batch)))
    for ours, theirs in zip(expected, got, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
        assert ours.dtype == theirs.numpy().dtype


def test_the_parts_of_a_dict_space_keep_their_order() -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    space = gym.spaces.Dict(position=box, angle=box)
    data = json.loads(json.dumps(spaces.to_json(space)))
    assert list(spaces.from_json(data, "here").spaces) == list(space.spaces) == ["position", "angle"]


def test_sampled_squashed_gaussians_are_clipped_like_rllibs() -> None:
    logits = torch.tensor([[0.3, -8.0], [0.3, 1.0]])
    ours = [float(torch.exp(logits[:, 1].clamp(*LOG_STD))[i]) for i in (0, 1)]
    theirs = TorchSquashedGaussian.from_logits(logits)._dist.stddev.squeeze(-1).tolist()
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_from_json(space: gym.Space) -> None:
    text = json.dumps(spaces.to_json(space))
    assert spaces.from_json(json.loads(text), "here") == space


def test_a_one_dimensional_multibinary_space_is_that_of_the_environment() -> None:
    space = gym.spaces.MultiBinary(5)
    again = spaces.from_json(json.loads(json.dumps(spaces.to_json(space))), "here")
    assert (again.n, type(again.n)) == (5, int)
    assert _alike(gym.spaces.MultiBinary((5,)), space)  # a bundle of before
    assert not _alike(gym.spaces.MultiBinary(4), space)
    assert not _alike(gym.spaces.Discrete(4), gym.spaces.Discrete(5))


@pytest.mark.parametrize("dtype", [np.float16, np.uint16])
def test_a_space_that_could_not_be_read_is_not_written(dtype: Any) -> None:
    with pytest.raises(UsageError, match=f"{np.dtype(dtype).name}.* cannot be exported; expected one of"):
        spaces.to_json(gym.spaces.Box(0, 1, (2,), dtype))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"type": "Text"}, "a type that rlkit knows"),
        ({"type": "Box", "low": 0, "high": 1, "shape": [1 << 40], "dtype": "float32"}, "whole number"),
        ({"type": "Box", "low": 0, "high": 1, "shape": [2], "dtype": "object"}, "got dtype 'object'"),
        ({"type": "Discrete", "n": 0, "start": 0}, "got 0"),
    ],
)
def test_spaces_of_a_stranger_are_checked(data: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        spaces.from_json(data, "bundle.json")


def test_flattening_sorts_keys_as_rllib_does() -> None:
    from ray.rllib.utils.numpy import flatten_inputs_to_1d_tensor
    from ray.rllib.utils.spaces import space_utils

    space = gym.spaces.Dict(
        {
            "z": gym.spaces.Discrete(3),
            "a": gym.spaces.Box(-1.0, 1.0, (2, 2)),
            "m": gym.spaces.MultiDiscrete([2, 3]),
        }
    )
    space.seed(1)
    batch = _stacked([space.sample() for _ in range(4)])
    expected = flatten_inputs_to_1d_tensor(
        batch, space_utils.get_base_struct_from_space(space), batch_axis=True
    )
    got = Flatten(space, ())({"obs": _tensors(batch)}, {}, {})[0]["obs"]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-7)


def test_opponent_features_on_tensors_are_those_of_the_history() -> None:
    """Three opponents of which some do not act in a step, all features, and a window."""
    inputs = LearnerInputs(
        gym.spaces.Box(-1.0, 1.0, (2,)),
        None,
        ["a", "b", "c"],
        ActionCode(gym.spaces.Discrete(4)),
        FeatureOptions(window=3),
    )
    graph, rng, rows = OpponentGraph(inputs, moves_first=False), np.random.default_rng(0), np.arange(2)
    state = {name: torch.zeros(2, *t.shape) for name, t in graph.state.items()}
    for t in range(6):
        taken = [[None if rng.random() < 0.3 else int(rng.integers(4)) for _ in range(3)] for _ in rows]
        infos = [
            {
                "opponent_moves": rng.integers(-1, 2, (3, 5)).astype(np.float32),
                "ball_lost": float(rng.integers(2)),
            }
            for _ in rows
        ]
        if t:
            inputs.step(rows, infos, taken, [t, t])
        observations = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
        expected = inputs.columns(rows, observations)
        given = {
            "opponent_action": torch.tensor([[a or 0 for a in row] for row in taken]),
            "opponent_seen": torch.tensor([[a is not None for a in row] for row in taken]),
            "opponent_moves": torch.from_numpy(np.stack([info["opponent_moves"] for info in infos])),
            "ball_lost": torch.tensor([info["ball_lost"] for info in infos]),
        }
        batch, state = graph({"obs": torch.from_numpy(observations)}, given, state)
        assert batch["obs"].keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(batch["obs"][name].numpy(), values, atol=1e-6, err_msg=f"{name} {t}")


@pytest.mark.parametrize("name", ["sac_filtered", "ppo_lstm", "ppo_tag"])
def test_bundles_answer_like_the_agent(
    name: str, ray_local: None, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """A normalised SAC, a recurrent PPO and several agents of PPO."""
    path = trained(name, tmp_path_factory).path
    made = export(path, tmp_path / "policy")
    assert (made.different, made.error < 1e-5) == (0, True)
    other = compare(rlkit.load(path).policy, bundle.read(made.path)[0], seed=7)
    assert other.actions > 90
    assert other.different == 0


class Trio(MultiAgentEnv):
    """Two agents whose actions count from 1 beside one whose actions are scaled."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.agents = self.possible_agents = ["one", "two", "mover"]
        seen = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, seen)
        self.action_spaces = {
            "one": gym.spaces.Discrete(3, start=1),
            "two": gym.spaces.Discrete(3, start=1),
            "mover": gym.spaces.Box(0.0, 4.0, (2,), np.float32),
        }
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)


def dron_pair() -> ConnectorPolicy:
    """Two DRON agents, untrained, that watch each other's actions, which count from 1."""
    env = Trio()
    for spaces_of in (env.observation_spaces, env.action_spaces):
        del spaces_of["mover"]
    config = (
        DRONConfig().environment("trio").training(opponents=["*"], features=["last_action", "frequencies"])
    )
    config.multi_agent(policies={"player"}, policy_mapping_fn=lambda agent, *args, **kwargs: "player")
    own = {agent: (env.observation_spaces[agent], env.action_spaces[agent]) for agent in ("one", "two")}
    whole = tuple(gym.spaces.Dict({agent: pair[k] for agent, pair in own.items()}) for k in (0, 1))
    every = {"__env_single__": whole, **own}
    torch.manual_seed(3)
    observing = config.build_env_to_module_connector(spaces=every)
    seen = observing.observation_space["player"], gym.spaces.Discrete(3)
    modules = config.get_multi_rl_module_spec(spaces={"player": seen}).build()
    return ConnectorPolicy(modules, observing, config.build_module_to_env_connector(spaces=every), 1000)


def test_a_bundle_of_several_agents_hears_actions_that_count_from_one_as_the_module_chose_them(
    tmp_path: Path,
) -> None:
    policy = dron_pair()
    write_bundle(tmp_path, Manifest(tmp_path), graphs_of(policy, sample=False), {})
    made = bundle.read(tmp_path)[0]
    found = compare(policy, made)
    assert (found.actions, found.different) == (192, 0)
    for side in (policy, made):
        memory = side.begin("episode")
        side.see(memory, {agent: np.zeros(3, np.float32) for agent in ("one", "two")}, {})
        (answer,) = side.act([memory])
        assert {a: int(v) for a, v in answer.actions.items()} == {
            a: int(v) + 1 for a, v in answer.module_actions.items()
        }


@pytest.mark.parametrize(("normalized", "expected"), [(True, [-1.0, 0.5]), (False, [0.0, 3.0])])
def test_a_graph_tells_what_a_module_chose_of_a_scaled_box(normalized: bool, expected: list[float]) -> None:
    env = Trio()
    port = Port("action", "action", (2,), "float32")
    graph = Graph(
        lambda inputs: {"action": np.array([[0.0, 3.0]], np.float32)},
        (Port("obs", "obs", (3,), "float32"),),
        (port,),
    )
    member = Member("m", env.observation_spaces["mover"], env.action_spaces["mover"], graph, None)
    policy = GraphPolicy({"mover": member}, env.observation_space, env.action_space, normalized=normalized)
    memory = policy.begin("episode")
    policy.see(memory, {"mover": np.zeros(3, np.float32)})
    (answer,) = policy.act([memory])
    assert answer.actions["mover"].tolist() == [0.0, 3.0]
    assert answer.module_actions["mover"].tolist() == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "error"),
    [
        ([1.0, 4.0], [1.0, 6.0], 0.5),
        ([1.0], [np.nan], np.inf),
        ([np.nan], [1.0], np.inf),
        ([np.nan], [np.nan], np.inf),
        ([-np.inf], [-3e38], np.inf),
        ([-3e38], [-np.inf], np.inf),
        ([-np.inf, np.inf], [-np.inf, np.inf], 0.0),
        ([np.inf], [-np.inf], np.inf),
    ],
)
def test_the_check_of_an_export_sees_nan_and_infinities(
    ours: list[float], theirs: list[float], error: float
) -> None:
    found = Comparison().with_numbers(ours, theirs, True)
    assert (found.error, found.different) == (error, int(error > 0))
    assert found.with_numbers([1.0], [1.0], True).error == error


def test_a_policy_that_puts_out_nan_has_no_export(
    dqn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlkit.play import export as exports

    monkeypatch.setattr(
        exports, "_compared", lambda *args: Comparison(9, 0).with_numbers([np.nan], [0.0], False)
    )
    with pytest.raises(
        CheckpointError, match=r"numbers by up to inf; .* \(inf: NaN, or an infinity on one side"
    ):
        export(dqn, tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clip", [True, False])
def test_heads_with_a_free_deviation_are_traced_for_any_number_of_rows(clip: bool) -> None:
    config = FreeLogStdMLPHeadConfig(
        input_dims=[3], output_layer_dim=4, hidden_layer_dims=[], clip_log_std=clip, log_std_clip_param=2.0
    )
    head = config.build(framework="torch")
    torch.nn.init.constant_(head.log_std, 3.0)
    with rllib.traceable_heads(head):
        made = torch.export.export(
            head, (torch.zeros(3, 3),), dynamic_shapes=({0: Dim("rows", min=0)},), strict=False
        )
    for rows in (0, 1, 5):
        values = torch.randn(rows, 3)
        assert torch.equal(made.module()(values), head(values))
    assert head(torch.zeros(2, 3))[0, 2] == (2.0 if clip else 3.0)


def test_onnx_answers_like_the_agent_and_is_played(dqn: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    made = export(dqn, tmp_path / "policy.onnx")
    assert (made.different, list(made.inputs), list(made.outputs)) == (0, ["obs"], ["action", "q_values"])
    ours, theirs = (rlkit.evaluate(path, episodes=3, seed=5) for path in (dqn, made.path))
    assert [row.ret for row in ours.rows] == [row.ret for row in theirs.rows]
    with pytest.raises(UsageError, match="greedy choice alone"):
        rlkit.load(made.path).act(np.zeros(4, np.float32), explore=True)
    description(made.path, lambda graph: graph["outputs"][0].update(name="choice"))
    with pytest.raises(CheckpointError, match=r"graph 0 fails .*choice"):
        rlkit.load(made.path).act(np.zeros(4, np.float32))
    description(made.path, lambda graph: graph["inputs"].clear())
    with pytest.raises(CheckpointError, match="a graph has 0 ports of the role 'obs', its space has 1 parts"):
        rlkit.load(made.path)


def description(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what an ONNX file says of its graph."""
    import onnx

    model = onnx.load(file)
    (entry,) = (prop for prop in model.metadata_props if prop.key == bundle.METADATA)
    said = json.loads(entry.value)
    change(said["graphs"][0])
    entry.value = json.dumps(said)
    onnx.save(model, file)


def test_a_pt2_file_samples_from_its_noise(dqn: Path, tmp_path: Path) -> None:
    made = export(dqn, tmp_path / "policy.pt2", explore=True)
    assert list(made.inputs) == ["obs", "noise"]
    run = torch.export.load(made.path).module()
    rows = 2000
    noise = torch.rand(rows, 3)
    action, q_values = run(torch.zeros(rows, 4), noise)
    greedy = q_values.argmax(-1)
    noise[:, 0] = 1.0  # never below epsilon
    assert torch.equal(run(torch.zeros(rows, 4), noise)[0], greedy)
    assert 0 < (action != greedy).float().mean() < 0.6


def test_a_bundle_evaluates_like_its_checkpoint(dqn: Path, dqn_bundle: Path) -> None:
    ours, theirs = (rlkit.evaluate(path, episodes=4, seed=3) for path in (dqn, dqn_bundle))
    assert [row.ret for row in ours.rows] == [row.ret for row in theirs.rows]
    agent, observation = rlkit.load(dqn_bundle), np.zeros(4, np.float32)
    np.testing.assert_allclose(agent.q_values(observation), rlkit.load(dqn).q_values(observation), atol=1e-6)
    sampled = {int(a) for a in agent.act(np.zeros((200, 4), np.float32), explore=True)}
    assert sampled == {0, 1}


def test_a_bundle_does_not_tell_where_data_and_first_weights_lay() -> None:
    recipe = {
        "data": "/home/me/x.npz",
        "init_from": {"a*": "/home/me/runs/a", "b": "zoo/dqn_cartpole"},
        "env": "/a",
    }
    notes: Any = SimpleNamespace(iteration=1, env_steps=2, recipe=recipe)
    said = describe(notes, {}, {})["recipe"]
    assert said == {"data": "x.npz", "init_from": {"a*": "a", "b": "zoo/dqn_cartpole"}, "env": "/a"}


def test_a_bundle_needs_neither_ray_nor_pickle_nor_what_checks_recipes(dqn_bundle: Path) -> None:
    code = (
        "import sys, pickle, numpy\n"
        "def refuse(*a, **k): raise AssertionError('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        "import rlkit\n"
        f"agent = rlkit.load({str(dqn_bundle)!r})\n"
        "assert agent.act(numpy.zeros(4, 'float32')) in (0, 1)\n"
        "assert not {'ray', 'pydantic', 'yaml'} & {name.split('.')[0] for name in sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_can_read_one_file_of_a_bundle_can_read_the_other(dqn_bundle: Path) -> None:
    modes = {name: (dqn_bundle / name).stat().st_mode for name in (bundle.NAME, bundle.WEIGHTS)}
    assert modes[bundle.NAME] == modes[bundle.WEIGHTS]


def test_a_damaged_or_forged_bundle_is_named(dqn_bundle: Path, tmp_path: Path) -> None:
    said = json.loads((dqn_bundle / bundle.NAME).read_text())
    weights = (dqn_bundle / bundle.WEIGHTS).read_bytes()

    def forged(name: str, change: Any, raw: bytes = weights) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        copy = json.loads(json.dumps(said))
        change(copy)
        (folder / bundle.NAME).write_text(json.dumps(copy))
        (folder / bundle.WEIGHTS).write_bytes(raw)
        return folder

    def node(value: Any) -> Any:
        return lambda d: d["graphs"][0]["program"]["nodes"].__setitem__(0, value)

    def feed(**given: Any) -> Any:
        return lambda d: d["members"][0].update(feeds=[given])

    cases = {
        "operation": (node(["from_file.default", ["/etc/passwd"], {}]), "none of those a program may use"),
        "attribute": (node(["__import__", ["os"], {}]), "none of those a program may use"),
        "forward": (node(["relu.default", [{"v": 999}], {}]), "refers to nothing before it"),
        "large": (node(["zeros.default", [[1 << 50]], {}]), "expected at most"),
        "dtype": (lambda d: d["graphs"][0]["inputs"][0].update(dtype="O"), "has dtype 'O'"),
        "output": (lambda d: d["graphs"][0]["program"].update(outputs=[[[]]]), "got the output"),
        "format": (lambda d: d.update(format=99), "has format 99"),
        "endless": (lambda d: d.update(env_steps=math.inf), "incomplete or damaged"),
        "no place": (lambda d: d["members"][0].update(greedy=math.inf), "incomplete or damaged"),
        "no inputs": (lambda d: d["graphs"][0]["program"].update(inputs=math.inf), "not a program"),
        "members": (lambda d: d.pop("members"), "incomplete or damaged"),
        "recipe": (lambda d: d.update(recipe=[]), "recipe is a list"),
        "stop": (lambda d: d["recipe"].update(stop=[1]), r"recipe.stop is '\[1\]'"),
        "config": (lambda d: d["recipe"].update(env_config="x"), "recipe.env_config is 'x'"),
        "patience": (lambda d: d["recipe"].update(env_timeout_s=-1), "env_timeout_s is -1"),
        "iteration": (lambda d: d.update(iteration="x"), "iteration and versions"),
        "versions": (lambda d: d.update(versions=[1]), "iteration and versions"),
        "outputs": (lambda d: d["graphs"][0].update(outputs=[]), "names 0 outputs, its program"),
        "feed": (lambda d: d["members"][0].update(feeds=[{"kind": "opponents"}]), "incomplete or damaged"),
        "team": (feed(kind="sub_policy", team="x", size=0), "size of a feed is 0"),
        "opponents": (feed(kind="opponents", opponents=3), "opponents of a feed is '3', expected list"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(CheckpointError, match=message):
            rlkit.load(forged(name, change))
    with pytest.raises(CheckpointError, match="bytes instead of"):
        rlkit.load(forged("short", lambda d: None, weights[:-9]))
    with pytest.raises(CheckpointError, match="sha256 is not the one"):
        rlkit.load(forged("edited", lambda d: None, weights[:-1] + bytes([weights[-1] ^ 1])))
    for name, config in (
        ("limit", {"max_episode_steps": -5}),
        ("id", {"id": "evil:x-v0"}),
        ("mode", {"render_mode": 5}),
    ):
        made = forged(f"env_{name}", lambda d, config=config: d["recipe"].update(env_config=config))
        with pytest.raises(UsageError, match="cannot make the environment CartPole-v1: "):
            rlkit.evaluate(made, episodes=1)
    linked = forged("linked", lambda d: None)
    (linked / bundle.WEIGHTS).unlink()
    (linked / bundle.WEIGHTS).symlink_to(dqn_bundle / bundle.WEIGHTS)
    with pytest.raises(CheckpointError, match="got a link"):
        rlkit.load(linked)


def test_a_program_takes_no_tensor_apart_into_a_million_pieces() -> None:
    data = {
        "inputs": 1,
        "nodes": [["expand.default", [{"v": 0}, [1 << 20]], {}], ["unbind.int", [{"v": 1}, 0], {}]],
        "outputs": [{"v": 1}],
    }
    with pytest.raises(ValueError, match="expected at most 4,096 pieces"):
        Program(data, {}, "here")([torch.ones(1)])


def ran() -> None:
    raise AssertionError("a stranger's pickle ran")


class Bomb:
    def __reduce__(self) -> Any:
        return ran, ()


def test_the_state_of_a_curriculum_in_a_strangers_bundle_is_not_unpickled(
    dqn_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "bundle"
    shutil.copytree(dqn_bundle, folder)
    said = json.loads((folder / bundle.NAME).read_text())
    said["recipe"]["curriculum"] = {"lessons": [{"task": {}}]}
    (folder / bundle.NAME).write_text(json.dumps(said))
    state = folder / "callback_CurriculumCallback" / "state.pkl"
    state.parent.mkdir()
    state.write_bytes(pickle.dumps(Bomb()))
    assert len(rlkit.evaluate(folder, episodes=1).rows) == 1


def test_programs_are_data() -> None:
    weights = {"w": torch.eye(2)}
    data = {
        "inputs": 1,
        "nodes": [["linear.default", [{"v": 0}, {"w": "w"}], {}], ["mul.Tensor", [{"v": 1}, 2], {}]],
        "outputs": [{"v": 2}],
    }
    (out,) = Program(data, weights, "here")([torch.tensor([[1.0, 2.0]])])
    assert out.tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [["mul", [{"w": "n"}, 9], {}], *(["mul", [{"v": i}, {"v": i}], {}] for i in range(1, 9))],
            "beyond 9223",
        ),
        ([["mul", [[1, 2], 1 << 26], {}]], "expected numbers, got"),
        ([["mul", ["text", 1 << 26], {}]], "expected numbers, got"),
        ([["cat.default", [[{"v": i}, {"v": i}]], {}] for i in range(12)], "hold more than 1,000 numbers"),
        ([["zeros.default", [[10**400]], {}]], "got the number 1000.*expected at most"),
    ],
    ids=["squares", "a list", "a text", "doubled", "large"],
)
def test_a_program_cannot_grow_without_end(
    nodes: list, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlkit.play.program.RESULTS", 1000)
    data = {"inputs": 1, "nodes": nodes, "outputs": [{"v": len(nodes)}]}
    with pytest.raises((CheckpointError, TypeError, ValueError), match=message):
        Program(data, {"n": 9}, "here")([torch.zeros(1)])  # type: ignore[dict-item]


def test_a_view_of_another_memory_format_is_run_as_a_copy() -> None:
    class Turned(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turned = x.permute(0, 2, 1).clone(memory_format=torch.contiguous_format)
            return torch.ops.aten._unsafe_view.default(turned, [1, 6])

    picture = torch.arange(6.0).reshape(1, 2, 3)
    data, weights = encode(torch.export.export(Turned(), (picture,)), str)
    (out,) = Program(json.loads(json.dumps(data)), weights, "here")([picture])
    assert out.tolist() == [[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]


def test_targets_that_make_no_sense_are_named(dqn: Path, dqn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out, said in {"policy.h5": "suffix '.h5'", "full": "something else in it"}.items():
        with pytest.raises(UsageError, match=said):
            export(dqn, tmp_path / out)
    kept = tmp_path / "kept"
    shutil.copytree(dqn_bundle, kept)
    (kept / "notes.md").write_text("mine")
    with pytest.raises(UsageError, match=r"something else in it \(notes.md\)"):
        export(dqn, kept)
    shutil.rmtree(kept)
    with pytest.raises(UsageError, match="is an export itself"):
        export(dqn_bundle, tmp_path / "again")
    (tmp_path / "full" / "policy.pt2").touch()
    with pytest.raises(UsageError, match=r"is for torch.export.load; rlkit reads .onnx"):
        rlkit.load(tmp_path / "full" / "policy.pt2")
    (tmp_path / "full" / "policy.pt2").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no folder of its own"):
        export(dqn, tmp_path / "pipe")
    with pytest.raises(NotADirectoryError):
        swap_folder(tmp_path / "full", tmp_path / "pipe")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "pipe", "thesis.txt"]


def test_masks_are_drawn_with_something_allowed() -> None:
    space = gym.spaces.Dict(
        observation=gym.spaces.Box(0.0, 1.0, (2,)), action_mask=gym.spaces.Box(0, 1, (5,), np.int8)
    )
    rng = np.random.default_rng(0)
    assert all(draw(space, rng, gym.spaces.Discrete(5))["action_mask"].any() for _ in range(200))


def _stacked(rows: list[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {key: _stacked([row[key] for row in rows]) for key in rows[0]}
    return (
        tuple(map(_stacked, map(list, zip(*rows, strict=True))))
        if isinstance(rows[0], tuple)
        else np.stack(rows)
    )


def _tensors(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _tensors(part) for key, part in batch.items()}
    return tuple(map(_tensors, batch)) if isinstance(batch, tuple) else torch.from_numpy(batch)


@pytest.mark.parametrize("model", ["gru", "attention"])
def test_models_with_memory_keep_their_state_in_the_graph(
    model: str, ray_local: None, tmp_path: Path
) -> None:
    recipe = {
        "name": model,
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "model": {"name": model},
        "config": {
            "training": {"train_batch_size_per_learner": 64, "num_epochs": 1, "minibatch_size": 64},
            "env_runners": {"num_env_runners": 0},
        },
        "stop": {"iterations": 1},
    }
    run = rlkit.train(recipe, out=tmp_path)
    made = export(run.path, tmp_path / "bundle")
    assert any(name.startswith("state/") for name in made.inputs)
    assert (made.different, made.error < 1e-5) == (0, True)
