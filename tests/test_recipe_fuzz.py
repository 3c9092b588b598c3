"""5,000 random mutations of valid recipes end in a recipe or in a RecipeError, never in anything else."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlkit import recipe as recipes
from rlkit.recipe import RecipeError, spaces

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from fuzz_recipes import fuzzer

GOOD = sorted((Path(__file__).parent / "recipes" / "good").glob("*.yaml"))
CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
MUTATIONS = 5_000
PIECES = [
    b"\x00", b"\xff", b"\xe9", b"\t", b"\r", b":", b": ", b"- ", b"[", b"]", b"{", b"}", b"&a ", b"*a",
    b"!grid ", b"!!python/name:os.system ",
    b"'", b'"', b"#", b"|\n", b">\n", b"? ", b"<<: ", b"\n---\n", b"\n...\n", b"%YAML 9.9\n", b"!<x>", b"~",
    b"null", b"true", b"no", b".nan",
    b"1e999", b"-0", b"010", b"1:30", b"2026-01-01", "é".encode(), "\U0001f600".encode(), b"\xc2\x85",
    b"\xe2\x80\xa8", b"{eval: '1'}",
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2**40, 1.5, -1e300, "", "x", "1e-3", "no", "a.b.C", "eval/episode_return", [],
    {}, [[]], {"": 1},
    [1, "a", None], {"a": {"b": []}}, {"eval": "1"}, {"grid_search": [1, 2]}, {"grid_search": 5}, {"type": 3},
    {"name": []}, "shared",
    [{"name": None}], {"x": {"agents": "y"}}, {"x": {"agents": [3]}}, [[0, 1], [5, "x"]], "pettingzoo/",
    "vmas/", "a:b", "../x", "\u0000",
]  # fmt: skip


def by_bytes(text: str, rng: random.Random) -> bytes:
    """Insert, delete, replace or repeat a few bytes."""
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(PIECES)
        elif kind == 1:
            del data[at : at + rng.randint(1, 12)]
        elif kind == 2:
            data[at : at + 1] = bytes([rng.randrange(256)])
        else:
            data[at:at] = data[at : at + rng.randint(1, 40)] * rng.randint(1, 3)
    return bytes(data)


def by_lines(text: str, rng: random.Random) -> bytes:
    """Move, repeat, drop or indent lines."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        kind = rng.randrange(4)
        if kind == 0:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines[at] = " " * rng.randint(1, 5) + lines[at]
        else:
            lines[at] = lines[at].strip()
    return "\n".join(lines).encode()


class _Plain(yaml.SafeLoader):
    """Reads a valid recipe as data, search spaces as lists."""


for _kind in spaces.KINDS:
    _Plain.add_constructor(f"!{_kind}", lambda loader, node: loader.construct_sequence(node, deep=True))


def by_nodes(text: str, rng: random.Random) -> bytes:
    """Replace, drop, rename or move a value of the parsed recipe."""
    data = yaml.load(text, Loader=_Plain)
    for _ in range(rng.randint(1, 4)):
        parent = _somewhere(data, rng)
        if isinstance(parent, list):
            at = rng.randrange(len(parent) + 1)
            parent[at : at + rng.randint(0, 1)] = [rng.choice(VALUES)]
        elif parent:
            key = rng.choice(list(parent))
            kind = rng.randrange(4)
            if kind == 0:
                parent[key] = rng.choice(VALUES)
            elif kind == 1:
                del parent[key]
            elif kind == 2:
                letters = list(str(key))
                letters[rng.randrange(len(letters) or 1) : 1] = rng.choice("abz_ .0")
                parent["".join(letters)] = parent.pop(key)
            else:
                _somewhere(data, rng, only=dict)[key] = parent[key]
    try:
        return yaml.safe_dump(data, sort_keys=False).encode()
    except (RecursionError, yaml.YAMLError):
        return text.encode()


def _somewhere(data: object, rng: random.Random, only: type | None = None) -> object:
    """Return a random mapping or list inside the data."""
    found: list[object] = []
    waiting, seen = [data], set()
    while waiting:
        here = waiting.pop()
        if id(here) in seen or not isinstance(here, dict | list):
            continue
        seen.add(id(here))
        if only is None or isinstance(here, only):
            found.append(here)
        waiting.extend(here.values() if isinstance(here, dict) else here)
    return rng.choice(found)


@pytest.mark.parametrize("mutate", [by_bytes, by_lines, by_nodes])
def test_mutations_never_raise_anything_else(
    mutate: Callable[[str, random.Random], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [path.read_text(encoding="utf-8") for path in (*GOOD, *CONFIGS)]
    rng = random.Random(f"rlkit {mutate.__name__}")
    path = tmp_path / "mutant.yaml"
    rejected = 0
    count = MUTATIONS // 3 + 1
    for number in range(count):
        data = mutate(rng.choice(texts), rng)
        path.write_bytes(data)
        try:
            recipe = recipes.load(path)
        except RecipeError as error:
            rejected += 1
            if not error.problems or not all(p.fix for p in error.problems):
                pytest.fail(f"{data!r}: a problem without a fix in {error}")
        except Exception as error:
            raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}\n{data!r}") from error
        else:
            assert recipes.loads(recipes.dump(recipe)) == recipe, data
    assert os.listdir(tmp_path) == ["mutant.yaml"], "a mutation executed something"
    assert rejected > count // 4


def test_mutants_that_reach_new_lines_never_raise_anything_else(tmp_path: Path) -> None:
    own = fuzzer(seed=0, file=tmp_path / "mutant.yaml")
    own.parents = own.parents[:: len(own.parents) // 12]
    own.seen_by_parents()
    known, parents = len(own.reached), len(own.parents)
    for _ in range(150):
        own.step()
    assert not own.failures, own.failures[0]
    assert len(own.reached) > known
    assert len(own.parents) > parents, "a mutant that reached a new line was not kept"
    assert own.refused > 30
