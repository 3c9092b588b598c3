"""The options of an algorithm as one pydantic model: names, types, defaults, ranges, documentation and rules.

A model of this kind imports neither ray nor torch, so that a recipe can be checked without them. The algorithm's
config takes its attributes from the model, its `training` the signature (`documented_by`), its `validate` the checks.
A validator's message may end in `; fix: what to write`, which a recipe's problem shows as its fix.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic_core import ErrorDetails

from rlkit.errors import did_you_mean

# in options given per policy: all policies that are not named
OTHERS = "*"
BOUNDS = {
    "greater_than": ("above", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"), "less_than_equal": ("at most", "le"),
}  # fmt: skip
Positive = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""
Function = TypeVar("Function", bound=Callable[..., Any])


class Options(BaseModel):
    """Base of such models: nothing unknown, finite numbers, no conversion of types but whole numbers to floats.

    The docstring below a field is its description (`descriptions`).
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Raise ValueError, with what was got and what is expected, for values that cannot work."""
        try:
            cls.model_validate(dict(values))
        except ValidationError as error:
            # of the alternatives of a union, the one that came furthest
            found = max(error.errors(), key=lambda e: (len(e["loc"]), not e["type"].endswith("_type")))
            raise ValueError(explain(found, cls.model_fields)) from None


def descriptions(model: type[Options]) -> dict[str, str]:
    """Return the docstrings below a model's fields; pydantic would read them at each import, for every check."""
    found: dict[str, str] = {}
    for kind in reversed([each for each in model.__mro__ if issubclass(each, Options)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        for field, text in itertools.pairwise(body.body):  # type: ignore[attr-defined]
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = inspect.cleandoc(words)
    return found


def explain(error: ErrorDetails, known: Iterable[str] = ()) -> str:
    """Return a pydantic error as one line in rlkit's words.

    Args:
        error: one of `ValidationError.errors()`.
        known: names to choose from, for an unknown one.
    """
    kind, got, details = error["type"], error["input"], error.get("ctx", {})
    # the alternatives of a union stand in the location by their type
    tag = r"int|float|str|bool|constrained-\w+|.*\[.*\].*"
    name = ".".join(str(part) for part in error["loc"] if not re.fullmatch(tag, str(part)))
    if kind == "value_error":
        text = str(details["error"])
        return f"{name}: {text}" if name else text
    if kind == "extra_forbidden":
        return f"there is no option {name!r}{did_you_mean(name, known)}"
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", details["expected"])
        return f"{name}: got {got!r}{did_you_mean(got, words)}; expected one of {', '.join(words)}"
    if kind in BOUNDS:
        word, key = BOUNDS[kind]
        return f"{name}: got {got!r}, expected {word} {details[key]:g}"
    return f"{name}: got {got!r}, expected {error['msg'].removeprefix('Input should be ')}"


def documented_by(model: type[Options], default: Any) -> Callable[[Function], Function]:
    """Give a method that takes `**kwargs` the signature and the documentation of a model's fields.

    Args:
        model: the options; the method may take further ones.
        default: what an option that is not given reads as in the signature.
    """

    def dress(function: Function) -> Function:
        own, *_, rest = inspect.signature(function).parameters.values()
        fields = model.model_fields
        keywords = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation
            )
            for name, field in fields.items()
        ]
        told = descriptions(model)
        lines = [f"{name}: {' '.join(told[name].split())}" for name in fields]
        body = "\n".join(textwrap.fill(line, 110, subsequent_indent="    ") for line in lines)
        text = f"{inspect.getdoc(function)}\n\nArgs:\n{textwrap.indent(body, '    ')}\n"
        dressed: Any = function
        dressed.__signature__ = inspect.Signature([own, *keywords, rest])
        dressed.__annotations__ = {name: field.annotation for name, field in fields.items()}
        dressed.__doc__ = text
        return function

    return dress


def for_policy(given: Any, policy: str, default: Any) -> Any:
    """Return an option of one policy, from one value for all or `{policy: value}` with `OTHERS`."""
    return given.get(policy, given.get(OTHERS, default)) if isinstance(given, Mapping) else given


def points_in(*, above: float | None = None, least: float | None = None) -> Callable[[Any], Any]:
    """Return a validator for a schedule, [[env step, value], ...]: its form, and the range of its values."""

    def check(points: list[list[float]]) -> list[list[float]]:
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(f"got {points}, expected a number or [[env step, value], ...]")
        lowest = min(value for _, value in points)
        if above is not None and lowest <= above:
            raise ValueError(f"got {lowest}, expected above {above:g}")
        if least is not None and lowest < least:
            raise ValueError(f"got {lowest}, expected at least {least:g}")
        return points

    return check


def number(**bounds: Any) -> Any:
    """Return the type of a finite number; `bounds` are those of pydantic's Field: gt, ge, lt, le."""
    return Annotated[float, Strict(), Field(allow_inf_nan=False, **bounds)]


def whole(**bounds: Any) -> Any:
    """Return the type of a whole number."""
    return Annotated[int, Strict(), Field(**bounds)]


def schedule(**bounds: Any) -> Any:
    """Return the type of RLlib's schedules: [[env step, value], …], linear in between. A learning rate may end at 0."""
    relaxed = {"ge" if name == "gt" else name: bound for name, bound in bounds.items()}
    point: Any = tuple[number(), number(**relaxed)]  # type: ignore[misc]
    point = Annotated[point, Strict(False)]
    points: Any = list[point]
    return Annotated[points, BeforeValidator(_pairs), AfterValidator(_in_order)]


_FIX = "; fix: write [[0, first value], [100000, last value]]"


def _pairs(points: Any) -> Any:
    if isinstance(points, list) and not (
        len(points) > 1 and all(isinstance(point, list | tuple) and len(point) == 2 for point in points)
    ):
        raise ValueError(f"a schedule needs two or more [step, value]{_FIX}")
    return points


def _in_order(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    steps = [step for step, _ in points]
    if steps[0] != 0 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"a schedule begins at step 0, and its steps must increase{_FIX}")
    return points


if TYPE_CHECKING:
    Schedule = list[tuple[float, float]]
else:
    Schedule = schedule(ge=0)
