"""The house of docs/architecture.md, held: floors without an arrow upward, no import circle, few rooms.

Every import counts: at the top of a module, inside a function, under TYPE_CHECKING.
"""

from pathlib import Path

import grimp
import pytest

PACKAGE = Path(__file__).parents[1] / "rlkit"

# From the top: a room may import rooms of lower floors and itself, not its neighbours on the same floor.
KIT = [
    {"__main__"},
    {"cli"},
    {"launch"},
    {"report"},
    {"play"},
    {"runs"},
    {"recipe"},
]
PARTS = [
    {"algos"},
    {"curriculum", "exploration"},
    {"callbacks", "envs", "models", "replay"},
]
ROOT = [
    {"metrics", "registry", "roster", "state"},
    {"rllib"},
    {"files", "seeds"},
    {"errors"},
]
FLOORS = [*KIT, *PARTS, *ROOT]
MOST_ROOMS = 22


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("rlkit", exclude_type_checking_imports=False, cache_dir=None)


def rooms() -> set[str]:
    """Files and folders at the top of the package; `__init__.py` is the house itself."""
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_every_room_has_a_floor() -> None:
    assert set().union(*FLOORS) == rooms()


def test_there_are_few_rooms() -> None:
    assert len(rooms()) <= MOST_ROOMS, sorted(rooms())


def test_no_arrow_goes_up(graph: grimp.ImportGraph) -> None:
    floor = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    upward = []
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            above, below = (name.split(".")[1] if "." in name else None for name in (importer, imported))
            if above and below and above != below and floor[above] >= floor[below]:
                upward.append(f"{importer} -> {imported}")
    assert not upward, upward


def test_no_import_goes_round_in_a_circle(graph: grimp.ImportGraph) -> None:
    circles = [
        f"{importer} -> {imported} -> … -> {importer}"
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if graph.chain_exists(importer=imported, imported=importer)
    ]
    assert not circles, circles


def test_a_part_can_be_imported_without_the_kit(graph: grimp.ImportGraph) -> None:
    kit = set().union(*KIT)
    for part in sorted(set().union(*PARTS, *ROOT)):
        reached = graph.find_upstream_modules(f"rlkit.{part}", as_package=True)
        assert not {name for name in reached if name.split(".")[1:2] and name.split(".")[1] in kit}, part
