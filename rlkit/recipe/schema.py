"""The recipe in memory: what `rlkit.recipe.load` returns and everything after it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import CoreSchema, ValidationError, core_schema

from rlkit.metrics import tidy_name
from rlkit.recipe.explain import explain
from rlkit.recipe.problems import Path, RecipeError, Report, Unusable
from rlkit.recipe.signatures import Config

Name = Annotated[str, Field(min_length=1)]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


def _form(value: object) -> str:
    return "(mapping)" if isinstance(value, Mapping) else "(word)"


@dataclass(frozen=True)
class _Named:
    """A mapping whose `key` is a name beside any options; it stays as it was given."""

    title: str
    key: str
    form: str
    required: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        name = core_schema.typed_dict_field(core_schema.str_schema(min_length=1), required=self.required)
        options = core_schema.typed_dict_schema({self.key: name}, extra_behavior="allow")
        return core_schema.no_info_wrap_validator_function(self.check, options)

    def check(self, value: Any, validate: Callable[[Any], Any]) -> Any:
        if isinstance(value, str):
            raise ValueError(f"{self.title} is a mapping; fix: write {self.form.format(value)}")
        validate(value)
        return dict(value)


Model = Annotated[dict[str, Any], _Named("model", "name", "model: {{name: {}}}", required=False)]
Exploration = Annotated[dict[str, Any], _Named("exploration", "type", "exploration: {{type: {}}}")]
Callback = Annotated[dict[str, Any], _Named("a callback", "name", "- {{name: {}}}")]
_CURRICULUM = _Named("curriculum", "type", "curriculum: {{type: {}}}", required=False)
Curriculum = Annotated[dict[str, Any], _CURRICULUM]
Scheduler = Annotated[dict[str, Any], _Named("scheduler", "type", "scheduler: {{type: {}}}")]
Search = Annotated[dict[str, Any], _Named("search", "type", "search: {{type: {}}}")]


def _field(text: str, default: Any = ..., **bounds: Any) -> Any:
    return Field(default, description=text, **bounds)


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class PolicySection(_Section):
    """One module of a multi-agent run and the agents it plays."""

    agents: list[Name] = _field("agents this module plays; globs such as adversary_*", min_length=1)
    critic: Literal["centralized", "local"] | None = _field("what a centralised critic sees", None)
    train: bool = _field("false freezes the module", True)


def _plain(value: Any) -> Any:
    """A deep copy without models; a search space stays what it is (pydantic's own dump would take it apart)."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


_ByName = Annotated[dict[Name, PolicySection], Field(min_length=1), Tag("(mapping)")]
Policies = Annotated[_ByName | Annotated[Literal["shared"], Tag("(word)")], Discriminator(_form)]


_ByGlob = Annotated[dict[Name, Name], Field(min_length=1), Tag("(mapping)")]
InitFrom = Annotated[_ByGlob | Annotated[Name, Tag("(word)")], Discriminator(_form)]


class EvaluationSection(_Section):
    """Exact greedy evaluation during training, on seeds of its own."""

    every: int = _field("iterations between evaluations", 10, ge=1)
    episodes: int = _field("complete episodes per evaluation", 20, ge=1, le=100_000)


class Checkpoint(_Section):
    """When checkpoints are written and which are kept."""

    every: int = _field(
        "iterations between checkpoints; 0: only at the end, and where an evaluation is the best so far",
        10,
        ge=0,
    )
    keep: int | None = _field("checkpoints to keep, the best ones, and the last besides; null: all", 3, ge=1)
    best: Name = _field("best checkpoint's metric; with `evaluation` its return", "episode_return")


class Tune(_Section):
    """Several trials of one recipe, through Ray Tune."""

    samples: int = _field("trials per grid point; with `seed` they are seeds", 1, ge=1, le=10_000)
    metric: Name = _field("what trials are compared by", "episode_return")
    mode: Literal["max", "min"] = _field("whether more of `metric` is better", "max")
    scheduler: Scheduler | None = _field("{type: asha | pbt | median | hyperband | fifo, …}", None)
    search: Search | None = _field("{type: random | optuna | …, …}", None)
    max_failures: int = _field("restarts of a failed trial, from its newest checkpoint", 0, ge=0)
    concurrent: int | None = _field("trials at once; default: as many as fit", None, ge=1)


class Recipe(_Section):
    """One experiment. `docs/recipe.md` documents every key; a test compares them."""

    name: RunName = _field("run name; default: the file's stem")
    algorithm: Name = _field("a name of `rlkit list algorithms`")
    env: Name = _field("Gymnasium id, registered name, pettingzoo/<module>.<env> or vmas/<scenario>")
    env_config: dict[Name, Any] = _field("keyword arguments of the environment", {})
    data: Name | None = _field("recorded episodes of BC, MARWIL, CQL, IQL: a file, or minari/<id>", None)
    env_timeout_s: float = _field("seconds that one `reset`, `step` or constructor may take", 300.0, gt=0)
    seed: int | None = _field("seed of everything random; null: not seeded", 0, ge=0, le=2**31 - 1)
    config: dict[Name, dict[Name, Any]] = _field("RLlib's AlgorithmConfig: method -> its arguments", {})
    model: Model | None = _field("a registered model and its options, or RLlib's own fields", None)
    exploration: Exploration | None = _field("`type` of `rlkit list explorations` and options", None)
    policies: Policies | None = _field("module -> agents; default one each; `shared`: one for all", None)
    init_from: InitFrom | None = _field("run, checkpoint or bundle to begin with; or policies -> one", None)
    callbacks: list[Callback] = _field("`name` of `rlkit list callbacks` and options, each", [])
    curriculum: Curriculum | None = _field("`type` of `rlkit list curricula` and options", None)
    stop: dict[Name, float] = _field("metric -> value; the first reached ends the run", min_length=1)
    evaluation: EvaluationSection | None = _field("evaluation during training", None)
    checkpoint: Checkpoint = _field("checkpoints", Checkpoint())
    track: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = _field(
        "experiment trackers that get every result", ["tensorboard"]
    )
    tune: Tune = _field("several trials", Tune())

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """With evaluation, it chooses the best checkpoint; with data, which play no episodes, the best trial too."""
        found = dict(values)
        for section, key in (("checkpoint", "best"), ("tune", "metric")):
            given = values.get(section, {})
            needed = "evaluation" if section == "checkpoint" else "data"
            if values.get(needed) is not None and isinstance(given, Mapping):
                found[section] = {key: "eval/episode_return", **given}
        return found

    @field_validator("stop")
    @classmethod
    def _singular(cls, stop: dict[str, float]) -> dict[str, float]:
        """`iterations` may be written for `iteration`."""
        return {"iteration" if name == "iterations" else name: value for name, value in stop.items()}

    @property
    def best_sign(self) -> float:
        """-1.0 where less of `checkpoint.best` is better: where it is `tune.metric` and `tune.mode` is min."""
        best, compared = (
            tidy_name(name).removeprefix("eval/") for name in (self.checkpoint.best, self.tune.metric)
        )
        return -1.0 if self.tune.mode == "min" and best == compared else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back, JSON-able except for search spaces; no absent sections."""
        fields = type(self).model_fields
        values = {name: _plain(getattr(self, name)) for name in fields}
        return {name: v for name, v in values.items() if fields[name].default is not None or v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Validate plain data against the schema.

        Raises:
            RecipeError: with every problem.
        """
        report = Report("recipe")
        try:
            recipe = validated(values, report)
        except Unusable:
            recipe = None
        if recipe is None or report.problems:
            raise RecipeError(report.problems)
        return recipe


SECTIONS = set(Recipe.model_fields) - {"name", "algorithm", "env", "seed", "data"}


def validated(data: Mapping[str, Any], report: Report) -> Recipe | None:
    """Return the recipe, or None after reporting everything that is wrong with its shape.

    Names and RLlib's arguments are not looked up. What has a problem already is left out.
    """
    config = data.get("config")
    paths: list[tuple[Path, Any]] = [((name,), value) for name, value in data.items() if name in SECTIONS]
    paths += [(("config", m), given) for m, given in (config if isinstance(config, Mapping) else {}).items()]
    for path, value in paths:
        if value is None:
            fix = f"fill it, write {'[]' if path == ('callbacks',) else '{}'}, or remove the key"
            report.add(path, f"the section {path[-1]!r} is empty", fix, key=True)
    values = report.sound(data)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        explain(error, values, (), report, Recipe)
        return None
    arguments = Config(recipe.algorithm).arguments
    shaped: dict[str, Any] = {}
    for method, given in recipe.config.items():
        rows = arguments(method)
        shaped[method] = {name: _shaped(value, rows.get(name, {})) for name, value in given.items()}
    return recipe.model_copy(update={"config": shaped})


def _shaped(value: Any, row: Mapping[str, Any]) -> Any:
    """Return a list as a tuple where RLlib takes no list: it compares `n_step` with `isinstance(…, tuple)`."""
    kinds = row.get("type", "").split(" | ")
    starts = {kind.partition("[")[0] for kind in kinds}
    return tuple(value) if isinstance(value, list) and "tuple" in starts and "list" not in starts else value
