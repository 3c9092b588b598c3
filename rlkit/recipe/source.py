"""A recipe file -> text, and the words for what YAML's own parser rejects."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from rlkit.recipe.problems import Mark, Report, Unusable
from rlkit.recipe.shipped import shipped
from rlkit.recipe.tree import Node, compose

MAX_BYTES = 256 * 1024
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_NO_SPACE = re.compile(r"""\s*(?:- )?([A-Za-z_][\w./*-]*):([^\s:/].*)""")


def read_text(path: Path, report: Report) -> str:
    """Return the text of a recipe file.

    Raises:
        Unusable: it cannot be read as text; the report has the problem.
    """
    mark = Mark(report.file)

    def stop(message: str, fix: str, got: str = "", place: Mark = mark) -> Unusable:
        report.at(place, (), message, fix, got=got)
        return Unusable()

    try:
        if path.is_dir():
            raise stop("this is a directory", f"name a recipe in it{_choices(path)}")
        if not path.exists():
            raise stop(
                "no such recipe", f"{_similar(path)}`rlkit list recipes` shows those that come with rlkit"
            )
        size = path.stat().st_size if path.is_file() else 0
        if size > MAX_BYTES:
            raise stop("a recipe is at most 256 kB", "is this the right file?", got=f"{size} bytes")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot be read ({error.strerror or error})"
        raise stop(message, "check the path and its permissions") from None
    except ValueError:  # a NUL byte in the path
        raise stop("this is not a path", "name a recipe file") from None
    if len(data) > MAX_BYTES:
        raise stop("a recipe is at most 256 kB", "is this the right file?")
    if b"\x00" in data:
        offset = data.index(b"\x00")
        place = Mark(report.file, data.count(b"\n", 0, offset) + 1, 1)
        raise stop(f"NUL byte at byte {offset}", "save the file as UTF-8 text", place=place)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _mark_at(report.file, data.decode("latin-1"), error.start)
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start}"
        raise stop(message, "save the file as UTF-8", place=place) from None
    if found := _CONTROL.search(text):
        place = _mark_at(report.file, text, found.start())
        raise stop(f"control character U+{ord(found[0]):04X}", "remove it", place=place)
    return text


def parse(text: str, report: Report) -> Node:
    """Return the node tree of a recipe's text.

    Raises:
        Unusable: it is empty or not YAML; the report has the problem.
    """
    try:
        root = compose(text, report.file, report)
    except yaml.MarkedYAMLError as error:
        _syntax(error, text, report)
        raise Unusable from None
    except (yaml.YAMLError, RecursionError, UnicodeError, ValueError) as error:
        report.at(Mark(report.file), (), f"not YAML: {error}", "see docs/recipe.md for the form of a recipe")
        raise Unusable from None
    if root is None:
        what = "holds only comments" if text.strip() else "is empty"
        report.at(Mark(report.file), (), f"the recipe {what}", "start with `algorithm:`, `env:` and `stop:`")
        raise Unusable
    return root


def _syntax(error: yaml.MarkedYAMLError, text: str, report: Report) -> None:
    """Report a syntax error with its source line, a caret, and the usual cause."""
    problem = str(error.problem or error.context or "syntax error")
    opened = any(phrase in problem for phrase in ("',' or", "end of stream", "expected ':'"))
    at = (error.context_mark if opened else None) or error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    number = min(at.line if at else 0, len(lines) - 1)
    column = at.column if at else 0
    message, fix = _reason(problem, lines[number])
    for index in dict.fromkeys((number, _before(lines, number))):
        if "\t" in lines[index][: len(lines[index]) - len(lines[index].lstrip())]:
            number, column = index, lines[index].index("\t")
            message, fix = "a tab in the indentation", "indent with spaces"
            break
    else:
        start = error.context_mark.line if error.context_mark else number
        for index in dict.fromkeys((number, _before(lines, number), min(start, len(lines) - 1))):
            found = _NO_SPACE.fullmatch(lines[index])
            if found and ("':'" in problem or "mapping values" in problem):
                number, column = index, found.start(2)
                message, fix = "a colon without a space after it", f"write `{found[1]}: {found[2].strip()}`"
                break
    line = lines[number][:200]
    column = min(column, len(line))
    excerpt = f"    {line}\n    {' ' * column}^"
    report.at(Mark(report.file, number + 1, column + 1), (), message, fix, excerpt=excerpt)


_REASONS: tuple[tuple[str, str, str], ...] = (
    ("mapping values are not allowed", "a second colon, or an indentation that does not fit",
     "quote a value that holds ': ', or align the key"),
    ("cannot start any token", "a value cannot start with this character", "quote the value"),
    ("expected ',' or ']'", "the list [ … ] that begins here is not closed", "add ] or a comma"),
    ("did not find expected ',' or ']'", "the list [ … ] that begins here is not closed", "add ] or a comma"),
    ("expected ',' or '}'", "the mapping { … } that begins here is not closed", "add } or a comma"),
    ("did not find expected ',' or '}'", "the mapping { … } that begins here is not closed", "add } or a comma"),
    ("unexpected end of stream", "the file ends inside the quotes that begin here", "close the quotes"),
    ("could not find expected ':'", "a line without `key: value`", "write `key: value`"),
    ("expected <block end>", "the indentation does not fit the lines above", "align keys of the same level"),
    ("did not find expected key", "the indentation does not fit the lines above", "align keys of the same level"),
    ("did not find expected '-'", "the indentation does not fit the list above", "align the dashes of a list"),
    ("block sequence entries are not allowed", "a list item cannot stand here", "put the dash on a line of its own"),
    ("did not find expected alphabetic", "an anchor or alias needs a name", "quote the value"),
    ("escape", "an unknown escape in double quotes", "use single quotes, or double the backslash"),
    ("tag", "a tag that cannot be read", "quote the value, or remove the tag"),
)  # fmt: skip


def _reason(problem: str, line: str) -> tuple[str, str]:
    if line.lstrip().startswith(":"):
        return "a colon without a key before it", "write a word before the colon"
    for phrase, message, fix in _REASONS:
        if phrase in problem:
            return message, fix
    return f"not YAML: {problem}", "see docs/recipe.md for the form of a recipe"


def _before(lines: list[str], number: int) -> int:
    """Return the index of the last line with content before `number`."""
    above = (i for i in range(number - 1, -1, -1) if lines[i].partition("#")[0].strip())
    return next(above, number)


def _mark_at(file: str, text: str, offset: int) -> Mark:
    return Mark(file, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _recipes(folder: Path) -> list[Path]:
    return sorted(p for pattern in ("*.yaml", "*.yml") for p in folder.glob(pattern))[:200]


def _choices(folder: Path) -> str:
    names = [p.name for p in _recipes(folder)[:5]]
    return f", such as {', '.join(names)}" if names else ""


def _similar(path: Path) -> str:
    """Return `"did you mean x? "` for the closest shipped name, or recipe beside the path or in configs/."""
    found: dict[str, Any] = {name.lower(): name for name in shipped()}
    for folder in (path.parent, Path("configs")):
        try:
            found |= {p.stem.lower(): p for p in _recipes(folder)}
        except OSError:
            continue
    close = difflib.get_close_matches(path.stem.lower(), found, n=1, cutoff=0.6)
    return f"did you mean {found[close[0]]}? " if close else ""
