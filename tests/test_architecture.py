"""docs/architecture.md is true: every file it names exists, and every room has a place in its picture."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md))`", PAGE))
    assert len(named) > 30
    missing = [name for name in named if not ((ROOT / "rlkit" / name).is_file() or (ROOT / name).is_file())]
    assert not missing, sorted(missing)


def test_every_room_stands_in_the_picture() -> None:
    picture = PAGE.split("```")[1]
    rooms = {f"{path.parent.name}/" for path in (ROOT / "rlkit").glob("*/__init__.py")}
    rooms |= {path.name for path in (ROOT / "rlkit").glob("*.py") if not path.name.startswith("__")}
    absent = [room for room in sorted(rooms) if room not in picture]
    assert not absent, absent
