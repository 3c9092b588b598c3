"""Write the table that lets `rlkit check` know RLlib without importing it.

    python scripts/generate_signatures.py            # rlkit/recipe/signatures.json
    python scripts/generate_signatures.py --check    # exit 1 if it is not what the installed packages say

signatures.json holds, for every algorithm of the registry, the section methods of its AlgorithmConfig with their
arguments, types, ranges, deprecations and default values; the options of every registered callback, model,
exploration, curriculum and environment; Gymnasium's own environments; and the agents of mpe2's.
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
from rlkit.recipe import signatures
from rlkit.recipe.annotations import CODE, options_of, plain

sys.path.insert(0, str(Path(__file__).parent))
import rllib_words
from rllib_words import CLOSED_METHODS, EFFECTIVE, ELSEWHERE, IGNORED, IGNORED_BY

WORDS = (
    "OLD_TOP_KEYS",
    "OLD_ALGORITHMS",
    "OLD_MODEL_KEYS",
    "OLD_METRICS",
    "CLOSED_METHODS",
    "RENAMED",
    "FOREIGN",
)

TABLE = Path(signatures.__file__).with_name("signatures.json")
NOT_PROVIDED = "_NotProvided"
DEPRECATED = -1  # ray.rllib.utils.deprecation.DEPRECATED_VALUE

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
    ("PPOConfig", "training", "entropy_coeff"): "float | schedule | None",
}

# Ranges and words that RLlib does not check: `lr=-1`, `gamma=5` and `num_epochs=0` pass its `validate()` (2.60).
UNIT, SHARE, POSITIVE, NOT_NEGATIVE, ONE_UP = (
    {"ge": 0, "le": 1},
    {"gt": 0, "le": 1},
    {"gt": 0},
    {"ge": 0},
    {"ge": 1},
)
_RANGES = (
    (UNIT, "gamma lambda_ epsilon smoothing beta initial_epsilon final_epsilon expectile"),
    (SHARE, "tau"),
    (
        POSITIVE,
        "lr actor_lr critic_lr alpha_lr grad_clip clip_param vf_clip_param vf_clip_range stop_kl kl_target "
        "initial_alpha value_lr training_intensity "
        "vtrace_clip_rho_threshold vtrace_clip_pg_rho_threshold temperature updates_per_step",
    ),
    (
        ONE_UP,
        "num_epochs minibatch_size train_batch_size train_batch_size_per_learner num_envs_per_env_runner "
        "rollout_fragment_length n_step num_atoms n_quantiles n_critics broadcast_interval circular_buffer_num_batches "
        "circular_buffer_iterations_per_batch simple_queue_size learner_queue_size num_gpu_loader_threads "
        "metrics_num_episodes_for_smoothing max_requests_in_flight_per_env_runner max_requests_in_flight_per_learner "
        "episode_lookback_horizon max_requests_in_flight_per_aggregator_actor env_runner_state_server_max_concurrency "
        "evaluation_error_after_n_consecutive_skips max_episode_steps max_cycles max_seq_len epsilon_timesteps "
        "hiddens hidden fcnet_hiddens head_fcnet_hiddens lstm_cell_size cell size fuse feature_dim feature_hiddens "
        "inverse_net_hiddens forward_net_hiddens embed_dim window heads blocks filters impala bins bits copies "
        "every fps",
    ),
    (
        NOT_NEGATIVE,
        "entropy_coeff kl_coeff vf_loss_coeff target_network_update_freq burn_in_len alpha local_gpu_idx "
        "top_quantiles_to_drop_per_net warmup_timesteps random_timesteps scale_timesteps stddev initial_stddev "
        "bc_iters burnin_len vf_coeff ou_theta ou_sigma ou_base_scale initial_scale final_scale eta "
        "intrinsic_reward_coeff c",
    ),
)
RANGES = {argument: bounds for bounds, words in _RANGES for argument in words.split()}
COUNTS = re.compile(r"(num|min|max)_.*|.*_s")
# argument -> the words it takes, beside values of other types
CHOICES = {
    "grad_clip_by": "value norm global_norm",
    "batch_mode": "truncate_episodes complete_episodes",
    "count_steps_by": "env_steps agent_steps",
    "log_level": "DEBUG INFO WARN ERROR",
    "gym_env_vectorize_mode": "sync async vector_entry_point",
    "merge_env_runner_states": "training_only",
    "td_error_loss_fn": "huber mse",
    "rollout_fragment_length": "auto",
    "num_cpus_per_learner": "auto",
    "target_entropy": "auto",
    "offline_evaluation_type": "eval_loss is pdis",
    "input_filesystem": "gcs s3 abs",
    "render_mode": "human rgb_array rgb_array_list ansi ansi_list depth_array depth_array_list rgbd_tuple "
    "rgbd_tuple_list",
    "output_filesystem": "gcs s3 abs",
    "output_write_method": "write_parquet write_json write_csv write_numpy write_tfrecords",
    # what RLlib looks up in torch.nn and torch.nn.init
    "_activation": "relu tanh elu swish silu linear softmax ReLU Tanh ELU SiLU GELU LeakyReLU SELU CELU Mish Softplus "
    "Sigmoid Hardswish ReLU6 PReLU Softsign Identity",
    "_initializer": "xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ orthogonal_ normal_ uniform_ "
    "zeros_ ones_ constant_ trunc_normal_ sparse_ eye_ dirac_",
}


def limited(found: dict[str, Any]) -> dict[str, Any]:
    """Add ranges and words to the rows of numbers and texts, by the names of the arguments."""
    for argument, row in found["arguments"].items():
        words = CHOICES.get(re.sub(r".*(_activation|_initializer)$", r"\1", argument), "").split()
        if words:
            row["type"] = re.sub(r"\bstr\b", f"Literal[{', '.join(map(repr, words))}]", row["type"])
        if re.search(r"\b(int|float|schedule)\b", row["type"]) and not set(row) & {"gt", "ge", "le", "lt"}:
            row |= RANGES.get(argument, NOT_NEGATIVE if COUNTS.fullmatch(argument) else {})
    return found


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
    for reason, table in (("ignored", IGNORED_BY), ("type", EFFECTIVE)):
        for key, words in table.items():
            rows = classes[key]["methods"].setdefault("training", {"arguments": {}, "open": True})[
                "arguments"
            ]
            rows |= {argument: {"type": "any", reason: text} for argument, text in words.items()}
    return classes, algorithms


def _key(cls: type) -> str:
    return cls.__name__ if cls.__module__.startswith("ray.rllib.") else f"rlkit.{cls.__name__}"


def _method(cls: type, method: str) -> dict[str, Any]:
    table = options_of(getattr(cls, method), frozenset({"self"}))
    documented = _argument_docs(inspect.getdoc(getattr(cls, method)) or "")
    for argument, row in table["arguments"].items():
        default = row.pop("default", None)
        if type(default) is int and default == DEPRECATED and argument not in ELSEWHERE.get(method, {}):
            row["deprecated"] = True
            continue
        row["type"] = CORRECTIONS.get((cls.__name__, method, argument), row["type"])
        for reason, words in (("elsewhere", ELSEWHERE), ("ignored", IGNORED)):
            if argument in words.get(method, {}):
                table["arguments"][argument] = row = {"type": "any", reason: words[method][argument]}
        closed = method in CLOSED_METHODS or row["type"].removesuffix(" | None") in ("any", CODE)
        if argument in documented and not closed:
            row["doc"] = documented[argument]
    return limited(table)


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
            for argument in inspect.signature(getattr(member, method)).parameters:
                for attribute in (argument, f"_{argument}"):
                    if attribute in vars(config) and argument != "self":
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

    rows: dict[str, Any] = limited(options_of(DefaultModelConfig, frozenset({"self"})))["arguments"]
    return rows


def options() -> dict[str, Any]:
    """Return {kind: {name: options}} of everything else that is registered."""
    from rlkit.models.dense import ACTIVATIONS

    found: dict[str, Any] = {}
    for kind in registry.KINDS:
        if kind != "algorithms":
            entries = [
                entry
                for _, entry in sorted(registry.TABLES[kind].items())
                if isinstance(entry.target, str) and entry.module.startswith("rlkit.")
            ]
            found[kind] = {e.name: limited(signatures.options_of_entry(kind, e.load())) for e in entries}
    for model in found["models"].values():
        model["arguments"]["activation"]["type"] = f"Literal[{', '.join(map(repr, ACTIVATIONS))}]"
    return found


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


# What Tune's schedulers assert when they are made (2.60).
SCHEDULER_RANGES: dict[str, dict[str, dict[str, float]]] = {
    "asha": {
        "max_t": {"ge": 1},
        "grace_period": {"ge": 1},
        "reduction_factor": {"gt": 1},
        "brackets": {"ge": 1},
    },
    "hyperband": {"max_t": {"ge": 1}, "reduction_factor": {"gt": 1}},
    "pbt": {
        "perturbation_interval": {"gt": 0},
        "quantile_fraction": {"ge": 0, "le": 0.5},
        "resample_probability": {"ge": 0, "le": 1},
    },
}


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
    found = {name: limited(options_of(cls, given)) for name, cls in classes.items()}
    found["pbt"]["arguments"]["mutations"] = {"type": "dict", "required": True}
    for name, limits in SCHEDULER_RANGES.items():
        for argument, limit in limits.items():
            row = found[name]["arguments"][argument]
            found[name]["arguments"][argument] = {k: v for k, v in row.items() if k != "ge"} | limit
    return {**found, "fifo": {"arguments": {}, "open": False}}


# Gymnasium's families of environments -> the package they need beside it.
FAMILIES = {".mujoco": "mujoco", ".box2d": "Box2D", ".phys2d": "jax", ".tabular": "jax"}


def gymnasium_table() -> dict[str, Any]:
    """Return {id: {arguments, action}} of Gymnasium's own environments.

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
        found = limited(signatures.options_of_entry("envs", cls))
        env = gymnasium.make(name)
        table[name] = {
            "arguments": {argument: _bare(row) for argument, row in found["arguments"].items()},
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
        found = signatures.options_of_entry("envs", module.raw_env)
        for row in found["arguments"].values():
            row["type"] = _type_of_default(row)
        env = module.parallel_env()
        table[f"pettingzoo/mpe2.{path.stem}"] = {
            "arguments": {argument: _bare(row) for argument, row in limited(found)["arguments"].items()},
            "agents": sorted(map(str, env.possible_agents)),
            "action": type(env.action_space(env.possible_agents[0])).__name__,
        }
        env.close()
    return table


def _type_of_default(row: dict[str, Any]) -> str:
    """mpe2 has no annotations: take a default's type, and a number for any number."""
    if row["type"] != "any" or row.get("default") is None:
        return str(row["type"])
    return {"bool": "bool", "str": "str", "int": "float", "float": "float"}.get(
        type(row["default"]).__name__, "any"
    )


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("default", "required")}


def table() -> dict[str, Any]:
    """Return the content of signatures.json."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    classes, algorithms = configs()
    try:
        return {
            "versions": {name: metadata.version(name) for name in ("ray", "gymnasium", "mpe2")},
            "words": {name: getattr(rllib_words, name) for name in WORDS},
            "classes": classes,
            "algorithms": algorithms,
            "model_config": model_config(),
            "options": options(),
            "misfits": misfits(),
            "schedulers": schedulers(),
            "gymnasium": gymnasium_table(),
            "mpe2": mpe2_table(),
        }
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the file is fresh")
    only_check = parser.parse_args().check
    text = dump(table())
    fresh = TABLE.exists() and TABLE.read_text(encoding="utf-8") == text
    if not fresh and not only_check:
        TABLE.write_text(text, encoding="utf-8")
    print("fresh" if fresh else f"{'stale' if only_check else 'written'}: {TABLE.name}")
    return int(only_check and not fresh)


if __name__ == "__main__":
    sys.exit(main())
