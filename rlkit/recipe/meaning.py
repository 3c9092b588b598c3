"""What the schema cannot say: names that exist, values that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit import registry
from rlkit.errors import did_you_mean
from rlkit.recipe.config_check import check_config
from rlkit.recipe.env_check import check_env
from rlkit.recipe.parts_check import check_parts
from rlkit.recipe.problems import Report, instead
from rlkit.recipe.run_check import check_run
from rlkit.recipe.signatures import Config
from rlkit.recipe.words import OLD_ALGORITHMS


def check_meaning(data: Mapping[str, Any], report: Report) -> None:
    """Report what is wrong with the content of a recipe, whatever its shape."""
    config = Config(_algorithm(data, report))
    check_env(data, config, report)
    check_config(data, config, report)
    check_parts(data, config, report)
    check_run(data, config, report)


def _algorithm(data: Mapping[str, Any], report: Report) -> str:
    """Return the algorithm whose arguments the config is checked against: for a misspelt name the one that is meant."""
    name = data.get("algorithm")
    if not isinstance(name, str) or not name or name in registry.TABLES["algorithms"]:
        return name if isinstance(name, str) else ""
    if name in OLD_ALGORITHMS:
        report.add(("algorithm",), f"RLlib no longer has {name}", got=name, fix=OLD_ALGORITHMS[name])
        return ""
    hint = did_you_mean(name, registry.TABLES["algorithms"])
    fix = instead(hint, registry.TABLES["algorithms"])
    report.add(("algorithm",), f"unknown algorithm {name!r}{hint}", fix=fix)
    return hint.split("'")[1] if hint else ""
