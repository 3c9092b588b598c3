"""Recipe -> YAML that `load` reads back as the same recipe."""

from __future__ import annotations

from typing import Any

import yaml

from rlkit.recipe.scalars import needs_quotes
from rlkit.recipe.schema import Recipe
from rlkit.recipe.spaces import SearchSpace

_EMPTY: dict[str, Any] = {"env_config": {}, "config": {}, "callbacks": []}  # defaults that are left out


class _Dumper(yaml.SafeDumper):
    """Block style for sections, one line for lists of plain values; quotes where our reader needs them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if "\n" in value or not value.isprintable() else "'" if needs_quotes(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: Any) -> yaml.SequenceNode:
    flow = not any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _space(dumper: yaml.SafeDumper, value: SearchSpace) -> yaml.SequenceNode:
    return dumper.represent_sequence(f"!{value.kind}", list(value.args), flow_style=True)


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)  # YAML 1.1 wants a point: 1e-05 would be written as !!float 1e-05
    text = text if "." in text else text.replace("e", ".0e", 1)
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)
_Dumper.add_representer(SearchSpace, _space)
_Dumper.add_representer(float, _number)


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML, defaults written out. `loads(dump(r)) == r`."""
    values = {key: value for key, value in recipe.to_dict().items() if value != _EMPTY.get(key, ...)}
    for key, value in values["stop"].items():
        values["stop"][key] = int(value) if value.is_integer() and abs(value) < 2**53 else value
    policies = values.get("policies")
    for section in [values["tune"], *(policies.values() if isinstance(policies, dict) else ())]:
        for key in [key for key, value in section.items() if value is None]:
            del section[key]
    options: Any = {"sort_keys": False, "allow_unicode": True, "width": 100, "default_flow_style": False}
    return yaml.dump(values, Dumper=_Dumper, **options)
