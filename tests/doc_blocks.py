"""README.md and docs/ as fenced blocks and commands, for the tests of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LINKED = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
BLOCK = re.compile(r"^```(?P<lang>\w*)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<body>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    lang: str
    title: str | None
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> Iterator[Block]:
    text = text_of(page)
    for found in BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 1
        yield Block(page, line, found["lang"], found["title"], found["body"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [
    (block, line.removeprefix("$ ").split("  #")[0].strip())
    for block in BLOCKS
    for line in block.body.splitlines()
    if (block.lang == "sh" and line.strip() and not line.startswith("#")) or line.startswith("$ rlkit")
]
# Commands in the text: `rlkit plot RUN`.
INLINE = [
    (page, " ".join(line.split()))
    for page in PAGES
    for line in re.findall(r"(?<!`)`((?:rlkit|python) [^`]+)`", BLOCK.sub("", text_of(page)))
]
