"""Nothing is torn by wrapping: ruff (D205, D415) sees to the summaries of docstrings, this to the rest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("rlkit", "tests", "benchmarks", "scripts", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
DIRECTIVE = r"fmt:|noqa|type:"


def docstrings(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the lines of each docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node, clean=True)
            if found:
                yield node.body[0].lineno, found.splitlines()


def spilled_items(text: str) -> list[str]:
    """Return docstring lines of one or two words in the middle of a paragraph that runs over them."""
    found = []
    for line, lines in docstrings(text):
        for before, row, after in zip(lines, lines[1:], lines[2:], strict=False):
            short = 0 < len(row.split()) <= 2 and re.fullmatch(r"[\w ,]+", row.strip())
            if short and len(before) > 80 and after.strip() and "  " not in before.strip():
                found.append(f"{line}: {before.strip()} / {row.strip()}")
    return found


def torn_statements(text: str) -> list[str]:
    """Return statements the formatter broke over lines for the sake of a comment that stood behind them."""
    lines = text.splitlines()
    found = []
    for number, (first, second, third) in enumerate(zip(lines, lines[1:], lines[2:], strict=False), 1):
        if re.match(rf"\s*[)\]}}][^#\"']*  # (?!{DIRECTIVE})", third):
            found.append(f"{number + 2}: {third.strip()}")
        wrapped = re.search(r"= \($", first) and re.fullmatch(r"\s*\)", third)
        if wrapped and re.search(rf"  # (?!{DIRECTIVE})", second):
            found.append(f"{number}: {second.strip()}")
    return found


@pytest.mark.parametrize("find", [spilled_items, torn_statements])
def test_nothing_is_torn(find) -> None:
    found = [f"{path.relative_to(ROOT)}:{what}" for path in FILES for what in find(path.read_text())]
    assert not found, "put the comment on a line of its own above, or word it shorter:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("find", "text"),
    [
        (spilled_items, f'"""Fine.\n\n{"long words " * 8}\nabout a\nstate.\n"""\n'),
        (torn_statements, "SMALL = (\n    32  # elements\n)\n"),
        (torn_statements, "if isinstance(\n    a, b\n):  # as RLlib asks\n    pass\n"),
    ],
)
def test_what_is_torn_is_found(find, text: str) -> None:
    assert find(text)
    assert not find('"""One line."""\n\n# Why.\nSMALL = 32\nx = [\n    1,\n]\n')
