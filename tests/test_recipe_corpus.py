"""Every file of tests/recipes/bad is rejected with the line and the words it expects; good ones round-trip.

A bad recipe says what it expects in leading lines `#! LINE words`, or in a file `NAME.expect` beside it where the
recipe cannot hold a comment. `|` separates alternatives; line 0 means a problem of the whole file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlkit import recipe as recipes
from rlkit.recipe import RecipeError

FOLDER = Path(__file__).parent / "recipes"
BAD = sorted((FOLDER / "bad").glob("*.yaml"))
GOOD = sorted((FOLDER / "good").glob("*.yaml"))


def expectations(path: Path) -> list[tuple[int, list[str]]]:
    """Return [(line, alternative phrases)] of a bad recipe."""
    beside = path.with_suffix(".expect")
    if beside.exists():
        lines = beside.read_text(encoding="utf-8").splitlines()
    else:
        text = path.read_text(encoding="utf-8")
        lines = [line[2:].strip() for line in text.splitlines() if line.startswith("#!")]
    pairs = [line.partition(" ") for line in lines]
    return [(int(number), phrases.split("|")) for number, _, phrases in pairs]


def test_the_corpus_is_large_enough() -> None:
    assert len(BAD) >= 70
    assert {path.name[0] for path in BAD} == set("abcdef")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_recipe_is_rejected_with_line_and_fix(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        recipes.load(path)
    problems = caught.value.problems
    expected = expectations(path)
    assert expected
    for line, phrases in expected:
        here = [str(p) for p in problems if p.line == line]
        assert any(phrase in text for text in here for phrase in phrases), (
            line,
            phrases,
            list(map(str, problems)),
        )
    assert all(p.fix for p in problems), [str(p) for p in problems if not p.fix]
    assert all(str(p).startswith(str(path)) for p in problems)
    assert [p.line for p in problems] == sorted(p.line for p in problems)
    assert recipes.check(path) == problems
    assert os.listdir(tmp_path) == [], "something in the recipe was executed"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_recipe_round_trips(path: Path) -> None:
    assert recipes.check(path) == []
    recipe = recipes.load(path)
    assert recipes.loads(recipes.dump(recipe)) == recipe
    assert recipes.Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipes.from_mapping(recipe.to_dict()) == recipe
