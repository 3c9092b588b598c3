"""Reading, checking and writing recipes: what a user sees."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.recipe import Recipe, RecipeError, SearchSpace
from rlkit.recipe.scalars import BadScalar, needs_quotes, read_scalar

FOLDER = Path(__file__).parent / "recipes"
GOOD = sorted((FOLDER / "good").glob("*.yaml"))
CONFIGS = FOLDER.parents[1] / "configs"
MINIMAL = "algorithm: PPO\nenv: CartPole-v1\nstop: {iterations: 3}\n"


def errors(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipes.loads(text)
    return [str(p) for p in caught.value.problems]


def test_defaults() -> None:
    recipe = recipes.loads(MINIMAL, name="first try")
    assert recipe.name == "first_try"
    assert recipe.seed == 0
    assert recipe.stop == {"iteration": 3.0}
    assert recipe.checkpoint.best == "episode_return"
    assert recipe.tune.samples == 1
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_an_error_crosses_processes_whole() -> None:
    """Ray copies and pickles what a worker raises."""
    with pytest.raises(RecipeError) as caught:
        recipes.loads("algorithm: PPO\nenvv: CartPole-v1\n")
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert str(again) == str(caught.value)
        assert again.problems == caught.value.problems


def test_evaluation_chooses_the_best_checkpoint() -> None:
    recipe = recipes.loads(MINIMAL + "evaluation: {every: 1}\n")
    assert recipe.checkpoint.best == "eval/episode_return"
    recipe = recipes.loads(MINIMAL + "evaluation: {every: 1}\ncheckpoint: {best: episode_return}\n")
    assert recipe.checkpoint.best == "episode_return"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E-3", 0.001), ("1e6", 1_000_000), ("2.5e+3", 2500.0), (".5", 0.5), ("-.5", -0.5),
        ("5.", 5.0),
        ("1_000", 1000), ("0", 0), ("-0", 0), ("+3", 3), ("0x1F", 31), ("1e20", 1e20), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("yess", "yess"), ("CartPole-v1", "CartPole-v1"), ("1.2.3", "1.2.3"),
        ("nan", "nan"), ("e3", "e3"), ("-", "-"), ("1e", "1e"), ("on_policy", "on_policy"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "NO", "On", "off", "y", "010", "0b1", "0o7", "1:30", "1:30:20.5", ".nan",
                                  "-.inf", "1e999",
                                  "2026-01-01", "9" * 30, "99999999999999999999"])  # fmt: skip
def test_ambiguous_scalars_are_errors(text: str) -> None:
    found = read_scalar(text)
    assert isinstance(found, BadScalar)
    assert found.fix
    assert needs_quotes(text)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_pyyaml_agrees_on_what_we_write(path: Path) -> None:
    """`recipe.yaml` of a run is read the same by any YAML 1.1 reader, apart from our tags."""
    recipe = recipes.load(path)
    text = recipes.dump(recipe)
    if "!" not in text:
        plain = yaml.safe_load(text)
        assert {key: plain[key] for key in ("name", "algorithm", "env", "stop")} == {
            "name": recipe.name, "algorithm": recipe.algorithm, "env": recipe.env, "stop": recipe.stop,
        }  # fmt: skip
        assert plain.get("config", {}) == recipe.to_dict()["config"]


@pytest.mark.parametrize(
    "value",
    [
        "no",
        "1e-3",
        "010",
        "1:30",
        "2026-01-01",
        "",
        " x ",
        "a\nb",
        "é",
        "null",
        "x: y",
        "#",
        "\x07",
        "-",
        "5",
        "@x",
    ],
)
def test_odd_text_round_trips(value: str) -> None:
    recipe = recipes.loads(MINIMAL).model_copy(
        update={"env_config": {"text": value, "many": [value, {"k": value}]}}
    )
    text = recipes.dump(recipe)
    # An environment whose arguments are not known.
    read = recipes.loads(text.replace("CartPole-v1", "pettingzoo/sisl.multiwalker_v9"))
    assert read.env_config == recipe.env_config


@pytest.mark.parametrize("value", [1e-5, 1e16, 1e22, 0.1, -0.0, 123456789.123, 5.0, 2**62])
def test_numbers_round_trip(value: float) -> None:
    recipe = recipes.loads(
        MINIMAL.replace("CartPole-v1", "pettingzoo/sisl.multiwalker_v9"), {"env_config.x": value}
    )
    assert recipes.loads(recipes.dump(recipe)).env_config == {"x": value}


def test_search_spaces_survive() -> None:
    recipe = recipes.load(FOLDER / "good" / "tune_asha.yaml")
    training = recipe.config["training"]
    assert training["lr"] == SearchSpace("loguniform", (1e-5, 1e-2))
    assert training["train_batch_size_per_learner"] == SearchSpace("grid", (512, 1024))
    assert recipe.model == {"fcnet_hiddens": SearchSpace("grid", ([64, 64], [128, 128]))}
    assert recipe.to_dict()["config"]["training"]["lr"] == training["lr"]
    text = recipes.dump(recipe)
    assert "lr: !loguniform [1.0e-05, 0.01]" in text
    assert "!grid [[64, 64], [128, 128]]" in text


def test_to_dict_is_json_and_a_copy() -> None:
    recipe = recipes.load(FOLDER / "good" / "ppo_tag.yaml")
    values = recipe.to_dict()
    json.dumps(values)
    values["policies"]["prey"]["agents"].append("x")
    assert recipe.policies["prey"].agents == ["agent_0"]  # type: ignore[index,union-attr]
    with pytest.raises(RecipeError, match="unknown key 'polices'; did you mean 'policies'"):
        Recipe.from_dict({**recipe.to_dict(), "polices": 3})


def test_from_flags() -> None:
    recipe = recipes.from_flags("DQN", "CartPole-v1", ["seed=4", "config.training.lr=1e-4"])
    assert (recipe.name, recipe.algorithm, recipe.env, recipe.seed) == (
        "dqn_cartpole-v1",
        "DQN",
        "CartPole-v1",
        4,
    )
    assert recipe.stop == {"env_steps": 100_000}
    assert recipes.from_flags("DQN", "CartPole-v1", ["stop.iterations=3"]).stop == {"iteration": 3}
    assert (
        recipes.from_flags("rllib/DQN", "pettingzoo/mpe2.simple_v3").name
        == "rllib_dqn_pettingzoo_mpe2.simple_v3"
    )
    with pytest.raises(RecipeError) as caught:
        recipes.from_flags("DQNN", "CartPol-v1")
    assert [str(p).split(";")[0] for p in caught.value.problems] == [
        "command line: algorithm: unknown algorithm 'DQNN'",
        "command line: env: there is no environment 'CartPol-v1'",
    ]


def test_missing_file_names_the_closest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dqn_cartpole.yaml").write_text(MINIMAL)
    assert "did you mean configs/dqn_cartpole.yaml?" in str(recipes.check("dqn_cartpol.yaml")[0])
    assert "this is a directory; fix: name a recipe in it, such as dqn_cartpole.yaml" in str(
        recipes.check("configs")[0]
    )
    assert "no such recipe" in str(recipes.check("\x00")[0]) or "not a path" in str(recipes.check("\x00")[0])
    (tmp_path / "big.yaml").write_text("#" * 300_000)
    assert "at most 256 kB" in str(recipes.check("big.yaml")[0])
    assert recipes.check("configs/dqn_cartpole.yaml") == []
    assert len(recipes.check("big.yaml", "nothing.yaml")) == 2
    assert len(recipes.check(["big.yaml", "nothing.yaml"])) == 2


def test_problem_as_json() -> None:
    (problem,) = recipes.check(FOLDER / "bad" / "f_gamma.yaml")
    values = problem.to_dict()
    json.dumps(values)
    assert (values["line"], values["column"], values["path"], values["got"]) == (
        5,
        28,
        "config.training.gamma",
        "5",
    )
    assert values["fix"] == "write a number between 0 and 1"


def test_every_error_at_once_in_file_order() -> None:
    found = errors(
        "algorithm: PPO\nenv: CartPole-v1\nseed: -1\n"
        "config:\n  training: {gamma: 5, lrr: 1}\n  oops: {}\nstop: {stepz: 3}\n"
    )
    assert [text.split(": ")[1] for text in found] == [
        "seed", "config.training.gamma", "config.training.lrr", "config.oops", "stop.stepz",
    ]  # fmt: skip


def test_names_a_user_registers_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(size: int, goal: float = 1.0) -> None:
        """A user's environment."""

    class Spiral:
        def __init__(self, *, turns: int = 3, word: str = "a"):
            pass

    for kind in ("envs", "callbacks"):
        monkeypatch.setitem(registry.TABLES, kind, dict(registry.TABLES[kind]))
    registry.register("envs", "spiral", make)
    registry.register("callbacks", "Spiral", Spiral)
    good = (
        MINIMAL.replace("CartPole-v1", "spiral")
        + "env_config: {size: 3}\ncallbacks: [{name: Spiral, turns: 5}]\n"
    )
    assert recipes.loads(good).env == "spiral"
    found = errors(good.replace("size: 3", "sise: 3").replace("turns: 5", "turns: many"))
    assert any("spiral has no argument 'sise'; did you mean 'size'?" in text for text in found)
    assert any("spiral needs the argument 'size'" in text for text in found)
    assert any("callbacks[0].turns: a whole number is expected, got 'many'" in text for text in found)


def test_installed_packages_are_looked_up_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary_module.py"
    canary.write_text("open('CANARY', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for env in (
        "canary_module:Env-v0",
        "canary_module.Env",
        "pettingzoo/canary_module.env",
        "vmas/canary_module",
    ):
        assert errors(MINIMAL.replace("CartPole-v1", env))
    for key in ("callbacks_class", "type", "custom_model"):
        assert errors(
            MINIMAL + f"config: {{training: {{replay_buffer_config: {{{key}: canary_module.Thing}}}}}}\n"
        )
    assert not (tmp_path / "CANARY").exists()
    assert "canary_module" not in sys.modules


def test_checking_imports_neither_ray_nor_torch_nor_gymnasium() -> None:
    code = (
        "import sys; from rlkit import recipe; p = recipe.check(*sys.argv[1:]); assert p == [], p; "
        "print([m for m in ('ray', 'torch', 'gymnasium', 'numpy', 'rich', 'typer') if m in sys.modules])"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            *map(str, GOOD),
            *map(str, CONFIGS.glob("[ms]a*.yaml")),
            CONFIGS / "dron_tag.yaml",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipes.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class _Plain(yaml.SafeLoader):
    """Search spaces as lists, as editors see them."""


for _kind in ("grid", "choice", "uniform", "loguniform", "randint"):
    _Plain.add_constructor(f"!{_kind}", lambda loader, node: loader.construct_sequence(node, deep=True))


def plain(text: str) -> Any:
    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers(item) for item in value]
        return read_scalar(value) if isinstance(value, str) and value[:1].isdigit() else value

    return numbers(yaml.load(text, Loader=_Plain))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_schema_accepts_good_recipes(path: Path, validator: Any) -> None:
    assert [e.message for e in validator.iter_errors(plain(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    "change",
    [
        {"algoritm": "PPO"},
        {"config": {"training": {"lrr": 1}}},
        {"config": {"training": {"gamma": 5}}},
        {"config": {"training": {"epsilon": 0.1}}},
        {"config": {"trainin": {}}},
        {"seed": -1},
        {"policies": "sharde"},
        {"model": {"fcnet_hiddens": 64}},
        {"callbacks": [{"name": "TimeLimit", "second": 5}]},
        {"evaluation": {"every": 0}},
    ],
)
def test_schema_rejects_bad_recipes(change: dict[str, Any], validator: Any) -> None:
    recipe = {"algorithm": "PPO", "env": "CartPole-v1", "stop": {"iterations": 3}}
    assert not list(validator.iter_errors(recipe))
    assert list(validator.iter_errors({**recipe, **change}))


def test_reference_names_every_key() -> None:
    text = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text(encoding="utf-8")
    schema = recipes.json_schema()
    keys = [
        *schema["properties"],
        *(
            k
            for name in ("PolicySection", "EvaluationSection", "Checkpoint", "Tune")
            for k in schema["$defs"][name]["properties"]
        ),
    ]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_yaml_blocks_of_the_reference_are_recipes() -> None:
    """Every ```yaml block of docs/recipe.md is a recipe, or becomes one with the three keys a recipe needs."""
    text = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    assert len(blocks) >= 5
    for block in blocks:
        keys = yaml.load(block, Loader=_Plain)
        missing = {
            "algorithm": "algorithm: PPO\n",
            "env": "env: CartPole-v1\n",
            "stop": "stop: {iterations: 100}\n",
        }
        recipes.loads(block + "".join(line for key, line in missing.items() if key not in keys))


def test_errors_of_the_reference_are_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text(encoding="utf-8")
    shown = text.split("$ cat broken.yaml\n")[1].split("\n```")[0].splitlines()
    command = shown.index("$ rlkit check broken.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("\n".join(shown[:command]))
    assert [str(problem) for problem in recipes.check("broken.yaml")] == shown[command + 1 :]


def test_thousands_of_problems_end_the_check() -> None:
    found = errors(MINIMAL + "".join(f"key_{i}: {i}\n" for i in range(4000)))
    assert len(found) == 101
    assert found[0] == "recipe: more problems follow; fix: put these right first"
    found = errors(MINIMAL + "x" * 100_000 + ": 3\n")
    assert max(map(len, found)) < 3000


def test_environments_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkit.recipe import env_check

    monkeypatch.setattr(env_check.importlib.util, "find_spec", lambda name: None)
    for name, package in (("Ant-v5", "mujoco"), ("LunarLander-v3", "Box2D")):
        (found,) = errors(MINIMAL.replace("CartPole-v1", name))
        needs = f"{name} needs the package {package}, which is not installed"
        assert f"{needs}; fix: pip install 'rlkit-rllib[{package.lower()}]'" in found


@pytest.mark.parametrize(
    "path", [*GOOD, *sorted((FOLDER / "bad").glob("[bcd]_*.yaml"))], ids=lambda path: path.stem
)
def test_pyyaml_without_libyaml(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser accepts and rejects the same files; only the words and columns of syntax errors differ."""
    from rlkit.recipe import tree

    fast = recipes.check(path)
    monkeypatch.setattr(tree, "_EVENTS", yaml.SafeLoader)
    slow = recipes.check(path)
    if path.name.startswith("b_"):
        assert slow
        assert all(problem.fix and problem.line for problem in slow)
    else:
        assert slow == fast


def test_n_step_range_is_the_tuple_rllib_asks_for() -> None:
    recipe = recipes.load(FOLDER / "good" / "sac_pendulum.yaml")
    assert recipe.config["training"]["n_step"] == (1, 3)
    assert recipe.to_dict()["config"]["training"]["n_step"] == [1, 3]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    schedule = recipes.load(FOLDER / "good" / "ppo_spread.yaml").config["training"]["lr"]
    assert schedule == [[0, 3e-4], [1_000_000, 0]]
