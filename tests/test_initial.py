"""`init_from`: what is taken, resized or left; errors before training; nothing unpickled unverified."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maddpg_envs import Sum
from maddpg_samples import config_of, learner_of

import rlkit
from rlkit import recipe as recipes
from rlkit.errors import CheckpointError, UsageError
from rlkit.launch import initial
from rlkit.play.export import export

TINY: dict[str, Any] = {
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "model": {"name": "mlp", "hiddens": [8]},
    "config": {
        "training": {"train_batch_size_per_learner": 32, "num_epochs": 1, "minibatch_size": 32, "lr": 1e-12},
        "env_runners": {"num_env_runners": 0},
    },
    "stop": {"iterations": 1},
}
DQN = {
    **TINY,
    "algorithm": "DQN",
    "config": {
        "training": {
            "train_batch_size_per_learner": 8,
            "num_steps_sampled_before_learning_starts": 32,
            "lr": 1e-12,
        },
        "env_runners": {"num_env_runners": 0},
        "reporting": {"min_sample_timesteps_per_iteration": 64},
    },
}


def test_the_target_models_of_inferred_policies_begin_equal_to_the_models() -> None:
    learner = learner_of(config_of(Sum, infer_policies=True))
    module = learner.module["a_0"].unwrapped()
    given = {
        name: np.full(tuple(v.shape), 0.5, np.float32) for name, v in module.inferred.state_dict().items()
    }
    initial._put(learner, {"a_0": {f"inferred.{name}": value for name, value in given.items()}})
    for name, value in module.target_inferred.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), given[name])


def weights(run: Any) -> dict[str, np.ndarray]:
    return {
        k: v.numpy()
        for k, v in rlkit.load(run.last_checkpoint).modules["default_policy"].state_dict().items()
    }


@pytest.fixture(scope="module")
def first(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return rlkit.train({**TINY, "name": "first"}, out=tmp_path_factory.mktemp("runs"))


def test_names_shapes_and_roles() -> None:
    """By name; by the part's role in another algorithm; the common block of another shape; the rest is left."""
    source = {
        "encoder.actor_encoder.net.weight": np.arange(6.0).reshape(2, 3),
        "pi.weight": np.ones((4, 2)),
        "vf.weight": np.ones((1, 2)),
    }
    rows, values = initial.match(
        {"encoder.net.weight": (2, 4), "af.weight": (4, 2), "vf.weight": (1, 2), "extra": (3,)}, source
    )
    assert {row.name: row.how for row in rows} == {
        "encoder.net.weight": "resized",
        "af.weight": "taken",
        "vf.weight": "taken",
        "extra": "left",
    }
    assert values["encoder.net.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    smaller, _ = initial.match({"pi.weight": (3, 2)}, source)
    assert (smaller[0].how, smaller[0].numbers) == ("resized", 6)


def test_a_run_begins_with_the_weights_of_another(first: Any, tmp_path: Path) -> None:
    """The learning rate is next to 0, so that what was taken is what comes out."""
    run = rlkit.train({**TINY, "name": "second", "seed": 5, "init_from": str(first.path)}, out=tmp_path)
    ours, theirs = weights(run), weights(first)
    assert ours.keys() == theirs.keys()
    assert all(np.allclose(ours[name], theirs[name]) for name in ours)
    (table,) = run.path.glob("*/init_from.txt")
    assert "resized" not in table.read_text()


def test_a_resumed_run_takes_nothing_again(first: Any, tmp_path: Path) -> None:
    import shutil

    source = tmp_path / "source"
    shutil.copytree(first.path, source)
    config = {**TINY["config"], "training": {**TINY["config"]["training"], "lr": 0.1}}
    run = rlkit.train({**TINY, "name": "go", "config": config, "init_from": str(source)}, out=tmp_path)
    shutil.rmtree(source)
    before = weights(run)
    again = rlkit.resume(run.path, {"stop.iterations": 2})
    assert again.status == "done"
    assert any(not np.array_equal(weights(again)[name], before[name]) for name in before)


def test_a_bundle_of_ppo_begins_a_dqn_and_its_target(first: Any, tmp_path: Path) -> None:
    made = export(first.path, tmp_path / "bundle")
    run = rlkit.train({**DQN, "name": "dqn", "init_from": {"*": str(made.path)}}, out=tmp_path)
    ours, theirs = weights(run), weights(first)
    assert np.allclose(
        ours["encoder.net.layers.0.weight"], theirs["encoder.actor_encoder.net.layers.0.weight"]
    )
    state = run.last_checkpoint / "learner_group/learner/rl_module/default_policy/module_state.pkl"
    kept = pickle.loads(state.read_bytes())
    targets = {name: value for name, value in kept.items() if name.startswith("_target_")}
    assert targets
    assert all(np.allclose(value, kept[name.removeprefix("_target_")]) for name, value in targets.items())
    (table,) = run.path.glob("*/init_from.txt")
    assert "left     vf" in table.read_text()


def test_remote_learners_and_runners_begin_with_them(first: Any, tmp_path: Path) -> None:
    config = {**TINY["config"], "env_runners": {"num_env_runners": 1}, "learners": {"num_learners": 1}}
    run = rlkit.train(
        {**TINY, "name": "far", "seed": 6, "config": config, "init_from": str(first.path)}, out=tmp_path
    )
    ours, theirs = weights(run), weights(first)
    assert all(np.allclose(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"init_from": "nowhere"}, "no such run"),
        ({"init_from": {"predators": "{first}"}}, "'predators' matches no policy"),
        ({"init_from": "{first}#agent_0"}, "has no policy 'agent_0'"),
    ],
)
def test_what_does_not_fit_is_named_before_training(
    change: dict[str, Any], said: str, first: Any, tmp_path: Path
) -> None:
    given = change["init_from"]
    put = {k: v.format(first=first.path) for k, v in given.items()} if isinstance(given, dict) else given.format(
        first=first.path
    )  # fmt: skip
    with pytest.raises(UsageError, match=said):
        rlkit.train({**TINY, **change, "init_from": put, "name": "wrong"}, out=tmp_path)
    assert not list(tmp_path.glob("*/*/trial*"))


def test_weights_of_which_nothing_fits_are_named(first: Any) -> None:
    with pytest.raises(UsageError, match=r"got encoder.* 8x4.* expected other\.weight 3x3"):
        initial.plans(str(first.path), {"default_policy": {"other.weight": (3, 3)}})


def altered(
    first: Any, folder: Path, change: Callable[[torch.Tensor], torch.Tensor], prefix: str = ""
) -> str:
    """A stranger's bundle, whose description fits its weights."""
    from safetensors.torch import load_file, save_file

    made = export(first.path, folder / "bundle")
    file, note = made.path / "weights.safetensors", made.path / "bundle.json"
    old = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    save_file({prefix + name: change(value) for name, value in load_file(file).items()}, file)
    text = note.read_text().replace(str(old["sha256"]), hashlib.sha256(file.read_bytes()).hexdigest())
    note.write_text(text.replace(f'"bytes": {old["bytes"]}', f'"bytes": {file.stat().st_size}'))
    return str(made.path)


@pytest.mark.parametrize(
    ("change", "prefix", "said"),
    [
        (lambda value: value * float("nan"), "", "holds NaN, infinite or huge numbers, expected finite ones"),
        (lambda value: value.double() + 1e300, "", "holds NaN, infinite or huge numbers"),
        (lambda value: value.to(torch.complex64), "", "holds complex64 numbers"),
        (lambda value: value[:0].clone(), "", "nothing in .* fits policy"),
        (lambda value: value, "other/", "holds no weights of a policy"),
    ],
)
def test_odd_weights_of_a_bundle_are_named(
    change: Any, prefix: str, said: str, first: Any, tmp_path: Path
) -> None:
    bundle = altered(first, tmp_path, change, prefix)
    with pytest.raises(UsageError, match=said):
        initial.plans(bundle, {"default_policy": {"pi.net.mlp.0.weight": (2, 8)}})


def test_weights_of_half_precision_are_taken(first: Any, tmp_path: Path) -> None:
    bundle = altered(first, tmp_path, lambda value: value.bfloat16())
    (plan,) = initial.plans(bundle, {"default_policy": {"pi.net.mlp.0.weight": (2, 8)}})
    assert plan.values["pi.net.mlp.0.weight"].dtype == np.float32


def test_a_checkpoint_of_another_user_needs_trust(
    first: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLKIT_KEY", str(tmp_path / "other.key"))
    with pytest.raises(CheckpointError, match="--trust"):
        rlkit.train({**TINY, "name": "wary", "init_from": str(first.path)}, out=tmp_path)
    with pytest.raises(UsageError, match="trust goes with init_from"):
        rlkit.train({**TINY, "name": "plain"}, out=tmp_path, trust=True)


@pytest.mark.parametrize("given", [3, {}, {"a": 3}, ["runs/x"]])
def test_the_recipe_takes_a_path_or_a_mapping(given: Any) -> None:
    with pytest.raises(recipes.RecipeError, match="init_from"):
        recipes.from_mapping({**TINY, "init_from": given})


def test_a_masked_and_an_unmasked_head_are_the_same_part() -> None:
    masked = {"pi.head.net.mlp.0.weight": np.ones((5, 3)), "vf.head.net.mlp.0.weight": np.ones((1, 3))}
    rows, values = initial.match({"pi.net.mlp.0.weight": (4, 3), "vf.net.mlp.0.weight": (1, 3)}, masked)
    assert [row.how for row in rows] == ["resized", "taken"]
    assert values["pi.net.mlp.0.weight"].shape == (4, 3)
    rows, _ = initial.match({name: value.shape for name, value in masked.items()}, values)
    assert [row.source for row in rows] == ["pi.net.mlp.0.weight", "vf.net.mlp.0.weight"]
