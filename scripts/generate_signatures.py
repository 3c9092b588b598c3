"""Write the tables that let `rlkit check` know RLlib without importing it.

    python scripts/generate_signatures.py            # rlkit/recipe/signatures.json and recipe.schema.json
    python scripts/generate_signatures.py --check    # exit 1 if one of them is not what the installed packages say

signatures.json holds, for every algorithm of the registry, the section methods of its AlgorithmConfig with their
arguments, types, deprecations and default values; the options of every registered callback, model, exploration,
curriculum and environment; Gymnasium's own environments; and the agents of mpe2's.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.recipe import annotations, json_schema, signatures
from rlkit.recipe.annotations import method_of, options_of, plain

FOLDER = Path(signatures.__file__).parent
TABLE, SCHEMA = FOLDER / "signatures.json", FOLDER / "recipe.schema.json"
NOT_PROVIDED = "_NotProvided"

# Annotations of RLlib 2.60 that its own defaults or code contradict.
CORRECTIONS = {
    ("DQNConfig", "training", "grad_clip"): "float | None",
    ("DQNConfig", "training", "hiddens"): "list[int] | None",
    ("AlgorithmConfig", "env_runners", "num_cpus_per_env_runner"): "float | None",
    ("AlgorithmConfig", "evaluation", "offline_evaluation_type"): "str | None",
    ("AlgorithmConfig", "evaluation", "num_cpus_per_offline_eval_runner"): "float | None",
    ("AlgorithmConfig", "evaluation", "num_gpus_per_offline_eval_runner"): "float | None",
    ("AlgorithmConfig", "learners", "max_requests_in_flight_per_aggregator_actor"): "int | None",
    ("AlgorithmConfig", "offline_data", "offline_sampling"): "bool | None",
    ("AlgorithmConfig", "offline_data", "input_"): "str | list[str] | None",
    ("PPOConfig", "training", "entropy_coeff"): "float | list[list[float]] | None",
}


def dump(value: Any) -> str:
    """JSON with one argument per line: small diffs when a version changes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(
        r"\{\s*((?:\"[\w]+\": (?:\"[^\"\n]*\"|[\w.+-]+|\[[^\[\]\n]*\])(?:,\s*)?)+)\s*\}", _one_line, text
    )
    return text + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "{" + re.sub(r"\s*\n\s*", " ", match[1].strip()) + "}"


def configs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config classes (methods of their own and base) and the algorithms (config class, defaults)."""
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    classes: dict[str, Any] = {}
    algorithms: dict[str, Any] = {}
    base_defaults = _defaults(AlgorithmConfig)
    for name, entry in registry.TABLES["algorithms"].items():
        cls = entry.load()
        line = [c for c in cls.__mro__ if issubclass(c, AlgorithmConfig)]
        for member in line:
            key = _key(member)
            if key not in classes:
                own = {m: _method(member, m) for m in signatures.METHODS if m in vars(member)}
                classes[key] = {"methods": own}
                if member is AlgorithmConfig:
                    classes[key]["defaults"] = base_defaults
        defaults = {
            method: {
                a: v for a, v in values.items() if base_defaults.get(method, {}).get(a, NOT_PROVIDED) != v
            }
            for method, values in _defaults(cls).items()
        }
        algorithms[name] = {
            "line": [_key(c) for c in line],
            "defaults": {m: v for m, v in defaults.items() if v},
        }
    return classes, algorithms


def _key(cls: type) -> str:
    return cls.__name__ if cls.__module__.startswith("ray.rllib.") else f"rlkit.{cls.__name__}"


def _method(cls: type, method: str) -> dict[str, Any]:
    table = method_of(getattr(cls, method))
    documented = _argument_docs(inspect.getdoc(getattr(cls, method)) or "")
    for argument, row in table["arguments"].items():
        row["type"] = CORRECTIONS.get((cls.__name__, method, argument), row["type"])
        if argument in documented and not row.get("deprecated"):
            row["doc"] = documented[argument]
    return table


def _argument_docs(doc: str) -> dict[str, str]:
    """Return the first sentence on each argument of a Google-style docstring."""
    _, _, body = doc.partition("Args:\n")
    body = re.split(r"\n\S", body)[0]
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w+): (.*(?:\n {8,}.*)*)", body, re.MULTILINE):
        text = " ".join(match[2].split())
        sentence = re.split(r"(?<=[.!?])\s(?=[A-Z`])", text)[0]
        found[match[1]] = sentence if len(sentence) <= 160 else sentence[:157] + "..."
    return found


def _defaults(cls: type) -> dict[str, Any]:
    """Return {method: {argument: default}} of a config, for the values that plain data can hold."""
    config = cls()
    values: dict[str, Any] = {}
    for method in signatures.METHODS:
        for member in cls.__mro__:
            if method not in vars(member):
                continue
            for argument, row in method_of(getattr(member, method))["arguments"].items():
                for attribute in (argument, f"_{argument}"):
                    if attribute in vars(config) and not row.get("deprecated"):
                        value = vars(config)[attribute]
                        if plain(value):
                            values.setdefault(method, {}).setdefault(argument, _listed(value))
                        break
    return values


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value


def model_config() -> dict[str, Any]:
    """Return the fields of RLlib's DefaultModelConfig."""
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    return {
        name: {**row, "type": row["type"].replace("class", "any")}
        for name, row in options_of(DefaultModelConfig, frozenset({"self"}))["arguments"].items()
    }


def options() -> dict[str, Any]:
    """Return {kind: {name: options}} of everything else that is registered."""
    kinds = [kind for kind in registry.KINDS if kind != "algorithms"]
    return {
        kind: {
            name: signatures.options_of_entry(kind, entry.load())
            for name, entry in sorted(registry.TABLES[kind].items())
            if isinstance(entry.target, str)
        }
        for kind in kinds
    }


def misfits() -> dict[str, Any]:
    """Return {exploration: {algorithm: {actions, reason}}} where one of the two kinds of action space is refused.

    `actions` are the kinds that are accepted; `reason` is the exploration's own, where none is.
    """
    from rlkit.exploration import configure

    found: dict[str, Any] = {}
    for exploration in sorted(registry.TABLES["explorations"]):
        for algorithm, entry in registry.TABLES["algorithms"].items():
            actions, reason = [], ""
            for kind, env in (("Discrete", "CartPole-v1"), ("Box", "Pendulum-v1")):
                try:
                    configure(entry.load()().environment(env), {"type": exploration})
                    actions.append(kind)
                except ValueError as error:
                    reason = str(error).removeprefix(f"{exploration}: ")
            if len(actions) < 2:
                row = {"actions": actions} if actions else {"actions": [], "reason": reason}
                found.setdefault(exploration, {})[algorithm] = row
    return found


def activations() -> list[str]:
    """Return the words that the option `activation` of rlkit's own models takes."""
    from rlkit.models.dense import ACTIVATIONS

    return list(ACTIVATIONS)


def schedulers() -> dict[str, Any]:
    """Return {type: options} of the Tune schedulers a recipe may name; `mutations` is rlkit's form of PBT's."""
    from ray.tune import schedulers as tune

    classes = {
        "asha": tune.AsyncHyperBandScheduler,
        "hyperband": tune.HyperBandScheduler,
        "median": tune.MedianStoppingRule,
        "pbt": tune.PopulationBasedTraining,
    }
    given = frozenset({"self", "metric", "mode", "hyperparam_mutations", "custom_explore_fn"})
    found = {name: options_of(cls, given) for name, cls in classes.items()}
    found["pbt"]["arguments"]["mutations"] = {"type": "dict", "required": True}
    return {**found, "fifo": {"arguments": {}, "open": False}}


# Gymnasium's families of environments -> the package they need beside it.
FAMILIES = {".mujoco": "mujoco", ".box2d": "Box2D", ".phys2d": "jax", ".tabular": "jax"}


def gymnasium_table() -> dict[str, Any]:
    """Return {id: {arguments, observation, action}} of Gymnasium's own environments.

    Arguments and spaces are told for the families that need nothing but Gymnasium.
    """
    import gymnasium

    table: dict[str, Any] = {}
    for name, spec in sorted(gymnasium.registry.items()):
        point = spec.entry_point
        if not isinstance(point, str) or not point.startswith("gymnasium.envs."):
            continue
        package = next((package for family, package in FAMILIES.items() if family in point), None)
        table[name] = {"needs": package} if package else {}
        module, _, attribute = point.partition(":")
        if ".classic_control" not in point and ".toy_text" not in point:
            continue
        cls = getattr(importlib.import_module(module), attribute)
        found = options_of(cls, frozenset({"self"}))
        env = gymnasium.make(name)
        table[name] = {
            "arguments": {argument: {"type": row["type"]} for argument, row in found["arguments"].items()},
            "observation": type(env.observation_space).__name__,
            "action": type(env.action_space).__name__,
        }
        env.close()
    return table


def mpe2_table() -> dict[str, Any]:
    """Return {name: {arguments, agents}} of mpe2's scenarios, agents as they are without arguments."""
    import mpe2

    table: dict[str, Any] = {}
    for path in sorted(Path(mpe2.__file__).parent.glob("*_v*.py")):
        module = importlib.import_module(f"mpe2.{path.stem}")
        found = options_of(module.raw_env, frozenset({"self"}))
        env = module.parallel_env()
        table[f"pettingzoo/mpe2.{path.stem}"] = {
            "arguments": {
                argument: {"type": _type_of_default(row)} for argument, row in found["arguments"].items()
            },
            "agents": sorted(map(str, env.possible_agents)),
            "action": type(env.action_space(env.possible_agents[0])).__name__,
        }
        env.close()
    return table


def _type_of_default(row: dict[str, Any]) -> str:
    """mpe2 has no annotations: take a default's type, with a number wherever it could be one."""
    if row["type"] != "any" or "default" not in row or row["default"] is None:
        return str(row["type"])
    return {"bool": "bool", "str": "str", "int": "int", "float": "float"}.get(
        type(row["default"]).__name__, "any"
    )


def table() -> dict[str, Any]:
    """Return the content of signatures.json."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    classes, algorithms = configs()
    try:
        return {
            "versions": {name: metadata.version(name) for name in ("ray", "gymnasium", "mpe2")},
            "classes": classes,
            "algorithms": algorithms,
            "model_config": model_config(),
            "options": options(),
            "activations": activations(),
            "misfits": misfits(),
            "schedulers": schedulers(),
            "gymnasium": gymnasium_table(),
            "mpe2": mpe2_table(),
        }
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the files are fresh")
    only_check = parser.parse_args().check
    stale = []
    for path, content in ((TABLE, table), (SCHEMA, json_schema)):
        text = dump(content())
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not only_check:
            path.write_text(text, encoding="utf-8")
            signatures.table.cache_clear()
    print(f"{'stale' if only_check else 'written'}: {', '.join(stale)}" if stale else "fresh")
    return 1 if stale and only_check else 0


if __name__ == "__main__":
    assert annotations
    sys.exit(main())
