"""What the schema cannot say: names that exist, values that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.recipe.problems import Report


def check_meaning(data: Mapping[str, Any], report: Report) -> None:
    """Report what is wrong with the content of a recipe, whatever its shape."""
