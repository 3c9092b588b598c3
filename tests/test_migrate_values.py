"""What `rlkit migrate` takes over is what the old file says; what it cannot take over has a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlkit.cli import app
from rlkit.errors import UsageError
from rlkit.recipe.migrate import Migrated, migrate


def moved(tmp_path: Path, text: str, name: str = "old.py") -> list[Migrated]:
    """Return what becomes of a file with this text."""
    path = tmp_path / name
    path.write_text(text)
    return migrate(path)


def training(found: Migrated) -> dict[str, Any]:
    assert found.recipe is not None, found.stops
    return found.recipe.config.get("training", {})


PPO = 'PPOConfig().environment("CartPole-v1")'
VALUES = {  # a script, and what its only experiment trains with
    "augmented": (f"lr = 1e-4\nlr *= 10\nc = {PPO}.training(lr=lr)", {"lr": 0.001}),
    "attribute": (f"c = {PPO}.training(lr=1e-3)\nc.lr = 0.1\nc.lr *= 2", {"lr": 0.2}),
    "any name": ('cfg = PPOConfig()\ncfg.environment("CartPole-v1")\ncfg.training(gamma=0.5)', {"gamma": 0.5}),
    "update_from_dict": (f'c = {PPO}\nc.update_from_dict({{"lr": 0.3, "lambda": 0.9}})', {"lr": 0.3, "lambda_": 0.9}),
    "unpacked": ('base = {"lr": 1e-3, "gamma": 0.8}\nc = {**base, "gamma": 0.7, "env": "CartPole-v1"}\n'
                 'tune.run("PPO", config=c)', {"lr": 0.001, "gamma": 0.7}),
    "a dict of any name": ('old = {"env": "CartPole-v1", "lr": 1}\nold.update({"lr": 2e-3})\nold["gamma"] = 0.9\n'
                           "PPOTrainer(config=old)", {"lr": 0.002, "gamma": 0.9}),
    "an argument": (f"gamma = 0.9\ndef f(gamma, lr=1e-3):\n    return {PPO}.training(lr=lr, gamma=gamma)\nf(0.5)",
                    {"lr": 0.001, "gamma": 0.5}),
    "arguments by **": (f"def f(**kw):\n    return {PPO}.training(**kw)\nf(lr=1e-3)", {"lr": 0.001}),
    "a known comparison": (f'A = "x"\nc = {PPO}.training(lr=0.1 if A == "x" else 2)\nif A != "x":\n    c.lr = 3',
                           {"lr": 0.1}),
    "a known branch": (f"BIG = True\nif BIG:\n    lr = 1e-2\nelse:\n    lr = 1e-4\nc = {PPO}.training(lr=lr)",
                       {"lr": 0.01}),
    "main": (f'c = {PPO}\nif __name__ == "__main__":\n    c["lr"] = 0.02', {"lr": 0.02}),
    "the last word": (f'c = {PPO}.training(lr=args.lr)\nc.training(lr=1e-3)', {"lr": 0.001}),
    "run once more": (f'c = {PPO}.training(lr=1e-3)\nif args.tune:\n    tune.run("PPO", config=c)\n'
                      "else:\n    algo = c.build()", {"lr": 0.001}),
    "a template": (f"base = {PPO}\nc = base.copy()\nc.training(lr=1e-3)", {"lr": 0.001}),
    "RLlib's own dict": ('c = DEFAULT_CONFIG.copy()\nc["lr"] = 1e-3\nc["env"] = "CartPole-v1"\nPPOTrainer(config=c)',
                         {"lr": 0.001}),
    "a class": ('tune.run(PPOTrainer, config={"env": "CartPole-v1", "lr": 1e-3})', {"lr": 0.001}),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_the_text_tells(tmp_path: Path, case: str) -> None:
    script, expected = VALUES[case]
    (found,) = moved(tmp_path, script)
    assert (found.stops, training(found)) == ([], expected)
    assert not any("line " in note for note in found.notes)


NOTES = {  # a script, and the line of the output that names what was not taken
    "if": (f"if args.big:\n    lr = 1e-2\nelse:\n    lr = 1e-4\nc = {PPO}.training(lr=lr)",
           "line 2: lr is 0.01 or 0.0001, as the if of line 1 decides; left out"),
    "a call in an if": (f"c = {PPO}\nif args.low:\n    c.training(lr=0.5)",
                        "line 3: lr is 0.5 or not set, as the if of line 2 decides; left out"),
    "for": (f"for lr in [1e-3, 1e-4]:\n    c = {PPO}.training(lr=lr)",
            "line 1: lr is 0.001 or 0.0001, as the loop of line 1 goes; left out"),
    "grown in a loop": (f"lr = 1\nwhile more():\n    lr *= 0.5\nc = {PPO}.training(lr=lr)",
                        "line 3: lr is lr *= 0.5 or 1 at first, as the loop of line 2 goes; left out"),
    "an argument": (f"lr = 0.1\ndef f(lr):\n    return {PPO}.training(lr=lr)",
                    "line 2: lr is the argument lr of f, known only when the script runs; left out"),
    "a key": (f"c = {PPO}\nfor k, lr in extra.items():\n    c[k] = lr",
              "line 3: a key is c[k], known only when the script runs; left out"),
    "unpacked": (f"c = {PPO}.training(**more, gamma=0.9)",
                 "line 1: **more is more, known only when the script runs; left out"),
    "update": (f"c = {PPO}\nc.update_from_dict(load())",
               "line 2: **load() is load(), known only when the script runs; left out"),
    "unknown config": (f"c = {PPO}\nd = get()\nd.training(lr=0.1)",
                       "line 3: training(lr) is called on get(), known only when the script runs; left out"),
    "global": (f"lr = 1\ndef f():\n    global lr\n    lr = 2\nc = {PPO}.training(lr=lr)",
               "line 1: lr is lr, set by functions with `global`; left out"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTES)
def test_a_value_that_only_a_run_knows_is_named(tmp_path: Path, case: str) -> None:
    script, note = NOTES[case]
    (found,) = moved(tmp_path, script)
    assert note in found.notes
    assert "lr" not in training(found)


@pytest.mark.parametrize("turned", [False, True])
def test_a_schedule_overrules_a_plain_value_in_any_order(tmp_path: Path, turned: bool) -> None:
    schedule, horizon = "lr_schedule: [[0, 0.001], [1000, 0.0001]]", "horizon: 200"
    lines = [schedule, "lr: 0.01", horizon, "env_config: {sutton_barto_reward: true}"]
    text = "\n".join(f"    {line}" for line in (lines[::-1] if turned else lines))
    (found,) = moved(tmp_path, f"a:\n  run: PPO\n  env: CartPole-v1\n  config:\n{text}\n", "old.yaml")
    assert found.recipe is not None, found.stops
    recipe = found.recipe
    assert recipe.config["training"]["lr"] == [[0, 0.001], [1000, 0.0001]]
    assert recipe.env_config == {"sutton_barto_reward": True, "max_episode_steps": 200}


def test_networks_of_sac_and_a_buffer_without_priorities(tmp_path: Path) -> None:
    text = """
a:
  run: SAC
  env: Pendulum-v1
  config:
    q_model_config: {fcnet_hiddens: [64, 64], fcnet_activation: relu}
    policy_model_config: {fcnet_hiddens: [128, 128], use_lstm: true}
    prioritized_replay: false
    buffer_size: 5000
"""
    (found,) = moved(tmp_path, text, "old.yaml")
    assert found.recipe is not None, found.stops
    recipe = found.recipe
    assert (recipe.model or {})["fcnet_activation"] == "relu"
    assert (recipe.model or {})["fcnet_hiddens"] == [64, 64]
    buffer = {"type": "EpisodeReplayBuffer", "capacity": 5000}
    assert recipe.config["training"]["replay_buffer_config"] == buffer
    for said in ("policy_model_config.fcnet_hiddens [128, 128] left out", "use_lstm left out"):
        assert any(said in note for note in found.notes), found.notes


def test_nested_keys_of_a_config(tmp_path: Path) -> None:
    script = """\
c = dqn.DEFAULT_CONFIG.copy()
c["exploration_config"] = {"type": "EpsilonGreedy", "final_epsilon": 0.01}
c["exploration_config"]["epsilon_timesteps"] = 777
c["model"]["fcnet_hiddens"] = [8, 8]
trainer = dqn.DQNTrainer(config=c, env="CartPole-v1")
"""
    (found,) = moved(tmp_path, script)
    assert found.recipe is not None
    assert found.recipe.exploration == {
        "type": "EpsilonGreedy",
        "final_epsilon": 0.01,
        "epsilon_timesteps": 777,
    }
    assert found.recipe.model == {"fcnet_hiddens": [8, 8]}


TUNER = """\
config = PPOConfig().environment("CartPole-v1")
tune.Tuner(
    "PPO",
    param_space=config,
    tune_config=tune.TuneConfig(num_samples=4, metric="episode_reward_mean", mode="min", max_concurrent_trials=2),
    run_config=train.RunConfig(
        stop={"timesteps_total": 1e5},
        checkpoint_config=CheckpointConfig(
            checkpoint_frequency=7, num_to_keep=2, checkpoint_score_attribute="episode_len_mean"
        ),
        failure_config=FailureConfig(max_failures=5),
        verbose=1,
    ),
)
"""


@pytest.mark.parametrize(
    "script", [TUNER, TUNER.replace("    run_config=train.R", "    run_config=r)\ntrain.R", 1)]
)
def test_what_tune_is_told(tmp_path: Path, script: str) -> None:
    if "config=r)" in script:  # a RunConfig whose way to the Tuner cannot be read
        script = script.replace("train.RunConfig(\n", "train.RunConfig(").removesuffix(",\n)\n") + "\n"
    (found,) = moved(tmp_path, script)
    assert found.recipe is not None
    recipe = found.recipe
    assert recipe.stop == {"env_steps": 100000}
    assert (recipe.checkpoint.every, recipe.checkpoint.keep, recipe.checkpoint.best) == (
        7,
        2,
        "episode_length",
    )
    tuned = recipe.tune
    assert (tuned.samples, tuned.metric, tuned.mode, tuned.concurrent) == (4, "episode_return", "min", 2)
    assert tuned.max_failures == 5
    assert "checkpoint_config.num_to_keep → checkpoint.keep" in found.notes
    assert "verbose 1 left out: give --verbose or --quiet on the command line" in found.notes


def test_two_experiments_of_a_script_are_two_recipes(tmp_path: Path) -> None:
    script = """\
tune.run("PPO", config={"env": "CartPole-v1", "lr": 1e-3}, stop={"timesteps_total": 1000})
tune.run("DQN", config={"env": "CartPole-v1", "lr": 1e-5}, stop={"episode_reward_mean": 5})
"""
    first, second = moved(tmp_path, script)
    assert first.recipe is not None
    assert second.recipe is not None
    assert (first.name, first.recipe.algorithm, training(first)) == ("old_1", "PPO", {"lr": 0.001})
    assert (second.name, second.recipe.algorithm, training(second)) == ("old_2", "DQN", {"lr": 1e-5})
    assert (first.recipe.stop, second.recipe.stop) == ({"env_steps": 1000}, {"episode_return": 5})
    assert "experiment 2 of the 2 in this script, from line 2 on" in second.notes


def test_experiments_that_differ_in_what_only_a_run_knows_stay_two(tmp_path: Path) -> None:
    first, second = moved(tmp_path, f"a = {PPO}.training(lr=args.a)\nb = {PPO}.training(lr=args.b)")
    assert "line 1: lr is args.a, known only when the script runs; left out" in first.notes
    assert "line 2: lr is args.b, known only when the script runs; left out" in second.notes


def test_limits_that_belong_to_one_of_two_configs_are_named(tmp_path: Path) -> None:
    found = moved(tmp_path, f'stop = {{"timesteps_total": 5}}\na = {PPO}\nb = {PPO}.training(lr=0.1)\n')
    assert len(found) == 2
    assert all(
        "line 1: no call says which experiment stop belongs to; left out" in one.notes for one in found
    )


@pytest.mark.parametrize("first", ['"run": "PPO", ', '"algorithm": "PPO", '])
def test_a_flat_params_json_with_its_algorithm(tmp_path: Path, first: str) -> None:
    text = f'{{{first}"env": "CartPole-v1", "lr": 5e-05, "entropy_coeff": 1e-05, "num_workers": 2, "callbacks": null}}'
    (found,) = moved(tmp_path, text, "params.json")
    assert training(found) == {"lr": 5e-05, "entropy_coeff": 1e-05}
    assert found.recipe is not None
    assert found.recipe.config["env_runners"] == {"num_env_runners": 2}
    assert not any("unknown" in note for note in found.notes)


def test_numbers_with_an_exponent_in_yaml(tmp_path: Path) -> None:
    text = """\
run: PPO
env: CartPole-v1
stop: {timesteps_total: 1e5}
config: {lr: 1e-4, train_batch_size: 4e3, kl_coeff: +5E-1, num_workers: "1e3"}
"""
    (found,) = moved(tmp_path, text, "old.yaml")
    assert training(found) == {"lr": 0.0001, "train_batch_size_per_learner": 4000, "kl_coeff": 0.5}
    assert found.recipe is not None
    assert found.recipe.stop == {"env_steps": 100000}
    assert any("a whole number is expected, got '1e3'" in note for note in found.notes)  # quoted, it is text


@pytest.mark.parametrize(("algorithm", "taken"), [("PPO", True), ("SAC", False)])
def test_a_filter_of_observations_is_an_option_of_ppo(tmp_path: Path, algorithm: str, taken: bool) -> None:
    text = f"run: {algorithm}\nenv: Pendulum-v1\nconfig: {{observation_filter: MeanStdFilter}}\n"
    (found,) = moved(tmp_path, text, "old.yaml")
    assert training(found) == ({"normalize_observations": True} if taken else {})
    assert (
        any(note.startswith("observation_filter has to be written by hand") for note in found.notes) != taken
    )
    (found,) = moved(tmp_path, text.replace("MeanStdFilter", "NoFilter"), "old.yaml")
    assert (training(found), [note for note in found.notes if "filter" in note]) == ({}, [])


def test_names_that_newer_releases_spell_otherwise(tmp_path: Path) -> None:
    script = (
        'c = ImpalaConfig().environment("CartPole-v1").rollouts(max_sample_requests_in_flight_per_worker=3)'
    )
    (found,) = moved(tmp_path, script)
    assert found.recipe is not None, found.stops
    assert found.recipe.algorithm == "IMPALA"
    assert found.recipe.config["env_runners"] == {"max_requests_in_flight_per_env_runner": 3}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.yaml", "run: PPO\nenv: {grid_search: [A-v0, B-v0]}\n",
         "a grid of 2 environments (A-v0, B-v0); expected a name, in a recipe for each"),
        ("a.py", "c = PPOConfig().environment(env=Mine)", "no environment (it is Mine, which only a run knows)"),
        ("a.yaml", "run: DreamerV3\nenv: CartPole-v1\n", "rlkit has no algorithm DreamerV3"),
    ],
)  # fmt: skip
def test_what_stops_a_file_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (found,) = moved(tmp_path, text, name)
    assert reason in found.stops[0]


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    (found,) = moved(tmp_path, "run: PPO\nenv: CartPole-v1\nconfig:\n  lr: 1\n  lr: 0.001\n", "old.yaml")
    assert training(found) == {"lr": 0.001}
    assert "line 5: lr stands there twice; the last counts" in found.notes


def test_a_tag_below_the_config_is_named(tmp_path: Path) -> None:
    text = "run: PPO\nenv: CartPole-v1\nconfig:\n  lr: 0.1\n  env_config: {render_mode: !!python/name:os.system }\n"
    (found,) = moved(tmp_path, text, "old.yaml")
    assert (
        "env_config.render_mode has the tag !!python/name:os.system, which is never made; left out"
        in found.notes
    )
    assert found.recipe is not None
    assert found.recipe.env_config == {}


RECIPE = "algorithm: PPO\nenv: CartPole-v1\nstop: {env_steps: 100}\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "run: PPO\nenv: CartPole-v1\nconfig: !!python/object/apply:os.system [touch RAN]\n",
         "the config of a has the tag !!python/object/apply:os.system, which is never made"),
        ("a.yaml", "run: PPO\nenv: CartPole-v1\nconfig: [1]\n", r"the config of a is '\[1\]'; expected a mapping"),
        ("a.yaml", RECIPE, "this is a recipe already; look at it with `rlkit check"),
        ("a.yaml", RECIPE + "config: {training: {lr: !grid [0.1, 0.2]}}\n", "this is a recipe already"),
        ("a.yaml", "", "the file is empty; expected a mapping with run, env, stop and config"),
        ("a.yaml", "# words\n", "the file holds only comments; expected a mapping"),
        ("a.yaml", "- run: PPO\n- run: DQN\n", "got a list of 2; expected a mapping"),
        ("a.toml", 'env = "CartPole-v1"\n', "got 'env = \"CartPole-v1\"', which is no mapping; expected a mapping"),
        ("a.yaml", "a: &a [*a]\n", "more than 100,000 values"),
        ("a.py", "a = []\n" + "a = [a, a]\n" * 40 + 'tune.run("PPO", config={"x": a})\n', "more than 100,000 values"),
    ],
)  # fmt: skip
def test_what_is_no_old_config_says_what_it_is(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        migrate(tmp_path / name)


def test_experiments_whose_names_are_equal_are_numbered(tmp_path: Path) -> None:
    old = "{env: CartPole-v1, run: PPO, config: {lr: %s}}\n"
    text = "a_exp: " + old % "1e-4" + "a/exp: " + old % "1e-5" + "A exp: " + old % "1e-6"
    assert [found.name for found in moved(tmp_path, text, "old.yaml")] == ["a_exp", "a_exp_2", "A_exp_3"]
    result = CliRunner().invoke(app, ["migrate", str(tmp_path / "old.yaml"), "-o", str(tmp_path)])
    assert result.exit_code == 0
    assert "lr: 1.0e-05" in (tmp_path / "a_exp_2.yaml").read_text()


def test_a_time_budget_a_score_and_an_evaluation_in_env_steps(tmp_path: Path) -> None:
    text = (
        "x:\n  run: PPO\n  env: CartPole-v1\n  time_budget_s: 3600\n  checkpoint_score_attr: episode_reward_mean\n"
        "  config: {evaluation_interval: 5, evaluation_duration: 10000, evaluation_duration_unit: timesteps}\n"
    )
    (found,) = moved(tmp_path, text, "old.yaml")
    assert found.recipe is not None
    assert found.recipe.stop == {"time_s": 3600}
    assert found.recipe.checkpoint.best == "episode_return"
    assert found.recipe.evaluation is not None
    assert found.recipe.evaluation.episodes == 20
    assert any(note.startswith("evaluation_duration 10000 left out: env steps") for note in found.notes)


def test_an_evaluation_s_length_that_is_no_number_has_a_line(tmp_path: Path) -> None:
    (found,) = moved(
        tmp_path, "x: {run: PPO, env: CartPole-v1, config: {evaluation_duration: auto}}", "old.yaml"
    )
    assert any(note.startswith("evaluation_duration 'auto' left out") for note in found.notes)


def old(
    tmp_path: Path, config: str, *, run: str = "DQN", env: str = "CartPole-v1", beside: str = ""
) -> Migrated:
    (found,) = moved(tmp_path, f"run: {run}\nenv: {env}\n{beside}config: {{{config}}}\n", "old.yaml")
    assert found.stops == []
    return found


@pytest.mark.parametrize("flat", [
    "prioritized_replay_alpha: 0.5, prioritized_replay_beta: 0.7",
    "prioritized_replay_beta: 0.7, prioritized_replay_alpha: 0.5, prioritized_replay: true",
])  # fmt: skip
def test_priorities_of_a_flat_config(tmp_path: Path, flat: str) -> None:
    found = old(tmp_path, flat)
    buffer = training(found)["replay_buffer_config"]
    assert (buffer["alpha"], buffer["beta"]) == (0.5, 0.7)
    assert "prioritized_replay_alpha → config.training.replay_buffer_config.alpha" in found.notes
    found = old(tmp_path, f"{flat.removesuffix(', prioritized_replay: true')}, prioritized_replay: false")
    assert training(found)["replay_buffer_config"] == {"type": "EpisodeReplayBuffer"}
    assert "prioritized_replay_beta left out: the buffer has no priorities" in found.notes


def test_explorations_keep_their_options_and_get_their_names(tmp_path: Path) -> None:
    sampling = {"type": "StochasticSampling", "random_timesteps": 1500}
    found = old(tmp_path, f"exploration_config: {sampling}", run="PPO")
    assert found.recipe is not None
    assert found.recipe.exploration == sampling
    for options in ("{type: StochasticSampling}", "{type: StochasticSampling, random_timesteps: 0}"):
        found = old(tmp_path, f"exploration_config: {options}", run="PPO")
        assert found.recipe is not None
        assert found.recipe.exploration is None
        assert any("it is what the algorithm does by itself" in note for note in found.notes)
    found = old(tmp_path, "exploration_config: {type: StochasticSampling}")
    assert any(note.startswith("left out: exploration.type: ") for note in found.notes)
    for name in ("GaussianNoise", "OrnsteinUhlenbeckNoise"):
        given = f"exploration_config: {{type: PerWorker{name}, random_timesteps: 50}}"
        found = old(tmp_path, given, run="SAC", env="Pendulum-v1")
        assert found.recipe is not None
        assert found.recipe.exploration == {"type": name, "random_timesteps": 50}
        assert f"exploration_config → exploration, PerWorker{name} → {name}" in found.notes


def test_a_grid_of_gpus_is_a_grid(tmp_path: Path) -> None:
    found = old(tmp_path, "num_gpus: {grid_search: [0, 1]}")
    assert found.recipe is not None
    assert str(found.recipe.config["learners"]["num_gpus_per_learner"]) == "!grid [0, 1]"
    assert any(note.startswith("num_gpus 'all' left out") for note in old(tmp_path, "num_gpus: all").notes)


def test_samples_are_seeds_from_the_config_s_on(tmp_path: Path) -> None:
    found = old(tmp_path, "seed: 7", beside="num_samples: 3\n")
    assert "num_samples → tune.samples, which are seeds 7, 8, … here" in found.notes
    found = old(tmp_path, "", beside="num_samples: 3\n")
    assert "num_samples → tune.samples, which are seeds 0, 1, … here" in found.notes
    found = old(tmp_path, "seed: null", beside="num_samples: 3\n")
    assert "num_samples → tune.samples" in found.notes


def test_recorded_episodes_and_attention_have_successors(tmp_path: Path) -> None:
    found = old(tmp_path, "input: rollouts, output: rec, model: {use_attention: true}", run="PPO")
    for said in ("input has to be written by hand: data: … of BC", "evaluate CHECKPOINT --record FILE.npz",
                 "use_attention left out: write name: attention"):  # fmt: skip
        assert any(said in note for note in found.notes), found.notes
    assert not any("input" in note for note in old(tmp_path, "input: sampler").notes)
