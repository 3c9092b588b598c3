"""Words that change nothing: fields of `model:` and arguments of `config:`, as walks over RLlib found them.

`without_effect.json` is written by scripts/walk_model.py and scripts/walk_sections.py, which say what they can see.
A context is `network/observations/actions[/lstm]`, such as `default/vector/Discrete/lstm`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlkit.algos.rules import STATELESS
from rlkit.recipe.signatures import table as signatures

REGISTERED = "registered"
OWN_MEMORY = ("SAC", "DRON")  # their modules keep the state of a registered model


@functools.cache
def table() -> dict[str, Any]:
    """Return without_effect.json."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("without_effect.json").read_bytes())
    return loaded


def is_unread(algorithm: str, method: str, argument: str) -> bool:
    """Whether nothing reads an argument of a section method when a recipe trains this algorithm."""
    return algorithm in table()["unread"]["arguments"].get(f"{method}.{argument}", ())


def idle_fields(
    algorithm: str, model: Mapping[str, Any], sees: str | None = None, acts: str | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield (field, message, fix) for every field of DefaultModelConfig in `model` that has no effect.

    Args:
        sees: "vector" or "picture"; None where that is not known.
        acts: "Discrete" or "Box"; None where that is not known.
    """
    walked = next((row for row in table()["families"] if algorithm in row["algorithms"]), None)
    if walked is None:
        return
    network = REGISTERED if "name" in model else "default"
    # Models of other names may keep a state.
    stateless = model.get("name") in STATELESS
    lstm = model.get("use_lstm", False)
    fields = signatures()["model_config"]
    known = {
        "network": network,
        "sees": None if network == REGISTERED else sees,
        "acts": acts,
        "lstm": lstm if isinstance(lstm, bool) else None,
    }
    if not any(_fits(context, {**known, "lstm": True}) for context in walked["contexts"]):
        known["lstm"] = None  # such modules keep no state: what is said of `use_lstm` is enough
    here = [context for context in walked["contexts"] if _fits(context, known)]
    for field, value in model.items():
        if (
            field != "fusionnet_hiddens"
            and model.get("fusionnet_hiddens") == []
            and field.startswith("fusionnet_")
        ):
            yield field, f"{field} has no effect where fusionnet_hiddens is empty", "remove one of them"
            continue
        if field not in fields or value == fields[field].get("default"):
            continue
        if field == "max_seq_len" and not stateless:
            continue
        needs = table()["needs"].get(field, {})
        unmet = next((name for name in needs if not model.get(name)), None)
        idle = walked["idle"].get(field, [])
        if unmet is not None and (
            unmet != "use_lstm" or any("lstm" in context for context in walked["contexts"])
        ):
            yield field, f"{field} has no effect without {unmet}", f"add {unmet}, or remove {field}"
        elif here and all(context in idle for context in here):
            yield field, *_reason(algorithm, field, known, [c for c in walked["contexts"] if c not in idle])


def _fits(context: str, known: Mapping[str, Any]) -> bool:
    network, sees, acts, *lstm = context.split("/")
    found = {"network": network, "sees": sees, "acts": acts, "lstm": bool(lstm)}
    return all(value is None or found[name] == value for name, value in known.items())


def _reason(algorithm: str, field: str, known: Mapping[str, Any], working: list[str]) -> tuple[str, str]:
    """Return the message and the fix for a field that works in the contexts `working` alone."""
    fix = f"remove {field}"
    if field == "max_seq_len":
        return "max_seq_len has no effect without a recurrent model", f"{fix}, or write name: lstm"
    if field == "use_lstm":
        if algorithm in OWN_MEMORY:
            return f"{algorithm} takes no LSTM of RLlib's", "write name: lstm with its options in its place"
        return f"{algorithm} takes no LSTM: its module keeps no state", fix
    for name, words in (
        ("sees", {"vector": "pictures (height, width, channels)", "picture": "vectors"}),
        ("acts", {"Discrete": "Box actions", "Box": "Discrete actions"}),
    ):
        if known[name] and any(_fits(context, {**known, name: None}) for context in working):
            return f"{field} has an effect for {words[known[name]]} alone", fix
    if any(_fits(context, {**known, "lstm": None}) for context in working):
        return f"{field} has no effect {'with' if known['lstm'] else 'without'} use_lstm", fix
    if known["network"] == REGISTERED and any(context.startswith("default") for context in working):
        return f"{field} has no effect around a registered model", f"remove {field}, or leave out name"
    return f"RLlib accepts {field}, and no network of {algorithm} reads it", fix
