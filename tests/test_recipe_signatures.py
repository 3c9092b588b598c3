"""The generated table is fresh, agrees with RLlib's own defaults, and its list of ignored arguments is true."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from rlkit import registry
from rlkit.recipe import json_schema
from rlkit.recipe.signatures import METHODS, Config, table
from rlkit.recipe.types import expressible, mismatch, parse_type, to_schema
from rlkit.recipe.words import CLOSED_METHODS, ELSEWHERE, FOREIGN, IGNORED, IGNORED_BY, RENAMED

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


def test_schema_is_fresh(generator: ModuleType) -> None:
    assert generator.SCHEMA.read_text(encoding="utf-8") == generator.dump(json_schema())


def test_every_algorithm_of_the_registry_is_in_the_table() -> None:
    assert set(table()["algorithms"]) == set(registry.TABLES["algorithms"])
    assert Config("PPO").arguments("training")["clip_param"]["type"] == "float | None"
    # Passed on to the base class.
    assert Config("PPO").arguments("training")["gamma"]["type"] == "float | None"
    assert "clip_param" not in Config("DQN").arguments("training")
    assert Config("PPO").default("training", "num_epochs") == 30
    assert Config("rllib/DQN").default("training", "lr") == 5e-4


@pytest.mark.parametrize("algorithm", sorted(table()["algorithms"]))
def test_defaults_fit_their_types(algorithm: str) -> None:
    config = Config(algorithm)
    for method in METHODS:
        for argument, row in config.arguments(method).items():
            default = config.default(method, argument)
            if default is not None:
                found = mismatch(default, parse_type(row["type"]))
                assert found is None, (method, argument, row["type"], default)


def test_word_tables_name_what_exists() -> None:
    """Every argument in the tables of replaced words is one that RLlib has, so that none outlives an upgrade."""
    configs = [Config(name) for name in table()["algorithms"]]
    for words in (ELSEWHERE, IGNORED):
        for method, arguments in words.items():
            known = {name for config in configs for name in config.arguments(method)}
            assert set(arguments) <= known, (method, set(arguments) - known)
    assert set(IGNORED_BY) <= set(table()["classes"])
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


def test_ignored_arguments_are_read_by_nothing_new_in_rllib() -> None:
    """An RLlib that starts to read one of them makes this fail: then it leaves the table."""
    root = Path(importlib.util.find_spec("ray").submodule_search_locations[0]) / "rllib"  # type: ignore[union-attr,index]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
        if not OLD_STACK.search("/" + str(path.relative_to(root))) and path.name != "algorithm_config.py"
    }
    for arguments in IGNORED.values():
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
    ("text", "good", "bad"),
    [
        ("float", [1, 0.5], [True, "1", None]),
        ("int | None", [1, None], [1.0, True]),
        ("float | list[tuple[int, float]]", [0.1, [[0, 1], [5, 0.5]]], [[[0]], [["a", 1]]]),
        ("'a' | 'b' | 3", ["a", 3], ["c", 4, "3"]),
        ("dict[str, float]", [{"a": 1}], [{"a": "x"}, []]),
        ("list[int]", [[], [1]], [[1.5], 1]),
        ("any", [None, [], {}], []),
    ],
)
def test_types(text: str, good: list[object], bad: list[object]) -> None:
    kind = parse_type(text)
    assert [value for value in good if mismatch(value, kind)] == []
    assert [value for value in bad if not mismatch(value, kind)] == []
    assert isinstance(to_schema(kind), dict)


def test_classes_and_functions_cannot_be_expressed() -> None:
    assert not expressible(parse_type("class | None"))
    assert not expressible(parse_type("callable | list[callable] | None"))
    assert expressible(parse_type("str | class | None"))
    with pytest.raises(ValueError, match="unknown type"):
        parse_type("complex")
