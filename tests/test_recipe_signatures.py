"""The generated table is fresh, agrees with RLlib's own defaults, and its list of ignored arguments is true."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from rlkit import registry
from rlkit.algos import rules
from rlkit.recipe.annotations import options_of, type_text
from rlkit.recipe.data_check import NO_BUFFER, OFFLINE
from rlkit.recipe.options import is_code, model_of
from rlkit.recipe.signatures import METHODS, Config, table
from rlkit.recipe.words import CLOSED_METHODS, FOREIGN, RENAMED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_signatures", ROOT / "scripts/generate_signatures.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signatures_are_fresh(generator: ModuleType) -> None:
    fresh = json.loads(generator.dump(generator.table()))
    stale = [key for key in {*fresh, *table()} if fresh.get(key) != table().get(key)]
    assert stale == [], "run python scripts/generate_signatures.py"


def test_every_algorithm_of_the_registry_is_in_the_table() -> None:
    assert set(table()["algorithms"]) == set(registry.TABLES["algorithms"])
    assert Config("PPO").arguments("training")["clip_param"]["type"] == "float | schedule"
    # passed on to the base class
    assert Config("PPO").arguments("training")["gamma"] == {
        "type": "float", "ge": 0, "le": 1, "default": 0.99,
        "doc": "Float specifying the discount factor of the Markov Decision process.",
    }  # fmt: skip
    assert "clip_param" not in Config("DQN").arguments("training")
    assert Config("PPO").default("training", "num_epochs") == 30
    assert Config("rllib/DQN").default("training", "lr") == 5e-4


@pytest.mark.parametrize("algorithm", sorted(table()["algorithms"]))
def test_defaults_fit_their_types_and_ranges(algorithm: str) -> None:
    config = Config(algorithm)
    for method in METHODS:
        rows = {
            name: row
            for name, row in config.arguments(method).items()
            if not is_code(row) and "default" in row
        }
        values = {name: row["default"] for name, row in rows.items() if not row.get("deprecated")}
        model_of(method, rows).model_validate(values)
    training = config.arguments("training")
    for rule in config.rules:
        if rule.options is not None:
            own = {
                name: config.default("training", name)
                for name in rule.options.model_fields
                if name in training and not (algorithm in OFFLINE and name in NO_BUFFER)
            }
            rule.options.model_validate({name: value for name, value in own.items() if value is not None})


def test_rules_are_those_of_config_classes_and_of_arguments_they_have() -> None:
    assert set(rules.WHERE) <= set(table()["classes"])
    for algorithm in table()["algorithms"]:
        config = Config(algorithm)
        for rule in config.rules:
            if rule.options is not None:
                assert set(rule.options.model_fields) <= set(config.arguments("training")), algorithm


def test_word_tables_name_what_exists(generator: ModuleType) -> None:
    """Every argument in the tables of replaced words is one that RLlib has, so that none outlives an upgrade."""
    configs = [Config(name) for name in table()["algorithms"]]
    for words in (generator.ELSEWHERE, generator.IGNORED):
        for method, arguments in words.items():
            known = {name for config in configs for name in config.arguments(method)}
            assert set(arguments) <= known, (method, set(arguments) - known)
    assert {*generator.IGNORED_BY, *generator.EFFECTIVE} <= set(table()["classes"])
    every = {name for config in configs for method in METHODS for name in config.arguments(method)}
    assert {target for word, target in FOREIGN.items() if target != "seed"} <= every
    for target in RENAMED.values():
        head, _, rest = target.partition(".")
        if head in METHODS and head not in CLOSED_METHODS and head != "evaluation":
            argument = re.split(r"[.:]", rest)[0]
            assert any(argument in config.arguments(head) for config in configs), target


# Old-stack code of RLlib 2.60: what only it reads has no effect on the new stack.
OLD_STACK = re.compile(
    r"_policy\.py|_tf|tf_|/policy/|/evaluation/(rollout|worker_set|collectors|sampler|episode_v2|env_runner_v2|postprocess)"
    r"|/evaluation/sample_batch_builder|/models/(?!torch)|/models/torch/(?!primitives)|/connectors/(agent|action|connector\.py|util)"
    r"|/execution/|/utils/exploration|/examples/|/tests/|/tuned_examples/|/benchmarks/|policy_template|_torch_model|/utils/policy"
    r"|/env/(wrappers|external|policy_)|/utils/test_utils"
    r"|/offline/(json|d4rl|estimators|dataset|mixed|shuffled|io_|output|input|is_|wis|resource|feature|off_pol)"
)
# Reads of an ignored argument that the search finds in code of both stacks, each looked at by hand in 2.60.
KNOWN_READS = {
    "render_env": 0, "remote_worker_envs": 3, "preprocessor_pref": 2, "observation_filter": 1,
    "enable_tf1_exec_eagerly": 1,
    "sample_collector": 1, "update_worker_filter_stats": 2, "use_worker_filter_stats": 3, "optimizer": 2, "noisy": 1,
    "sigma0": 1, "lr_schedule": 3, "entropy_coeff_schedule": 2, "use_gae": 1, "minibatch_buffer_size": 5,
    "replay_proportion": 5,
    "replay_buffer_num_slots": 2, "num_multi_gpu_tower_stacks": 4, "learner_queue_timeout": 2,
    "store_buffer_in_checkpoints": 1,
    "q_model_config": 2, "policy_model_config": 2, "keep_per_episode_custom_metrics": 4,
    "ope_split_batch_by_episode": 3,
    "metrics_episode_collection_timeout_s": 1, "policy_states_are_swappable": 4, "postprocess_inputs": 1,
    "output_config": 1,
    "input_config": 1,
}  # fmt: skip


def test_ignored_arguments_are_read_by_nothing_new_in_rllib(generator: ModuleType) -> None:
    """An RLlib that starts to read one of them makes this fail: then it leaves the table."""
    root = Path(importlib.util.find_spec("ray").submodule_search_locations[0]) / "rllib"  # type: ignore[union-attr,index]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
        if not OLD_STACK.search("/" + str(path.relative_to(root))) and path.name != "algorithm_config.py"
    }
    for arguments in generator.IGNORED.values():
        for argument in arguments:
            pattern = re.compile(rf"(?:\.{argument}\b(?!\s*=[^=])|[\"']{argument}[\"']\s*[\]),])")
            reads = sum(
                1
                for text in texts.values()
                for line in text.splitlines()
                if pattern.search(line) and not line.lstrip().startswith("#")
            )
            assert reads <= KNOWN_READS.get(argument, 0), (argument, reads)


@pytest.mark.parametrize(
    ("row", "good", "bad"),
    [
        ({"type": "float"}, [1, 0.5], [True, "1", None, float("nan")]),
        ({"type": "float", "gt": 0, "le": 1}, [1, 0.5], [0, 1.5]),
        ({"type": "int | None"}, [1, None], [1.0, True]),
        (
            {"type": "float | schedule", "gt": 0},
            [0.1, [[0, 1], [5, 0]]],
            [0, [[0]], [["a", 1], [5, 1]], [[0, 1]], [[1, 1], [2, 1]], [[0, 1], [0, 1]], [[0, 1], [5, -1]]],
        ),
        ({"type": "Literal['a', 'b', 3]"}, ["a", 3], ["c", 4, "3"]),
        ({"type": "dict[str, float]"}, [{"a": 1}], [{"a": "x"}, []]),
        ({"type": "list[int]", "ge": 1}, [[], [1]], [[1.5], 1, [0]]),
        ({"type": "int | tuple[int, int]"}, [1, [1, 3]], [[1], [1, 2, 3], ["a", 1]]),
        ({"type": "any"}, [None, [], {}], []),
    ],
)
def test_types(row: dict[str, object], good: list[object], bad: list[object]) -> None:
    model = model_of("options", {"x": row})
    for value in good:
        model.model_validate({"x": value})
    for value in bad:
        with pytest.raises(ValidationError):
            model.model_validate({"x": value})


def test_annotations_become_types() -> None:
    def options(
        a: Annotated[float, Field(gt=0)], b: type[int] | None = None, c: Callable[[], int] | list[str] = print,
        d: float | list[tuple[int, float]] = 0.0, e: Literal["x", "y"] = "x", *, f: Sequence[int] = (), **more: int,
    ) -> None:  # fmt: skip
        """A user's function."""

    found = options_of(options)
    assert found["open"]
    assert {name: row["type"] for name, row in found["arguments"].items()} == {
        "a": "float", "b": "code | None", "c": "list[str]", "d": "float | schedule", "e": "Literal['x', 'y']",
        "f": "list[int]",
    }  # fmt: skip
    assert found["arguments"]["a"] == {"type": "float", "required": True, "gt": 0}
    assert is_code(found["arguments"]["b"])
    assert type_text(dict[str, type[int]]) == "code"
