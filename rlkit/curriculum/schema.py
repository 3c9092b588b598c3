"""What the recipe's section `curriculum` may say. Imports neither ray nor torch nor numpy.

`validate(section)` returns every problem with the path to it, so that `rlkit check` can name the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from rlkit.curriculum.conditions import Condition, check_measure
from rlkit.curriculum.samplers import Uniform, parse
from rlkit.errors import did_you_mean
from rlkit.registry import TABLES

KeyPath = tuple[str | int, ...]
Finding = tuple[KeyPath, str]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _value(value: Any) -> Any:
    parse(value)  # raises ValueError
    return value


def _uniform(value: Any) -> Any:
    if not isinstance(parse(value), Uniform):
        raise ValueError(f"got {value!r}, expected {{uniform: [lo, hi]}}")
    return value


TaskDict = dict[str, Annotated[Any, BeforeValidator(_value)]]
Space = Annotated[dict[str, Annotated[Any, BeforeValidator(_value)]], Field(min_length=1)]
Box = Annotated[dict[str, Annotated[Any, BeforeValidator(_uniform)]], Field(min_length=1)]
Tasks = dict[str, TaskDict] | list[TaskDict]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class RouteSpec(_Strict):
    via: Literal["attribute", "set_task", "reset_options", "constructor"] = "attribute"
    method: str = "set_task"
    key: str | None = None


class SuccessSpec(_Strict):
    info: str | None = None
    return_at_least: float | None = None
    terminated: bool = False


class CarrySpec(_Strict):
    weights: bool = True
    optimizer: bool = True
    replay: bool = True


class ConditionSpec(_Strict):
    measure: str
    threshold: float
    min_episodes: Annotated[int, Field(ge=0)] | None = None
    smoothing: Count | None = None
    of: str | None = None
    direction: Literal["above", "below"] = "above"

    @field_validator("measure")
    @classmethod
    def _known(cls, measure: str) -> str:
        check_measure(measure)
        return measure

    def model_post_init(self, context: Any, /) -> None:
        Condition(**self.model_dump(exclude_none=True))


class LessonSpec(_Strict):
    name: str
    task: TaskDict
    until: ConditionSpec | None = None
    back: ConditionSpec | None = None
    config: dict[str, dict[str, Any]] | None = None


class Common(_Strict):
    """Keys every curriculum has."""

    type: Any = "lessons"
    task: RouteSpec = RouteSpec()
    evaluate_on: Literal["current", "final", "each"] = "current"
    success: SuccessSpec | None = None
    seed: int | None = None
    total_steps: Count | None = None
    check: bool = True
    carry: CarrySpec = CarrySpec()


class LessonsSpec(Common):
    lessons: list[LessonSpec]


class RandomSpec(Common):
    space: Space


class AnnealingSpec(Common):
    start: dict[str, float]
    end: dict[str, float]
    over: Count
    shape: Literal["linear", "cosine", "exponential"] = "linear"


class ExpandingBoxSpec(Common):
    start: Box
    space: Box
    step: Annotated[float, Field(gt=0, le=1)] = 0.1
    window: Count = 20
    grow_at: Share = 0.8
    shrink_at: Share = 0.2
    boundary: Share = 0.5


class LevelsSpec(Common):
    """One of `tasks` and `space`."""

    tasks: Tasks | None = None
    space: Space | None = None
    levels: Count = 256
    explore: Share = 0.1


class LearningProgressSpec(Common):
    tasks: Tasks
    explore: Share = 0.2
    slow: Share = 0.03
    fast: Share = 0.2


class LearnabilitySpec(LevelsSpec):
    target: Share | None = None
    window: Count = 20


class PLRSpec(LevelsSpec):
    explore: Share = 0.0
    score: Literal["value_loss", "td"] = "value_loss"
    temperature: Positive = 0.1
    staleness: Share = 0.1
    replay: Share = 0.5
    smoothing: Share = 1.0


class ALPGMMSpec(Common):
    space: Box
    explore: Share = 0.2
    history: Annotated[int, Field(ge=2)] = 250
    refit: Count = 25
    components: Annotated[int, Field(ge=2)] = 10


class SnapshotSpec(_Strict):
    iterations: Count | None = None
    win_rate: Share | None = None
    episodes: Count = 100


class SelfPlaySpec(Common):
    policy: str
    opponents: list[str] | str
    pool: Count | Annotated[list[str], Field(min_length=1)] = 4
    sampling: Literal["latest", "fictitious", "prioritised"] = "fictitious"
    snapshot: SnapshotSpec | None = None
    mirror: Share = 0.0
    swap: bool = False


SPECS: dict[str, type[Common]] = {
    "lessons": LessonsSpec,
    "random": RandomSpec,
    "annealing": AnnealingSpec,
    "expanding_box": ExpandingBoxSpec,
    "learning_progress": LearningProgressSpec,
    "learnability": LearnabilitySpec,
    "plr": PLRSpec,
    "alp_gmm": ALPGMMSpec,
    "self_play": SelfPlaySpec,
}
TYPES = {name: TABLES["curricula"][name].target for name in SPECS}  # type -> the class behind it
COMMON = frozenset(Common.model_fields)


def validate(
    curriculum: Mapping[str, Any], *, total_steps: float | None = None, known: tuple[str, ...] = ()
) -> list[Finding]:
    """Return what is wrong with a recipe's section `curriculum`: [(path inside the section, message)].

    Args:
        curriculum: the section as read.
        total_steps: the run's env steps, where the recipe's `stop` says; what `measure: progress` refers to.
        known: types registered by the user; their own options are checked when they are built.
    """
    kind = curriculum.get("type", "lessons")
    if kind in known or isinstance(kind, type) or (kind in TABLES["curricula"] and kind not in SPECS):
        return _fields(Common, {k: v for k, v in curriculum.items() if k in COMMON})
    if not isinstance(kind, str) or kind not in SPECS:
        return [
            (("type",), f"unknown curriculum {kind!r}{did_you_mean(kind, SPECS)}; known: {', '.join(SPECS)}")
        ]
    problems = _fields(SPECS[kind], curriculum)
    if not problems:
        problems = _together(kind, curriculum, total_steps)
    return problems


def _fields(model: type[Common], values: Mapping[str, Any]) -> list[Finding]:
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        return [_explain(model, e) for e in error.errors(include_url=False)]
    return []


def _explain(model: type[BaseModel], error: Any) -> Finding:
    # Pydantic puts the names of union members into the path; they are no keys of the recipe.
    path = tuple(p for p in error["loc"] if isinstance(p, int) or not any(c in str(p) for c in "[(-"))
    path = tuple(p for p in path if p not in ("function-before", "str", "list", "dict"))
    if error["type"] == "extra_forbidden":
        return path, f"unknown key {path[-1]!r}{did_you_mean(path[-1], _keys(model))}"
    if error["type"] == "missing":
        return path, f"{path[-1]!r} is missing"
    if error["type"] == "literal_error":
        words = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return (
            path,
            f"got {error['input']!r}, expected one of {words}{did_you_mean(error['input'], words.split(', '))}",
        )
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return path, message if message.startswith(
        ("got", "expected a")
    ) else f"{message} (got {error['input']!r})"


def _keys(model: type[BaseModel]) -> set[str]:
    nested = (RouteSpec, SuccessSpec, CarrySpec, ConditionSpec, LessonSpec, SnapshotSpec)
    return {name for m in (model, *nested) for name in m.model_fields}


def _together(kind: str, curriculum: Mapping[str, Any], total_steps: float | None) -> list[Finding]:
    """Checks that span several keys."""
    found: list[Finding] = []
    route = curriculum.get("task") or {}
    if route.get("via", "attribute") != "set_task":
        message = f"belongs to via: set_task, not via: {route.get('via', 'attribute')}"
        found += [(("task", key), message) for key in ("method", "key") if key in route]
    if len(curriculum.get("success") or {}) > 1:
        found.append((("success",), "give one of info, return_at_least, terminated"))
    if kind == "lessons":
        found += _lessons(curriculum, curriculum.get("total_steps") or total_steps)
    elif issubclass(SPECS[kind], LevelsSpec):
        if ("tasks" in curriculum) == ("space" in curriculum):
            found.append(((), f"{kind} needs one of `tasks` (a list) and `space` (samplers)"))
        elif "tasks" in curriculum and not curriculum["tasks"]:
            found.append((("tasks",), "the list is empty; a curriculum needs at least one task"))
    elif kind == "learning_progress" and not curriculum["tasks"]:
        found.append((("tasks",), "the list is empty; a curriculum needs at least one task"))
    elif kind == "annealing":
        if set(curriculum["start"]) != set(curriculum["end"]):
            found.append(
                (("end",), f"start has {sorted(curriculum['start'])}, end has {sorted(curriculum['end'])}")
            )
        elif curriculum.get("shape") == "exponential":
            found += [
                ((side, k), f"got {v}, expected a number > 0 for shape: exponential")
                for side in ("start", "end") for k, v in curriculum[side].items() if v <= 0
            ]  # fmt: skip
    elif kind == "self_play":
        rule = curriculum.get("snapshot") or {"iterations": 10}
        if ("iterations" in rule) == ("win_rate" in rule):
            found.append((("snapshot",), "give one of iterations and win_rate"))
    elif kind == "expanding_box":
        found += _boxes(curriculum["start"], curriculum["space"])
    return found


def _lessons(curriculum: Mapping[str, Any], total_steps: float | None) -> list[Finding]:
    from rlkit.curriculum.lessons import Lesson, problems

    found: list[Finding] = [
        (("lessons", *p), m) for p, m in problems([Lesson.parse(x) for x in curriculum["lessons"]])
    ]
    for i, lesson in enumerate(curriculum["lessons"]):
        for key in ("until", "back"):
            if (lesson.get(key) or {}).get("measure") == "progress" and not total_steps:
                message = "progress needs the env steps of the run: set total_steps"
                found.append((("lessons", i, key, "measure"), message))
    return found


def _boxes(start: Mapping[str, Any], space: Mapping[str, Any]) -> list[Finding]:
    if set(start) != set(space):
        return [(("start",), f"start has {sorted(start)}, space has {sorted(space)}")]
    found: list[Finding] = []
    for key in space:
        inner, outer = parse(start[key]), parse(space[key])
        if inner.lo < outer.lo or inner.hi > outer.hi:
            found.append(
                (("start", key), f"[{inner.lo}, {inner.hi}] is not inside the space [{outer.lo}, {outer.hi}]")
            )
    return found


def text(problems: list[Finding]) -> str:
    """Join problems into one message, each with its path as it stands in the section."""
    return "; ".join(f"{dotted(path)}: {message}" if path else message for path, message in problems)


def dotted(path: KeyPath) -> str:
    """`("lessons", 0, "until")` as `lessons[0].until`."""
    parts = [f"[{p}]" if isinstance(p, int) else f".{p}" for p in path]
    return "".join(parts).lstrip(".")
