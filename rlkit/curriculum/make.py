"""From the options of a recipe (or of Python keywords) to the objects that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlkit import registry
from rlkit.curriculum.base import Curriculum
from rlkit.curriculum.driver import Evaluations
from rlkit.curriculum.route import Route
from rlkit.curriculum.schema import COMMON, text, validate
from rlkit.curriculum.success import SuccessRule


@dataclass
class Made:
    """A curriculum, ready to run; see docs/curriculum.md for each option."""

    curriculum: Curriculum
    route: Route
    success: SuccessRule
    evaluations: Evaluations
    seed: int | None
    total_steps: int | None
    check: bool
    carry: dict[str, bool]
    reports_success: bool


def make(options: Mapping[str, Any], curriculum: Curriculum | None = None) -> Made:
    """Build what `options` describe; `curriculum` replaces the one that `type` and its options name.

    Raises:
        ValueError: every problem `validate` finds, or the class's own refusal of its options.
    """
    if curriculum is not None:
        if strangers := sorted(set(options) - COMMON):
            raise ValueError(
                f"options {strangers} belong to a `type`; with curriculum= give them to its class"
            )
        problems = validate({**options, "type": type(curriculum)})
    else:
        problems = validate(options)
    if problems:
        raise ValueError(text(problems))
    kind = options.get("type", "lessons")
    if curriculum is None:
        cls = registry.resolve("curricula", kind) if isinstance(kind, str) else kind
        curriculum = cls(**{key: value for key, value in options.items() if key not in COMMON})
    success = options.get("success")
    return Made(
        curriculum=curriculum,
        route=Route(**(options.get("task") or {})),
        success=SuccessRule(**(success or {})),
        evaluations=Evaluations(options.get("evaluate_on", "current")),
        seed=options.get("seed"),
        total_steps=options.get("total_steps"),
        check=options.get("check", True),
        carry={"weights": True, "optimizer": True, "replay": True, **(options.get("carry") or {})},
        reports_success=success is not None or "success" in curriculum.needs,
    )
