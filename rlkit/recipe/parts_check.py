"""What the registry names: model, callbacks, exploration, curriculum, and the options given to each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit import registry
from rlkit.errors import did_you_mean
from rlkit.recipe.env_check import action_of
from rlkit.recipe.options import check_values
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import Config, options, table
from rlkit.recipe.without_effect import idle_fields
from rlkit.recipe.words import OLD_MODEL_KEYS

_SINGULAR = {"models": "model", "callbacks": "callback", "explorations": "exploration"}
# Settings of a registered model's surroundings, and the fields of DefaultModelConfig that it replaces.
AROUND_MODEL = {
    "share": {"type": "bool"},
    "pi_gain": {"type": "float | None"},
    "vf_gain": {"type": "float | None"},
    "log_std_init": {"type": "float | None"},
}
ENCODER = ("fcnet_", "conv_")


def check_parts(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report unknown names, unknown or missing options, and options of the wrong type."""
    for index, entry in enumerate(data.get("callbacks", ())):
        _check_named("callbacks", entry, "name", ("callbacks", index), report)
    if "name" in data.get("model", {}):
        _check_registered_model(data["model"], report)
    elif not report.has(("model", "name")):
        _check_default_model(data.get("model", {}), report)
    algorithm, acts = config.algorithm, action_of(data.get("env", ""), data.get("env_config", {}))
    for field, message, fix in idle_fields(algorithm, data.get("model", {}), acts=acts):
        report.add(("model", field), message, fix, key=True)
    _check_named("explorations", data.get("exploration", {}), "type", ("exploration",), report)
    _check_exploration_fits(data, config, report)
    _check_curriculum(data, report)


def _check_named(kind: str, entry: Mapping[str, Any], key: str, path: Path, report: Report) -> None:
    if key not in entry:
        return
    name, known = entry[key], registry.TABLES[kind]
    if name not in known:
        hint = did_you_mean(name, known)
        fix = instead(hint, ()) if hint else f"`rlkit list {kind}` shows all; register yours with --import"
        report.add((*path, key), f"unknown {_SINGULAR[kind]} {name!r}{hint}", fix)
        return
    found = options(kind, name)
    if found is not None:
        given = {option: value for option, value in entry.items() if option != key}
        check_values(given, found["arguments"], path, report, owner=name, open_ended=found["open"])


def _check_default_model(model: Mapping[str, Any], report: Report) -> None:
    rows = table()["model_config"]
    for key in model:
        if key in OLD_MODEL_KEYS:
            message = f"the new API stack has no model key {key!r}"
            report.add(("model", key), message, OLD_MODEL_KEYS[key], key=True)
        elif key not in rows:
            hint = did_you_mean(key, rows)
            known = ((name, options("models", name)) for name in registry.TABLES["models"])
            owner = next((name for name, found in known if found and key in found["arguments"]), None)
            fix = f"add name: {owner}" if owner else instead(hint, rows)
            message = f"RLlib's DefaultModelConfig has no field {key!r}{hint}"
            report.add(("model", key), message, fix, key=True)
    check_values({key: value for key, value in model.items() if key in rows}, rows, ("model",), report)


def _check_registered_model(model: Mapping[str, Any], report: Report) -> None:
    """Its own options, and the fields of DefaultModelConfig that lie around it (rlkit.models.spec)."""
    name, fields = model["name"], table()["model_config"]
    around = {**AROUND_MODEL, **{key: row for key, row in fields.items() if not key.startswith(ENCODER)}}
    own = {key: value for key, value in model.items() if key not in around}
    for key in [key for key in own if key in fields and name in registry.TABLES["models"]]:
        del own[key]
        message = f"{key} configures RLlib's own encoder, which {name} replaces"
        report.add(("model", key), message, f"use the options of {name}, or leave out name", key=True)
    _check_named("models", own, "name", ("model",), report)
    if own.get("hiddens") == []:
        report.add(
            ("model", "hiddens"), "a model needs a layer", "write the size of each, e.g. [64, 64]", got=[]
        )
    check_values({key: value for key, value in model.items() if key in around}, around, ("model",), report)


def _check_exploration_fits(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report an exploration that the algorithm or its action space cannot use."""
    kind, env = data.get("exploration", {}).get("type"), data.get("env", "")
    row = table()["misfits"].get(kind, {}).get(config.algorithm)
    if row is None:
        return
    fix = "see `rlkit list explorations`, or remove the section"
    action = action_of(env, data.get("env_config", {}))
    if not row["actions"]:
        reason = row["reason"].replace(f"{config.algorithm}Config", config.algorithm)
        report.add(("exploration", "type"), reason, fix, got=kind)
    elif action in ("Discrete", "Box") and action not in row["actions"]:
        words = {"Discrete": "discrete", "Box": "continuous"}
        needed = f"{kind} needs {words[row['actions'][0]]} actions, {env} has {words[action]} ones"
        report.add(("exploration", "type"), needed, fix, got=kind)


def _check_curriculum(data: Mapping[str, Any], report: Report) -> None:
    """The section's own checks are those of `rlkit.curriculum.validate`; here they get their lines."""
    curriculum = data.get("curriculum")
    if curriculum is None or report.has(("curriculum",)):
        return
    from rlkit.curriculum import TYPES, validate

    registered = tuple(name for name in registry.TABLES["curricula"] if name not in TYPES)
    try:
        problems = validate(curriculum, total_steps=data.get("stop", {}).get("env_steps"), known=registered)
    except Exception as error:  # a part's own check must not end in a traceback
        problems = [((), f"cannot be read: {type(error).__name__}: {error}")]
    for inner, message in problems:
        at_key = not inner or message.startswith("unknown key") or "is missing" in message
        fix = "see docs/curriculum.md for the keys of this section"
        report.add(("curriculum", *inner), message, fix, key=at_key)
