"""docs/metrics.md and docs/from-old-rllib.md say what the code does."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlkit import registry
from rlkit.metrics import FAMILIES, PATHS, known, path_of
from rlkit.recipe.signatures import METHODS, Config
from rlkit.recipe.words import CLOSED_METHODS, OLD_TOP_KEYS, RENAMED

DOCS = Path(__file__).parents[1] / "docs"
OLD = (DOCS / "from-old-rllib.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of all tables below a heading, without their heads."""
    section = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.M)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    heads = {i for i, row in enumerate(cells) if set("".join(row)) <= set("-")}
    return [row for i, row in enumerate(cells) if i not in heads and i + 1 not in heads]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("name", [*PATHS, *FAMILIES])
def test_every_metric_is_explained(name: str) -> None:
    rows = [line for line in METRICS.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in row or f"`{name}<" in row for row in rows), name


def test_old_results_lead_to_names_that_hold_the_same_value() -> None:
    rows = [row for row in table(OLD, "Results and files") if len(row) == 3]
    assert len(rows) == 12
    for _, now, here in rows:
        for name in names(here):
            if "rlkit" in name or name == "Throughput":
                continue
            tidy = name.replace("<agent>", "a")
            assert known(tidy), name
            if "<" not in name and len(names(now)) == 1 and name != "agent_steps":
                assert path_of(tidy) == names(now)[0]


def test_old_configuration_keys_are_answered_as_rlkit_check_answers_them() -> None:
    configs = [Config(name) for name in ("PPO", "DQN", "SAC", "IMPALA")]
    rows = [item for c in configs for method in METHODS for item in c.arguments(method).items()]
    ignored = {key for key, row in rows if "ignored" in row or "elsewhere" in row}
    checked = 0
    for old, new in table(OLD, "Configuration keys"):
        for word in names(old):
            key = re.split(r"[:=]", word)[0]
            if key in RENAMED:
                checked += 1
                leaf = re.split(r"[.:]", RENAMED[key])[-1].strip()
                assert leaf in new or new.startswith("remove"), (
                    f"{key}: {new}, but rlkit check says {RENAMED[key]}"
                )
            elif key in ignored or key in OLD_TOP_KEYS or key in CLOSED_METHODS:
                checked += 1
    assert checked > 25


def test_recipe_words_on_the_right_are_arguments_of_rllib() -> None:
    import inspect

    from ray.rllib.algorithms.dqn import DQNConfig

    from rlkit.algos import PPOConfig

    found = re.findall(r"config: \{(\w+): \{(\w+):", OLD)
    assert len(found) > 15
    for method, argument in found:
        methods = [m for c in (PPOConfig, DQNConfig) for m in _methods(c, method)]
        assert any(argument in inspect.signature(m).parameters for m in methods), f"{method}.{argument}"


def _methods(config: Any, name: str) -> list[Any]:
    return [vars(c)[name] for c in config.__mro__ if name in vars(c)]


def test_names_of_callbacks_explorations_and_algorithms_exist() -> None:
    callbacks = set(registry.TABLES["callbacks"])
    for name in re.findall(r"[Tt]he callback `(\w+)`", OLD) + re.findall(
        r"callbacks: \[\{name: (?!Mine)(\w+)", OLD
    ):
        assert name in callbacks, name
    for name in re.findall(r"exploration: \{type: (\w+)", OLD):
        assert name in registry.TABLES["explorations"], name
    for name in re.findall(r"algorithm: (\w+)", OLD):
        assert name in registry.TABLES["algorithms"], name


def test_old_exploration_types_keep_their_parameters() -> None:
    import importlib
    import inspect

    from rlkit import exploration

    rows = [re.fullmatch(r"\{type: (\w+)(.*)\}", names(row[0])[0]) for row in table(OLD, "Exploration")]
    found = {m[1]: re.findall(r"\w+", m[2]) for m in rows if m}
    assert len(found) == 10
    for name, parameters in found.items():
        here = inspect.signature(getattr(exploration, name)).parameters
        module = re.sub(r"(?<!^)(?=[A-Z](?![A-Z]|$))|(?<=t)(?=Q$)", "_", name).lower()
        there = inspect.signature(
            getattr(importlib.import_module(f"ray.rllib.utils.exploration.{module}"), name)
        )
        for parameter in parameters:
            assert parameter in here, f"{name}: {parameter}"
            assert parameter in there.parameters, f"{name}: {parameter} was never RLlib's"


def test_the_recipe_on_the_right_is_valid_and_the_file_on_the_left_is_answered(tmp_path: Path) -> None:
    from rlkit.recipe import RecipeError, load

    lines = OLD.split("An old file and the same as a recipe:\n\n```text\n")[1].split("\n```")[0].splitlines()
    old, new = zip(*(line.split("|", 1) for line in lines), strict=True)
    (tmp_path / "new.yaml").write_text("\n".join(line[3:] for line in new))
    recipe = load(tmp_path / "new.yaml")
    assert recipe.stop == {"episode_return": 475, "env_steps": 100_000}
    assert recipe.config["training"] == {"lr": 1e-3, "n_step": 3}
    (tmp_path / "old.yaml").write_text("\n".join(old))
    with pytest.raises(RecipeError, match="algorithm"):
        load(tmp_path / "old.yaml")


def test_python_names_exist() -> None:
    import importlib

    import rlkit

    for dotted in sorted(set(re.findall(r"\brlkit\.([a-zA-Z_][\w.]*)", OLD))):
        here: Any = rlkit
        for part in dotted.split("."):
            here = getattr(here, part, None) or importlib.import_module(f"{here.__name__}.{part}")
        assert here is not None


def test_commands_and_options_exist() -> None:
    import typer.main

    from rlkit.cli import app

    group: Any = typer.main.get_command(app)
    for text in (OLD, METRICS):
        calls = re.findall(r"(?:`|^)rlkit ([\w-]+)\b([^`\n|]*)", text, re.M)
        assert len(calls) > 4
        for command, rest in calls:
            assert command in group.commands, f"rlkit {command} is no command"
            options = {o for p in group.commands[command].params for o in (*p.opts, *p.secondary_opts)}
            for option in re.findall(r"(?<!\S)(--?[a-z]+)\b", rest):
                assert option in options, f"rlkit {command} {option}"


def module_of(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS.parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_measured_line_is_about_a_number() -> None:
    module = module_of("scripts/results.py")
    for path in sorted(module.RESULTS.glob("*.jsonl")):
        for line in module.lines_of(path):
            if line.get("kind", "run") == "run":
                assert module.result_of(line) is not None, (path.name, line)
                assert module.key_of(line, path.stem), (path.name, line)


def test_many_seeds_are_a_range_and_their_results_three_numbers() -> None:
    module = module_of("scripts/results.py")
    cells = module.row(("default",), [{"seed": n, "return": float(n)} for n in range(11)]).split(" | ")
    assert cells[1:3] == ["0 to 10", "0.0 … 5.0 … 10.0"]
    cells = module.row(("default",), [{"seed": n, "return": None} for n in (3, 5)]).split(" | ")
    assert cells[1:3] == ["3, 5", "failed, failed"]


def test_what_no_line_says_is_said_to_be_missing() -> None:
    module = module_of("scripts/results.py")
    known = {
        "seed": 0,
        "return": 1.0,
        "steps": 2000,
        "wall_s": 3,
        "cpu_s": 4,
        "date": "2026-01-01",
        "commit": "a",
    }
    known["processor"] = "p"
    assert module.row(("x",), [known]).endswith("| 2k | 3 | 4 | p | a | 2026-01-01 |")
    bare = {"seed": 1, "return": 1.0}
    assert module.row(("x",), [bare]).count("not recorded") == 6
    assert "| p, not recorded (1 of 2) |" in module.row(("x",), [known, bare])


def test_a_row_of_the_zoo_has_the_seconds_of_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall and CPU seconds of `rlkit train`, without those of the evaluations after it."""
    spec = importlib.util.spec_from_file_location("processes", DOCS.parent / "benchmarks" / "processes.py")
    processes = importlib.util.module_from_spec(spec)
    # the faults' tests have a module of that name too
    monkeypatch.setitem(sys.modules, "processes", processes)
    spec.loader.exec_module(processes)
    zoo = module_of("benchmarks/zoo.py")

    def measure(command: list[str], **options: Any) -> Any:
        train = "train" in command
        said = {"env_steps": 10, "best_checkpoint": "a", "last_checkpoint": "b"} if train else {
            "episode_return": {"mean": 1.0, "ci95": [0.0, 2.0]}
        }  # fmt: skip
        return processes.Cost(
            wall=5.0 if train else 100.0, cpu=7.0 if train else 100.0, code=0, out=json.dumps(said)
        )

    monkeypatch.setattr(processes, "measure", measure)
    row = zoo.one("ppo_cartpole", 0, "default", [], "out")
    assert (row["wall_s"], row["cpu_s"]) == (5.0, 7.0)


def test_the_page_of_results_is_what_the_benchmarks_wrote() -> None:
    assert module_of("scripts/results.py").page() == (DOCS / "results.md").read_text(), "run make results"


def test_every_benchmark_has_a_short_form_or_a_reason() -> None:
    smoke = module_of("benchmarks/smoke.py")
    scripts = {path.stem for path in (DOCS.parent / "benchmarks").glob("*.py")}
    assert {*smoke.SHORT, *smoke.OTHERS} == scripts


def test_no_short_form_adds_to_the_kept_results() -> None:
    smoke = module_of("benchmarks/smoke.py")
    writers = set()
    for path in (DOCS.parent / "benchmarks").glob("*.py"):
        text = path.read_text()
        if path.stem in smoke.SHORT and "append_row(" in text:
            writers.add(path.stem)
            if '"--keep"' in text:  # keeps nothing unless told to
                assert "--keep" not in smoke.SHORT[path.stem], path.stem
                continue
            option = "--rows" if '"--rows"' in text else "--out"
            words = smoke.SHORT[path.stem]
            assert words[words.index(option) + 1].startswith((smoke.TMP, "/dev/null")), path.stem
    assert len(writers) > 8


def test_links_lead_somewhere() -> None:
    for text in (OLD, METRICS):
        for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
            assert not target or (DOCS / target).exists(), target
        anchors = {
            re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.M)
        }
        for anchor in re.findall(r"\]\(#([^)]*)\)", text):
            assert anchor in anchors, anchor


def test_the_walk_through_an_action_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(from ray.rllib.*?)```", OLD, re.S)
    values: dict[str, Any] = {}
    exec(code, values)
    assert capsys.readouterr().out.strip() == "[2.]"
    assert values["batch"]["obs"].shape == (1, 3)
    order = [
        type(piece).__name__
        for pipe in ("env_to_module", "module_to_env")
        for piece in values[pipe].connectors
    ]
    section = OLD.split("in RLlib's default order")[1]
    places = [section.index(f"`{name}`") for name in order]
    assert places == sorted(places), "the table lists the connectors in another order than RLlib runs them"


def test_the_trajectory_example_runs() -> None:
    (block,) = re.findall(
        r"```python\n(from rlkit.callbacks import TrajectoryPostprocessor\n.*?)```", OLD, re.S
    )
    values: dict[str, Any] = {}
    exec(block, values)

    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = (
        PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0).callbacks(values["MoreReward"])
    )
    runner = SingleAgentEnvRunner(config=config)
    (episode,) = runner.sample(num_episodes=1, random_actions=True)
    assert set(episode.get_rewards()) == {100.0}
    assert len(episode.get_extra_model_outputs("near")) == len(episode)
    assert runner.get_metrics()["episode_return_mean"].peek() == len(episode)
