"""What a recipe asks for, made once before anything trains: its spaces, its environment, its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.errors import UsageError
from rlkit.launch.session import quiet_loggers, set_quiet
from rlkit.recipe import Recipe


def load_recipe(recipe: Any, overrides: Mapping[str, Any] | Sequence[str]) -> Recipe:
    """Return a checked Recipe from a file, a dict or a Recipe."""
    if isinstance(recipe, str | Path):
        return recipes.load(recipe, overrides)
    values = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
    return recipes.from_mapping(values, overrides)


def dry_run(
    recipe: Any,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    imports: Sequence[str] = (),
    trust: bool = False,
) -> str:
    """Do all that `train` does before training, without a run folder and without Ray; return one line that says what.

    `trust` takes weights (`init_from`) from a checkpoint that this user did not write, as in `train`.

    Raises:
        RecipeError: the recipe is wrong (all problems at once).
        UsageError: the parts of the recipe do not fit together.
        EnvError: the environment cannot be made.
    """
    from rlkit.launch.spaces import read_roster

    registry.begin(imports)
    loaded = load_recipe(recipe, overrides)
    registry.begin(imports, loaded.to_dict())
    trust_needs_weights(loaded, trust)
    set_quiet(False)
    look_at_spaces(loaded)
    registry.resolve("algorithms", loaded.algorithm)
    quiet_loggers()  # after the import of RLlib, which sets levels of its own
    try_tune(loaded)
    rehearse(loaded, trust=trust)
    agents = len(read_roster(first_trial(loaded)).spaces)
    return f"{loaded.name}: {loaded.algorithm} on {loaded.env} ({agents} agent{'s' if agents > 1 else ''}) can train"


def try_tune(recipe: Recipe) -> None:
    """Make the scheduler and the searcher of a recipe; a storage that is not there yet is not begun.

    Raises:
        UsageError: one of them cannot be made.
    """
    from rlkit.launch.search import scheduler, searcher

    scheduler(recipe)
    search = dict(recipe.tune.search or {})
    if search.get("storage") and not Path(str(search["storage"])).exists():
        del search["storage"]
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"search": search})})
    searcher(recipe)


def trust_needs_weights(recipe: Recipe, trust: bool) -> None:
    """Refuse `--trust` where a new run loads nothing.

    Raises:
        UsageError: there is no `init_from`.
    """
    if trust and not recipe.init_from:
        raise UsageError("trust goes with init_from or with a run that is resumed: nothing else is loaded")


def rehearse(recipe: Recipe, *, weights: bool = True, trust: bool = False) -> tuple[Any, list[Any]]:
    """Make the environment and the networks of a recipe's first trial; needs no Ray.

    Args:
        recipe: of the run.
        weights: match the weights of `init_from` too. trust: take those of a checkpoint this user did not write.

    Returns:
        The AlgorithmConfig, and what each module takes from `init_from` (`initial.Plan`).

    Raises:
        UsageError: the parts of the recipe do not fit together.
        EnvError: the environment cannot be made.
    """
    from rlkit.launch import initial
    from rlkit.launch.build import build
    from rlkit.launch.spaces import check_spaces

    first = first_trial(recipe)
    config = build(first)
    modules = check_spaces(config, first)
    if not first.init_from or not weights:
        return config, []
    return config, initial.plans(first.init_from, initial.shapes_of(modules), trust=trust)


def look_at_spaces(recipe: Recipe) -> None:
    """Say what can be known of the spaces before RLlib is imported and Ray starts.

    The environments of PettingZoo and VMAS import RLlib; theirs are read when Ray has started (`rehearse`).
    """
    from rlkit.envs import is_multi_agent
    from rlkit.launch.spaces import forget_rosters, refuse

    forget_rosters()
    if recipe.env in registry.TABLES["envs"] or not is_multi_agent(recipe.env):
        refuse(first_trial(recipe))


def first_trial(recipe: Recipe) -> Recipe:
    """Return the recipe with the first value of each search space."""
    from rlkit.launch.search import first_value

    return Recipe.from_dict({**first_value(recipe.to_dict()), "tune": {}})
