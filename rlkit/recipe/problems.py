"""What is wrong with a recipe, where, and how to put it right. All problems of a recipe are reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlkit.errors import RlkitError

Path = tuple[str | int, ...]
"""Where a value stands in a recipe: `("config", "training", "lr")`, `("callbacks", 0, "name")`."""

MISSING: Any = object()
BROKEN: Any = object()  # stands where a value could not be read, or was left out for its problem
MAX_PROBLEMS = 100


class Unusable(Exception):
    """Nothing more can or need be read; the report holds the reason."""


def dotted(path: Iterable[str | int]) -> str:
    """Return a path as users write it: `config.training.lr`, `callbacks[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: object, limit: int = 60) -> str:
    """Return a value as it would stand in YAML, cut to `limit` characters."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, Mapping):
        text = "a mapping" + (f" with {', '.join(map(str, value))}" if value else " without keys")
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(item, 20) for item in value[:8]) + (", …]" if len(value) > 8 else "]")
    elif isinstance(value, str):
        text = repr(value[: limit + 1])
    else:
        text = str(value)
    return _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Mark:
    """A place: file (or `command line`), line and column, both from 1; line 0 where there is none."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe.

    Attributes:
        file, line, column: the place; line and column count from 1, both 0 where there is no line.
        path: dotted path of the value, empty for the file as a whole.
        message: what is wrong, with what was expected.
        got: what was found, or empty.
        fix: what to write instead.
        excerpt: the source line with a caret below it, for syntax errors.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    fix: str = ""
    got: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        text = f"{Mark(self.file, self.line, self.column)}: {self.path}{': ' * bool(self.path)}"
        what, hint, rest = self.message.partition("; did you mean")
        text += what + (f", got {self.got}" if self.got else "") + hint + rest
        text += f"; fix: {self.fix}" if self.fix else ""
        return text + (f"\n{self.excerpt}" if self.excerpt else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict, for `rlkit check --json`."""
        return asdict(self)


def instead(hint: str, known: Iterable[str]) -> str:
    """Return the fix for an unknown name: the one that is meant, or those there are."""
    if hint:
        return "write " + hint.split("'")[1]
    names = list(known)
    return f"use one of {', '.join(names)}" if names else "remove it"


class RecipeError(RlkitError):
    """A recipe that cannot be used. Holds every problem found, in file order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]):
        self.problems = sorted_problems(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[Problem]]]:
        """Out of a process of Ray's it comes as it was raised, and can be copied."""
        return type(self), (self.problems,)


def sorted_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Return the distinct problems by file, line and column; those without a line come first."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column))


class Report:
    """Collects problems of one recipe and knows where each path of it stands."""

    def __init__(self, file: str):
        self.file = file
        self.problems: list[Problem] = []
        self.broken: set[Path] = set()
        self.keys: dict[Path, Mark] = {}
        self.values: dict[Path, Mark] = {}

    def place(self, path: Path, key: bool = False) -> Mark:
        """Return where a path stands, or the nearest parent of it that stands in the file."""
        table, other = (self.keys, self.values) if key else (self.values, self.keys)
        while path:
            if mark := table.get(path) or other.get(path):
                return mark
            path = path[:-1]
        return self.values.get((), Mark(self.file))

    def add(self, path: Path, message: str, fix: str, *, got: object = MISSING, key: bool = False) -> None:
        """Record a problem at a path; `key` points at the key rather than at its value."""
        self.at(self.place(path, key), path, message, fix, got="" if got is MISSING else shown(got))

    def at(self, mark: Mark, path: Path, message: str, fix: str, *, got: str = "", excerpt: str = "") -> None:
        """Record a problem at a place of the source.

        Raises:
            Unusable: this is one more than anyone reads.
        """
        self.broken.add(path)
        texts = _cut(dotted(path), 200), _cut(message, 600), _cut(fix, 1500), got, excerpt
        self.problems.append(Problem(mark.file, mark.line, mark.column, *texts))
        if len(self.problems) == MAX_PROBLEMS:
            rest = "more problems follow", "put these right first"
            self.problems.append(Problem(self.file, 0, 0, "", *rest))
            raise Unusable

    def has(self, path: Path) -> bool:
        """True if a problem is already recorded at this path or below it."""
        return any(broken[: len(path)] == path for broken in self.broken)

    def sound(self, value: Any, path: Path = ()) -> Any:
        """Return plain data without the values that have a problem, nor the lists that hold one.

        An entry of `callbacks` with a problem becomes an empty mapping, so that the others keep their places.
        """
        if isinstance(value, Mapping):
            found = {key: self._kept(item, (*path, key)) for key, item in value.items()}
            kept = {key: item for key, item in found.items() if item is not BROKEN}
            return BROKEN if value and not kept and len(path) > 1 else kept
        if isinstance(value, list):
            items = [self._kept(item, (*path, index)) for index, item in enumerate(value)]
            if path == ("callbacks",):
                return [{} if item is BROKEN else item for item in items]
            return BROKEN if any(item is BROKEN for item in items) else items
        return value

    def _kept(self, value: Any, path: Path) -> Any:
        return BROKEN if path in self.broken else self.sound(value, path)
