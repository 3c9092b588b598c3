"""The `tune:` section in Tune's own words: search spaces, seeds, schedulers and searchers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain

from rlkit import seeds
from rlkit.errors import UsageError, did_you_mean
from rlkit.recipe import Recipe
from rlkit.recipe.run_check import SAMPLERS
from rlkit.recipe.spaces import LISTS, SearchSpace

DOMAINS = {
    "grid": lambda *args: tune.grid_search(list(args)),
    "choice": lambda *args: tune.choice(list(args)),
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "randint": tune.randint,
}


def _replaced(value: Any, by: Callable[[str, Sequence[Any]], Any]) -> Any:
    """Return nested values with `by(kind, members)` in place of every search space."""
    if isinstance(value, SearchSpace):
        return by(value.kind, value.args)
    if isinstance(value, Mapping):
        if set(value) == {"grid_search"}:
            return by("grid", value["grid_search"])
        return {key: _replaced(item, by) for key, item in value.items()}
    return [_replaced(item, by) for item in value] if isinstance(value, list | tuple) else value


def to_tune(value: Any) -> Any:
    """Return the value with every search space in it replaced by Tune's domain."""
    return _replaced(value, lambda kind, members: DOMAINS[kind](*members))


def first_value(value: Any) -> Any:
    """Return the value with every search space replaced by one of its members, to build the recipe once up front."""
    return _replaced(value, lambda kind, members: members[0])


def has_spaces(value: Any) -> bool:
    """True if a search space stands anywhere below."""
    found: list[str] = []
    _replaced(value, lambda kind, members: found.append(kind))
    return bool(found)


def searches(recipe: Recipe) -> bool:
    """Whether a searcher chooses the trials; `random` is what Tune does without one."""
    return (recipe.tune.search or {}).get("type", "random") != "random"


def param_space(recipe: Recipe) -> tuple[dict[str, Any], int]:
    """Return Tune's `config` and `num_samples`.

    With a seed, `samples` are seeds: `seed, seed + 1, ...`, each combined with every grid point, and each with its
    own draw of random spaces. With a searcher (which cannot take a grid) or without a seed they are Tune's samples.
    """
    space = to_tune(recipe.to_dict())
    less = {"metric": recipe.tune.metric, "mode": recipe.tune.mode}  # the trial ranks its checkpoints
    space["tune"] = less if recipe.tune.mode == "min" else {}
    samples = recipe.tune.samples
    if samples > 1 and recipe.seed is not None and not searches(recipe):
        space["seed"] = tune.grid_search([recipe.seed + k for k in range(samples)])
        samples = 1
    return space, samples


def scheduler(recipe: Recipe) -> Any:
    """Return Tune's scheduler, or None for first in, first out; see `rlkit.launch.schedulers`.

    Raises:
        UsageError: an unknown type, or an option the scheduler does not have.
    """
    from rlkit.launch import schedulers

    options = dict(recipe.tune.scheduler or {})
    if options.get("mutations"):
        options["mutations"] = {key: _mutation(value) for key, value in options["mutations"].items()}
    return schedulers.make(options, keep=recipe.checkpoint.keep)


def _mutation(value: Any) -> Any:
    """A list of values, of which Tune takes a neighbour, or a domain, of which it takes a multiple."""
    if isinstance(value, SearchSpace) and value.kind in LISTS:
        return list(value.args)
    return to_tune(value)


def keeps_own_checkpoints(recipe: Recipe) -> bool:
    """Whether the scheduler prunes checkpoints itself: population based training needs some for longer."""
    return (recipe.tune.scheduler or {}).get("type") == "pbt"


def _optuna(options: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Turn a recipe's words for Optuna into its objects: `sampler`, `seed`, and `storage`, a file that is continued.

    Raises:
        UsageError: a sampler whose package is not installed; a storage that is no study of Optuna's.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        return options  # Tune says what is missing
    found = dict(options)
    seed = found.pop("seed", None)
    if seed is None and recipe.seed is not None:
        seed = seeds.number(recipe.seed, "search") % 2**31
    name = str(found.pop("sampler", "tpe")).lower()
    known = 0
    if found.get("storage") is not None:
        path = str(found["storage"])
        backend = JournalFileBackend(path)
        try:
            storage = found["storage"] = optuna.storages.JournalStorage(backend)
            study = found.setdefault("study_name", recipe.name)
            if study in optuna.study.get_all_study_names(storage):
                known = len(optuna.load_study(study_name=study, storage=storage).trials)
        except (ValueError, TypeError, LookupError, OSError) as error:
            raise UsageError(f"tune.search.storage: {path} is no storage of Optuna's ({error})") from None
    if known and seed is not None:  # with the same seed a study that goes on would try its first trials again
        seed = seeds.number(seed, "search", known) % 2**31
    try:
        found["sampler"] = getattr(optuna.samplers, SAMPLERS[name])(seed=seed)
    except ImportError as error:
        raise UsageError(
            f"tune.search.sampler: {name} needs a package that is not installed: {error}"
        ) from None
    return found


class Patient(tune.search.Searcher):
    """A searcher that hears of a result only where it has the metric, and of the config only what is searched.

    Optuna's raises a KeyError for any other result (ray 2.60, `OptunaSearch.on_trial_result`): an evaluation takes
    place in some iterations alone, and no episode may be over after the first. It also raises for every key with a
    `/`, such as `stop: {eval/episode_return: 475}`; Tune puts what is suggested into the whole config.
    """

    def __init__(self, searcher: tune.search.Searcher):
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.inner = searcher

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        super().__init__(metric=metric, mode=mode)
        return self.inner.set_search_properties(metric, mode, searched(config), **spec)

    def suggest(self, trial_id: str) -> dict | None:
        return self.inner.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        if _number(result, self.metric) is not None:
            self.inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        known = result if result and _number(result, self.metric) is not None else None
        self.inner.on_trial_complete(trial_id, known, error)

    def save(self, checkpoint_path: str) -> None:
        self.inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        self.inner.restore(checkpoint_path)


def searched(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of nested mappings that consists of Tune's domains."""
    found = {}
    for key, value in config.items():
        part = searched(value) if isinstance(value, Mapping) else value
        if isinstance(part, Domain) or (part and isinstance(value, Mapping)):
            found[key] = part
    return found


def _number(result: Mapping[str, Any], metric: str) -> float | None:
    value = result.get(metric)
    return None if value is None or math.isnan(value) else float(value)


def searcher(recipe: Recipe) -> Any:
    """Return Tune's search algorithm; for grids and random draws its own, whose draws follow from the recipe's seed.

    Raises:
        UsageError: an unknown searcher, or one whose package is not installed.
    """
    options = dict(recipe.tune.search or {})
    kind = str(options.pop("type", "random")).lower()
    from ray.tune import search

    if kind == "random":
        draws = None if recipe.seed is None else seeds.number(recipe.seed, "search")
        return search.BasicVariantGenerator(max_concurrent=recipe.tune.concurrent or 0, random_state=draws)

    if kind not in search.SEARCH_ALG_IMPORT:
        raise UsageError(f"tune.search.type: unknown {kind!r}{did_you_mean(kind, search.SEARCH_ALG_IMPORT)}")
    if kind == "optuna":
        options = _optuna(options, recipe)
    try:
        found = Patient(search.create_searcher(kind, **options))
        logging.getLogger(kind).setLevel(logging.WARNING)  # Optuna tells on stderr that it made a study
        return found
    except ImportError as error:
        raise UsageError(
            f"tune.search.type: {kind} needs a package that is not installed: {error}"
        ) from error
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"tune.search.type: {kind}: {error}") from error
