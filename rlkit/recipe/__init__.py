"""Recipes: one strict YAML file per experiment, checked before anything starts, without importing ray or torch."""

from __future__ import annotations

from rlkit.recipe.check import check, from_flags, from_mapping, load, loads
from rlkit.recipe.dump import dump
from rlkit.recipe.jsonschema import json_schema
from rlkit.recipe.problems import Problem, RecipeError
from rlkit.recipe.schema import Checkpoint, EvaluationSection, PolicySection, Recipe, Tune
from rlkit.recipe.spaces import SearchSpace

__all__ = [
    "Checkpoint",
    "EvaluationSection",
    "PolicySection",
    "Problem",
    "Recipe",
    "RecipeError",
    "SearchSpace",
    "Tune",
    "check",
    "dump",
    "from_flags",
    "from_mapping",
    "json_schema",
    "load",
    "loads",
]
