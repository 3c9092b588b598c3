"""What the registry names: model, callbacks, exploration, curriculum, and the options given to each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit import registry
from rlkit.errors import did_you_mean
from rlkit.recipe.config_check import check_value
from rlkit.recipe.env_check import action_of
from rlkit.recipe.limits import section
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import Config, options, table
from rlkit.recipe.spaces import candidates
from rlkit.recipe.tree import unreadable
from rlkit.recipe.types import expressible, parse_type

_SINGULAR = {
    "models": "model",
    "callbacks": "callback",
    "explorations": "exploration",
    "curricula": "curriculum",
}
_OLD_MODEL_KEYS = {
    "custom_model": "register the model and write name: … (docs/models.md)",
    "custom_model_config": "write the options beside name: …",
    "use_attention": "register a model of your own and write name: …",
    "post_fcnet_hiddens": "write head_fcnet_hiddens: […]",
    "post_fcnet_activation": "write head_fcnet_activation: …",
    "no_final_linear": "remove it",
    "framestack": "wrap the environment",
    "dim": "wrap the environment",
    "grayscale": "wrap the environment",
}
# Settings of a registered model's surroundings, and the fields of DefaultModelConfig that it replaces.
AROUND_MODEL = {
    "share": {"type": "bool"},
    "pi_gain": {"type": "float | None"},
    "vf_gain": {"type": "float | None"},
}
ENCODER = ("fcnet_", "conv_")


def check_parts(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report unknown names, unknown or missing options, and options of the wrong type."""
    callbacks = data.get("callbacks")
    for index, entry in enumerate(callbacks if isinstance(callbacks, list) else ()):
        _check_named("callbacks", entry, "name", ("callbacks", index), report)
    _check_model(data.get("model"), report)
    _check_named("explorations", data.get("exploration"), "type", ("exploration",), report)
    _check_exploration_fits(data, config, report)
    _check_curriculum(data, report)


def _check_named(kind: str, entry: Any, key: str, path: Path, report: Report) -> None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str) or not entry[key]:
        return
    name, known = entry[key], registry.TABLES[kind]
    if name not in known:
        hint = did_you_mean(name, known)
        fix = instead(hint, ()) if hint else f"`rlkit list {kind}` shows all; register yours with --import"
        report.add((*path, key), f"unknown {_SINGULAR[kind]} {name!r}{hint}", fix=fix)
        return
    found = options(kind, name)
    if found is not None:
        given = {option: value for option, value in entry.items() if option != key}
        check_options(name, found, given, path, report)


def check_options(
    name: str, found: Mapping[str, Any], given: Mapping[str, Any], path: Path, report: Report
) -> None:
    """Report options that a registered object does not take, lacks, or that have the wrong type."""
    rows = found["arguments"]
    usable = [option for option, row in rows.items() if expressible(parse_type(row["type"]))]
    for option, value in given.items():
        here = (*path, option)
        if option not in rows:
            if not found["open"]:
                hint = did_you_mean(option, usable)
                report.add(
                    here, f"{name} has no option {option!r}{hint}", fix=instead(hint, usable), key=True
                )
        elif option not in usable:
            report.add(
                here,
                f"{name}.{option} takes a class or function, which a recipe cannot name",
                got=value,
                fix="remove it",
                key=True,
            )
        elif not unreadable(value):
            check_value(option, value, rows[option]["type"], here, report)
    for option, row in rows.items():
        if row.get("required") and option not in given:
            report.add(path, f"{name} needs the option {option!r}", fix=f"add {option}: …")


def _check_model(model: Any, report: Report) -> None:
    if not isinstance(model, Mapping):
        return
    if "name" in model:
        _check_registered_model(model, report)
        return
    rows = table().get("model_config", {})
    for key, value in model.items():
        path = ("model", key)
        if key in _OLD_MODEL_KEYS:
            report.add(
                path, f"the new API stack has no model key {key!r}", fix=_OLD_MODEL_KEYS[key], key=True
            )
        elif key not in rows:
            hint = did_you_mean(key, rows)
            owners = [
                name
                for name in registry.TABLES["models"]
                if key in (options("models", name) or {"arguments": {}})["arguments"]
            ]
            fix = f"add name: {owners[0]}" if owners else instead(hint, rows)
            report.add(path, f"RLlib's DefaultModelConfig has no field {key!r}{hint}", fix=fix, key=True)
        elif not unreadable(value):
            check_value(key, value, rows[key]["type"], path, report)


def _check_registered_model(model: Mapping[str, Any], report: Report) -> None:
    """Its own options, and the fields of DefaultModelConfig that lie around it (rlkit.models.spec)."""
    name = model["name"]
    if not isinstance(name, str):
        return
    fields = table().get("model_config", {})
    around = {**AROUND_MODEL, **{key: row for key, row in fields.items() if not key.startswith(ENCODER)}}
    own = {key: value for key, value in model.items() if key == "name" or key not in around}
    for key in [key for key in own if key in fields and name in registry.TABLES["models"]]:
        del own[key]
        fix = f"use the options of {name}, or leave out name"
        report.add(
            ("model", key), f"{key} configures RLlib's own encoder, which {name} replaces", fix=fix, key=True
        )
    _check_named("models", own, "name", ("model",), report)
    for key, value in model.items():
        if key in around and not unreadable(value):
            check_value(key, value, around[key]["type"], ("model", key), report)
    words, activation = table().get("activations", ()), model.get("activation")
    if name in table().get("options", {}).get("models", {}):
        for item in candidates(activation):
            if isinstance(item, str) and item not in words:
                hint = did_you_mean(item, words)
                report.add(
                    ("model", "activation"), f"unknown activation{hint}", got=item, fix=instead(hint, words)
                )


def _check_exploration_fits(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report an exploration that the algorithm or its action space cannot use."""
    kind, env = section(data, "exploration").get("type"), data.get("env")
    row = table().get("misfits", {}).get(kind, {}).get(config.algorithm) if isinstance(kind, str) else None
    if row is None or not config.known:
        return
    action = action_of(env, section(data, "env_config")) if isinstance(env, str) else None
    path: Path = ("exploration", "type")
    fix = "see `rlkit list explorations`, or remove the section"
    if not row["actions"]:
        report.add(
            path, row["reason"].replace(f"{config.algorithm}Config", config.algorithm), got=kind, fix=fix
        )
    elif action in ("Discrete", "Box") and action not in row["actions"]:
        words = {"Discrete": "discrete", "Box": "continuous"}
        needed = f"{kind} needs {words[row['actions'][0]]} actions, {env} has {words[action]} ones"
        report.add(path, needed, got=kind, fix=fix)


def _check_curriculum(data: Mapping[str, Any], report: Report) -> None:
    """The section's own checks are those of `rlkit.curriculum.validate`; here they get their lines."""
    curriculum = data.get("curriculum")
    if not isinstance(curriculum, Mapping) or unreadable(curriculum):
        return
    from rlkit.curriculum import TYPES, validate

    registered = tuple(name for name in registry.TABLES["curricula"] if name not in TYPES)
    steps = section(data, "stop").get("env_steps")
    total = float(steps) if isinstance(steps, int | float) and not isinstance(steps, bool) else None
    try:
        problems = validate(curriculum, total_steps=total, known=registered)
    except Exception as error:  # a part's own check must not end in a traceback
        problems = [((), f"cannot be read: {type(error).__name__}: {error}")]
    for inner, message in problems:
        path: Path = ("curriculum", *inner)
        at_key = not inner or message.startswith("unknown key") or "is missing" in message
        report.add(path, message, fix="see docs/curriculum.md for the keys of this section", key=at_key)
