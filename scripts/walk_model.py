"""Find the fields of `model:` that change nothing, by changing each of them and looking at what is built.

    python scripts/walk_model.py            # rlkit/recipe/without_effect.json and docs/without-effect.md
    python scripts/walk_model.py --check    # exit 1 if they are not what the installed packages say

Every field of RLlib's DefaultModelConfig is changed alone, for every algorithm of the registry, on vectors and
pictures, with discrete and continuous actions, with and without an LSTM, for the default network and around a
registered model. It has an effect if the modules of a learner differ: their layers, their weights before training
from one seed, or what they answer to one batch (acting, training, values). A field that works through
another one (`NEEDS`) is walked with that one set, and without it.

What this cannot see: whatever is read outside of the modules. That is `max_seq_len` alone, which cuts sequences for
the learner (`tests/test_ppo_memory.py`); it is taken for what `use_lstm` is.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map

from rlkit import registry
from rlkit.recipe import signatures

TABLE = Path(signatures.__file__).with_name("without_effect.json")
DOCS = Path(__file__).resolve().parents[1] / "docs" / "without-effect.md"
# Fields that work through another: they need it set to this (`None`: to anything but its default).
NEEDS: dict[str, dict[str, Any]] = {
    **{f: {"use_lstm": True} for f in (
        "lstm_cell_size", "lstm_use_prev_action", "lstm_use_prev_reward", "lstm_kernel_initializer",
        "lstm_bias_initializer", "max_seq_len",
    )},
    **{f"head_fcnet_{part}": {"head_fcnet_hiddens": [8]} for part in ("activation", "use_layernorm")},
    **{f"{family}_{part}_initializer_kwargs": {f"{family}_{part}_initializer": "normal_"}
       for family in ("fcnet", "conv", "head_fcnet", "lstm", "fusionnet") for part in ("kernel", "bias")},
}  # fmt: skip
for _field in [f for f in NEEDS if f.startswith("lstm_") and f.endswith("_kwargs")]:
    NEEDS[_field] = {"use_lstm": True, **NEEDS[_field]}
SEQUENCE_FIELD = "max_seq_len"
OBSERVATIONS = {
    "vector": gym.spaces.Box(-1, 1, (3,), np.float32),
    "picture": gym.spaces.Box(-1, 1, (16, 16, 3), np.float32),
}
DISCRETE, BOX = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = {"Discrete": DISCRETE, "Box": BOX}
# What every walk begins with: small, and with pictures of a size that RLlib has no filters for.
SMALL = {"fcnet_hiddens": [8], "conv_filters": [[4, 4, 2], [4, 4, 2]], "fusionnet_hiddens": [8]}
NAMED = {"name": "mlp", "hiddens": [8], "fusionnet_hiddens": [8]}
NETWORKS = ("default", "registered")
OWN_CHECK = ("MADDPG", "MATD3")  # refuse every field that they do not read (`algos/centralised/config.py`)


def changed(field: str, default: Any) -> Any:
    """Return another value of a field."""
    if field.endswith("_initializer"):
        return "zeros_" if "kernel" in field else "ones_"
    if field.endswith("_initializer_kwargs"):
        return {"std": 0.3}
    if field == "conv_filters":
        return [[6, 4, 2], [6, 4, 2]]
    if field.endswith("_hiddens"):
        return [12]
    if field.endswith("_activation"):
        return "elu"
    if isinstance(default, bool):
        return not default
    return {"log_std_clip_param": 1e-3, "max_seq_len": 7, "lstm_cell_size": 12}[field]


def algorithm_config(algorithm: str, observation: gym.Space, action: gym.Space) -> Any:
    config = registry.resolve("algorithms", algorithm)()
    return config.environment(observation_space=observation, action_space=action)


def fingerprint(algorithm: str, sees: str, acts: str, model: dict[str, Any]) -> str:
    """Build the modules of a learner and return what they are and answer, as text."""
    from rlkit.models import module_spec

    observation, action = OBSERVATIONS[sees], ACTIONS[acts]
    if algorithm == "DRON" and sees == "vector":
        observation = gym.spaces.Dict(state=observation, opponent=gym.spaces.Box(-1, 1, (1, 5), np.float32))
    config = algorithm_config(algorithm, observation, action)
    config.rl_module(rl_module_spec=module_spec(config, model))
    torch.default_generator.manual_seed(0)
    spaces = {"default_policy": (observation, action)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = config.get_multi_rl_module_spec(spaces=spaces, inference_only=False).build()[
            "default_policy"
        ]
        if hasattr(module, "make_target_networks"):
            module.make_target_networks()
    weights = {name: [list(v.shape), float(v.double().sum()), float(v.double().abs().sum())]
               for name, v in module.state_dict().items()}  # fmt: skip
    return json.dumps([repr(module), weights, *answers(module, observation, action)])


def answers(module: Any, observation: gym.Space, action: gym.Space) -> Iterator[list[Any]]:
    """Yield what a module answers to one batch, of single steps or of sequences of two."""
    from ray.rllib.core.columns import Columns

    stateful = module.is_stateful()
    lead = (4, 2) if stateful else (4,)
    torch.default_generator.manual_seed(1)
    parts = observation.spaces if isinstance(observation, gym.spaces.Dict) else None
    batch: dict[str, Any] = {}
    for column in (Columns.OBS, Columns.NEXT_OBS):
        drawn = {name: torch.randn(*lead, *part.shape) for name, part in (parts or {"": observation}).items()}
        batch[column] = drawn if parts else drawn[""]
    discrete = isinstance(action, gym.spaces.Discrete)
    batch[Columns.ACTIONS] = (
        torch.ones(lead, dtype=torch.int64) if discrete else torch.rand(*lead, *action.shape)
    )
    if stateful:
        batch[Columns.STATE_IN] = tree_map(
            lambda v: torch.stack([torch.as_tensor(v)] * 4), module.get_initial_state()
        )
        batch[Columns.NEXT_STATE_IN] = batch[Columns.STATE_IN]
    for call in ("forward_inference", "forward_train", "compute_values"):
        if hasattr(module, call):
            torch.default_generator.manual_seed(2)
            try:
                with torch.no_grad():
                    found = getattr(module, call)(dict(batch))
            except NotImplementedError:
                continue
            flat, _ = tree_flatten(found)
            yield [call, *(v.double().flatten()[:50].tolist() for v in flat if isinstance(v, torch.Tensor))]


def walk(algorithm: str) -> dict[str, dict[str, bool]]:
    """Return {network/observations/actions[/lstm]: {field: has an effect}} for what an algorithm can build."""
    found: dict[str, dict[str, bool]] = {}
    fields = signatures.table()["model_config"]
    for network in NETWORKS:
        for sees in OBSERVATIONS if network == "default" else ("vector",):
            for acts in ACTIONS:
                for lstm in ({}, {"use_lstm": True}):
                    base = {**(SMALL if network == "default" else NAMED), **lstm}
                    context = "/".join([network, sees, acts, *(["lstm"] if lstm else [])])
                    if (plain := _built(algorithm, sees, acts, base)) is None:
                        continue
                    row = found[context] = {}
                    for field in fields:
                        if network == "registered" and field.startswith(("fcnet_", "conv_")):
                            continue  # refused by name
                        row[field] = _effect(algorithm, sees, acts, base, field, fields[field], plain)
    return found


def _effect(
    algorithm: str, sees: str, acts: str, base: dict[str, Any], field: str, row: Any, plain: str
) -> bool:
    lstm = base.get("use_lstm", False)
    if field == "use_lstm":
        return _built(algorithm, sees, acts, {**base, "use_lstm": not lstm}) not in (plain, None)
    if field == SEQUENCE_FIELD:
        return bool(lstm)
    change = {field: changed(field, row.get("default"))}
    needs = NEEDS.get(field, {})
    unmet = {name: value for name, value in needs.items() if base.get(name) != value}
    if unmet and _built(algorithm, sees, acts, {**base, **change}) != plain:
        raise SystemExit(f"{algorithm}: {field} has an effect without {needs}; take it out of NEEDS")
    if "use_lstm" in unmet:
        return False
    before = _built(algorithm, sees, acts, {**base, **needs})
    # An algorithm may have another default than DefaultModelConfig: of two values one is a change.
    values = (True, False) if isinstance(row.get("default"), bool) else (change[field],)
    made = [_built(algorithm, sees, acts, {**base, **needs, field: value}) for value in values]
    return any(found not in (before, None) for found in made)


def _built(algorithm: str, sees: str, acts: str, model: dict[str, Any]) -> str | None:
    """Return the fingerprint, or None where RLlib or rlkit refuses to build."""
    try:
        return fingerprint(algorithm, sees, acts, model)
    except Exception as error:
        if model in (SMALL, NAMED, {**SMALL, "use_lstm": True}, {**NAMED, "use_lstm": True}):
            print(f"{algorithm} {sees} {acts} {model}: {type(error).__name__}: {str(error)[:100]}")
        return None


def families() -> dict[str, list[str]]:
    """Return {algorithm: those whose modules are of the same classes}; the first of the registry stands for all."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for algorithm in registry.TABLES["algorithms"]:
        if algorithm in OWN_CHECK:
            continue
        action = BOX if algorithm in ("TQC", "CQL", "IQL") else DISCRETE
        spec = algorithm_config(algorithm, OBSERVATIONS["vector"], action).get_default_rl_module_spec()
        key = (spec.module_class, spec.catalog_class, json.dumps(spec.model_config, default=repr))
        found.setdefault(key, []).append(algorithm)
    return {members[0]: members for members in found.values()}


def table(of: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return, for each family or for those of the algorithms `of`, the contexts walked and where fields are idle."""
    found = []
    for head, members in families().items():
        if of and not set(of) & set(members):
            continue
        walked = walk(head)
        fields = dict.fromkeys(field for row in walked.values() for field in row)
        idle = {f: [c for c, row in walked.items() if f in row and not row[f]] for f in fields}
        rows = {field: contexts for field, contexts in idle.items() if contexts}
        found.append({"algorithms": members, "contexts": list(walked), "idle": rows})
    return found


def dumped(content: dict[str, Any]) -> str:
    """JSON with a line for every field."""
    text = json.dumps(
        {key: content[key] for key in ("needs", "families", "unread") if key in content}, indent=1
    )
    return (
        re.sub(r"\[\s*((?:\"[^\"]*\"(?:,\s*)?)+)\s*\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
        + "\n"
    )


def markdown(content: dict[str, Any]) -> str:
    """The table as docs/without-effect.md shows it."""
    lines = [
        "# Words without effect", "",
        "What RLlib accepts and nothing reads. `rlkit check` refuses it with the fix; what depends on the",
        "environment's spaces is refused before Ray starts. Written by `scripts/walk_model.py` and",
        "`scripts/walk_sections.py`, which change or watch every field and argument and say what they can see.", "",
        "## Fields of `model:`", "",
        "`default` is RLlib's own network, `registered` is `model: {name: …}`. A field that is not named here works",
        "everywhere. `max_seq_len` works around every registered model that keeps a state (`lstm`, `gru`, `attention`,",
        "one of your own), where an algorithm takes such models.", "",
        "| field | algorithms | no effect for |", "|---|---|---|",
    ]  # fmt: skip
    rows: dict[tuple[str, str], list[str]] = {}
    for family in content["families"]:
        for field, contexts in family["idle"].items():
            where = (
                "all"
                if set(contexts) >= set(family["contexts"])
                else ", ".join(in_words(contexts, family["contexts"]))
            )
            rows.setdefault((field, where), []).extend(family["algorithms"])
    fields = list(dict.fromkeys(signatures.table()["model_config"]))
    for (field, where), algorithms in sorted(rows.items(), key=lambda row: fields.index(row[0][0])):
        lines.append(f"| `{field}` | {', '.join(algorithms)} | {where} |")
    lines += ["", "Fields that need another one:", "", "| field | needs |", "|---|---|"]
    lines += [
        f"| `{field}` | {', '.join(f'`{name}`' for name in needs)} |"
        for field, needs in content["needs"].items()
    ]
    unread = content["unread"]
    lines += ["", "## Arguments of `config:`", "", f"Watched: {', '.join(unread['walked'])}.", ""]
    lines += ["| argument | nobody reads it for |", "|---|---|"]
    for argument, algorithms in unread["arguments"].items():
        lines.append(
            f"| `{argument}` | {'all of these' if algorithms == unread['walked'] else ', '.join(algorithms)} |"
        )
    return "\n".join(lines) + "\n"


def in_words(contexts: list[str], walked: list[str]) -> list[str]:
    """Name contexts by the one part of them that they have in common and the others lack; else one by one."""
    parts = {part for context in walked for part in [*context.split("/"), "no LSTM"]}

    def has(context: str, part: str) -> bool:
        return "lstm" not in context if part == "no LSTM" else part in context.split("/")

    for part in sorted(parts):
        if {context for context in walked if has(context, part)} == set(contexts):
            return [part]
    return contexts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the file is fresh")
    only_check = parser.parse_args().check
    logging.disable(logging.WARNING)
    known = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    text = dumped({**known, "needs": NEEDS, "families": table()})
    fresh = TABLE.exists() and TABLE.read_text(encoding="utf-8") == text
    if not fresh and not only_check:
        TABLE.write_text(text, encoding="utf-8")
        DOCS.write_text(markdown(json.loads(text)), encoding="utf-8")
    print("fresh" if fresh else f"{'stale' if only_check else 'written'}: {TABLE.name}")
    return int(only_check and not fresh)


if __name__ == "__main__":
    sys.exit(main())
