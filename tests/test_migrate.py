"""Old RLlib configurations become recipes, and what stops one is named. Nothing in them is run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.errors import UsageError
from rlkit.recipe import check, loads
from rlkit.recipe.migrate import migrate
from rlkit.recipe.spaces import SearchSpace
from rlkit.recipe.starter import create

ROOT = Path(__file__).parents[1]
OLD = """\
cart:
    env: CartPole-v0
    run: DQN
    stop: {episode_reward_mean: 150, timesteps_total: 50000}
    num_samples: 2
    checkpoint_freq: 5
    config:
        framework: tf
        n_step: 3
        lr: {grid_search: [0.001, 0.0005]}
        num_workers: 1
        train_batch_size: 64
        model: {fcnet_hiddens: [64], custom_model: mine}
        exploration_config: {final_epsilon: 0.02, epsilon_timesteps: 5000}
        buffer_size: 20000
        horizon: 200
        evaluation_interval: 10
        made_up: 1
walk: {env: CartPole-v1, run: A3C, config: {lr: 0.1}}
"""
STOPS = (
    "names no environment",
    "names no algorithm",
    "has no algorithm",
    "there is no environment",
    "has a grid of",
)
SCRIPT = """\
import os
os.system("touch RAN")
lr = 1e-3 / 2
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_envs_per_env_runner=2 * 4)
    .training(lr=lr, num_epochs=tune.choice([4, 8]), minibatch_size=args.size)
    .callbacks(Mine)
)
config.training(gamma=0.98)
stop = {f"{ENV_RUNNER_RESULTS}/{EPISODE_RETURN_MEAN}": 450.0, NUM_ENV_STEPS_SAMPLED_LIFETIME: 10_000}
"""


def test_yaml_of_rllib_train(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    cart, walk = migrate(path)
    assert cart.stops == []
    recipe = loads(cart.text())
    assert (recipe.algorithm, recipe.env) == ("DQN", "CartPole-v1")
    assert recipe.stop == {"episode_return": 150, "env_steps": 50000}
    training = recipe.config["training"]
    assert training["train_batch_size_per_learner"] == 64
    assert training["replay_buffer_config"] == {"capacity": 20000}
    assert training["lr"] == SearchSpace("grid", (0.001, 0.0005))
    assert recipe.exploration == {"type": "EpsilonGreedy", "final_epsilon": 0.02, "epsilon_timesteps": 5000}
    assert (recipe.model, recipe.tune.samples, recipe.checkpoint.every) == ({"fcnet_hiddens": [64]}, 2, 5)
    assert recipe.env_config == {"max_episode_steps": 200}
    notes = "\n".join(cart.notes)
    for words in (
        "CartPole-v0 → CartPole-v1",
        "made_up has no successor",
        "framework left out",
        "custom_model",
    ):
        assert words in notes, words
    assert walk.recipe is None
    assert "no algorithm A3C; use IMPALA" in walk.stops[0]


def test_a_script_is_read_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "old.py"
    path.write_text(SCRIPT)
    (found,) = migrate(path)
    assert found.stops == []
    assert found.recipe is not None
    training = found.recipe.config["training"]
    assert training == {"lr": 0.0005, "num_epochs": SearchSpace("choice", (4, 8)), "gamma": 0.98}
    assert found.recipe.config["env_runners"] == {"num_envs_per_env_runner": 8}
    assert found.recipe.stop == {"episode_return": 450, "env_steps": 10000}
    assert any("line 8: minibatch_size is args.size" in note for note in found.notes)
    assert any(note.startswith("callbacks has to be written by hand") for note in found.notes)
    assert not (tmp_path / "RAN").exists()


def test_tune_run_with_dicts(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(
        'tune.run("PPO", stop={"training_iteration": 3}, config={"env": "CartPole-v1", "lr": 0.01})\n'
    )
    (found,) = migrate(path)
    assert found.recipe is not None
    assert (found.recipe.algorithm, found.recipe.stop) == ("PPO", {"iteration": 3})


def test_every_example_that_comes_with_ray_becomes_a_recipe_or_names_what_stops_it() -> None:
    """Scripts of `ray.rllib.examples`, read where pip put them: nothing of theirs is copied or run."""
    root = Path(importlib.util.find_spec("ray").submodule_search_locations[0]) / "rllib" / "examples"  # type: ignore[union-attr,index]
    passed, stopped, refused = set(), set(), []
    for path in sorted(root.rglob("*.py")):
        try:
            experiments = migrate(path)
        except UsageError as error:
            refused.append(str(error))
            continue
        name = path.relative_to(root).as_posix()
        if stops := [stop for found in experiments for stop in found.stops]:
            stopped.add(name)
            assert all(any(words in stop for words in STOPS) for stop in stops), (name, stops)
        else:
            passed.add(name)
            for found in experiments:
                loads(found.text())
    assert all("no configuration of RLlib in it" in reason for reason in refused)
    assert len(passed) >= 12
    assert len(passed) + len(stopped) >= 24
    assert {"learners/ppo_with_torch_lr_schedulers.py", "ray_tune/appo_hyperparameter_tune.py"} <= passed
    assert "algorithms/vpg_custom_algorithm.py" in stopped


def test_the_table_of_public_examples_counts_what_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`benchmarks/migrate_public.py` on a repository of its own, with one file of each kind."""
    files = {"good.yaml": "run: PPO\nenv: CartPole-v1\n", "old.yaml": "run: A3C\nenv: CartPole-v1\n"}
    files |= {
        "two.yaml": "a: {run: PPO, env: CartPole-v1}\nb: {run: PPO, env: mine}\n",
        "none.py": "print(1)\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "files"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    public = importlib.import_module("migrate_public")
    monkeypatch.setattr(
        public, "LIST", {"commits": [{"commit": "HEAD", "date": "now", "files": list(files)}]}
    )
    monkeypatch.setattr(sys, "argv", ["migrate_public.py", str(tmp_path)])
    public.main()
    said = capsys.readouterr().out
    head = said.splitlines()[0]
    assert re.findall(r"\d+", head) == ["4", "4", "1", "1", "2"], head
    assert "| `good.yaml` | 1 of 1 | passes |" in said
    assert "| `two.yaml` | 1 of 2 | env: there is no environment 'mine'" in said
    assert "| `none.py` | 0 of 0 | none.py: no configuration of RLlib in it" in said


def test_the_list_of_public_examples_is_the_one_in_the_documentation() -> None:
    commits = json.loads((ROOT / "benchmarks" / "public_examples.json").read_text())["commits"]
    listed = [(c["date"], path.removeprefix("rllib/tuned_examples/")) for c in commits for path in c["files"]]
    page = (ROOT / "docs" / "from-old-rllib.md").read_text()
    assert re.findall(r"^\| (20[\d-]+) \| `(.+?)` \| \d+ of", page, re.M) == listed
    assert len(listed) >= 24


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", b"just words", "expected a mapping"),
        ("a.yaml", b"\xff\xfe\x00\x01", "not text"),
        ("a.yaml", b"a: 1\nb: [", "neither YAML, JSON nor a dict"),
        ("a.yaml", b"shopping: [milk]", "no configuration of RLlib"),
        ("a.py", b"def f(:\n", "not a Python script"),
        ("a.py", b"print(1)\n", "no configuration of RLlib"),
        ("a.yaml", b"x" * (2 << 20), "at most 1 MB"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UsageError, match=message):
        migrate(tmp_path / name)


def test_yaml_makes_no_object(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(
        'run: PPO\nenv: CartPole-v1\nconfig: {lr: !!python/object/apply:os.system ["touch RAN"]}\n'
    )
    (found,) = migrate(path)
    assert not (tmp_path / "RAN").exists()
    assert found.recipe is None or "lr" not in found.recipe.config.get("training", {})


def test_an_environment_that_is_not_registered_leaves_a_draft(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("run: PPO\nenv: mine\nstop: {timesteps_total: 100}\nconfig: {lr: 0.001}\n")
    (found,) = migrate(path)
    assert "there is no environment 'mine'" in found.stops[0]
    assert found.text().startswith("# does not pass its check yet: env")
    assert "env: mine" in found.text()


def test_init_writes_a_project_that_passes_its_check(tmp_path: Path) -> None:
    files = create(tmp_path / "walk")
    assert {path.name for path in files} >= {"recipe.yaml", "parts.py", "README.md", "test_project.py"}
    assert "PROJECT" not in "".join(path.read_text() for path in files)
    from rlkit.registry import load_plugins

    load_plugins([str(tmp_path / "walk" / "parts.py")])
    assert check(tmp_path / "walk" / "recipe.yaml") == []
    with pytest.raises(UsageError, match="exists"):
        create(tmp_path / "walk")
    with pytest.raises(UsageError, match="expected a name"):
        create(tmp_path / "a b")


TEAM = """\
from ray import tune
config = {
    "env": "pettingzoo/mpe2.simple_tag_v3",
    "multiagent": {
        "policies": {"pred": (None, None, None, {"lr": 5e-4}), "prey": PolicySpec(config={"gamma": 0.9})},
        "policy_mapping_fn": lambda agent_id, *a, **k: agent_id[:4],
        "policies_to_train": ["pred"],
        "count_steps_by": "agent_steps",
    },
    "evaluation_interval": 5,
    "evaluation_config": {"explore": False, "env_config": {"max_cycles": 100}},
}
tune.run("PPO", config=config, name="tag_run", local_dir="/tmp/x", scheduler=ASHAScheduler(max_t=50, grace_period=5),
         stop={"training_iteration": 100})
"""


def test_every_part_of_a_team_is_named(tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(TEAM)
    (found,) = migrate(tmp_path / "team.py")
    assert found.recipe is not None
    assert found.recipe.name == "tag_run"
    assert found.recipe.config["multi_agent"] == {"count_steps_by": "agent_steps"}
    assert found.recipe.policies is None
    notes = "\n".join(found.notes)
    for words in (
        "multiagent.policies pred, prey to be written by hand",
        "multiagent.policies.pred: lr of one policy left out",
        "multiagent.policies.prey: gamma of one policy left out",
        "multiagent.policies_to_train pred to be written by hand",
        "policy_mapping_fn is lambda agent_id, *a, **k: agent_id[:4]",
        "evaluation_config.explore left out: evaluation is greedy",
        "evaluation_config.env_config left out: evaluation has the training's",
        "local_dir '/tmp/x' left out: give --out",
        "write tune: {scheduler: {type: asha}}",
    ):
        assert words in notes, words


def test_one_policy_is_shared_and_plain_arguments_are_taken(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        'config = PPOConfig().environment("pettingzoo/mpe2.simple_spread_v3")\n'
        'config.multi_agent(policies={"all"}, policy_mapping_fn=lambda a, *b: "all", count_steps_by="agent_steps")\n'
        "config.offline_data(output_max_rows_per_file=100)\n"
        "algo = config.build()\n"
        "for i in range(50):\n"
        "    if algo.train()['episode_reward_mean'] > 450:\n"
        "        break\n"
    )
    (found,) = migrate(tmp_path / "one.py")
    assert found.recipe is not None
    assert found.recipe.policies == "shared"
    assert found.recipe.config["multi_agent"] == {"count_steps_by": "agent_steps"}
    notes = "\n".join(found.notes)
    assert "<code>" not in notes
    assert "the loop that trains has a limit of its own (range(50), and a break)" in notes
    assert "no limit found: stop.env_steps 100,000 added" in notes
