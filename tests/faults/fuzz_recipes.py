"""A coverage-guided fuzzer of recipes: what it makes ends in a recipe or in a RecipeError, never in anything else.

    python tests/faults/fuzz_recipes.py --minutes 10 --seed 0

A mutant that reaches a line of `rlkit/recipe/` which none before has reached becomes a parent of later ones. Failures
are written to `--out`, one file each, and printed; the exit code is their number, at most 100. The suite runs a short
seeded form (tests/test_recipe_fuzz.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rlkit import recipe as recipes
from rlkit.recipe import RecipeError

SOURCES = str(Path(recipes.__file__).parent)
Mutator = Callable[[str, random.Random], bytes]


@dataclass
class Fuzzer:
    """The parents so far, the lines they reach, and what went wrong."""

    parents: list[str]
    mutators: Sequence[Mutator]
    rng: random.Random
    file: Path
    reached: set[tuple[str, int]] = field(default_factory=set)
    tried: int = 0
    refused: int = 0
    failures: list[tuple[bytes, BaseException]] = field(default_factory=list)

    def seen_by_parents(self) -> None:
        """Note the lines that the parents reach."""
        for parent in self.parents:
            self.run(parent.encode())

    def step(self) -> None:
        """Make one mutant and read it as a recipe."""
        data = self.rng.choice(self.mutators)(self.rng.choice(self.parents), self.rng)
        before = len(self.reached)
        self.run(data)
        if len(self.reached) > before:
            text = data.decode("utf-8", errors="ignore")
            if _is_a_mapping(text):  # the mutators take one apart
                self.parents.append(text)

    def run(self, data: bytes) -> None:
        """Read bytes as a recipe file, with the lines of `rlkit/recipe/` traced."""
        self.file.write_bytes(data)
        self.tried += 1
        sys.settrace(self._trace)
        try:
            recipe = recipes.load(self.file)
            text = recipes.dump(recipe)
            if recipes.loads(text) != recipe:
                raise AssertionError(f"the recipe is another one after it was written and read:\n{text}")
        except RecipeError as error:
            self.refused += 1
            if not error.problems or not all(problem.fix for problem in error.problems):
                self.failures.append((data, error))
        except Exception as error:
            self.failures.append((data, error))
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        self.reached.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace


def _is_a_mapping(text: str) -> bool:
    import test_recipe_fuzz
    import yaml

    try:
        return isinstance(yaml.load(text, Loader=test_recipe_fuzz._Plain), dict)
    except Exception:
        return False


def fuzzer(seed: int, file: Path) -> Fuzzer:
    """Return a fuzzer whose parents are the valid recipes of the tests and the shipped ones."""
    from test_recipe_fuzz import CONFIGS, GOOD, by_bytes, by_lines, by_nodes

    parents = [path.read_text(encoding="utf-8") for path in (*GOOD, *CONFIGS)]
    return Fuzzer(parents, (by_bytes, by_lines, by_nodes, by_nodes), random.Random(f"rlkit {seed}"), file)


def main() -> int:
    """Fuzz for some minutes and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    own = fuzzer(given.seed, given.out / "mutant.yaml")
    own.seen_by_parents()
    end, told = time.monotonic() + 60 * given.minutes, 0
    while time.monotonic() < end:
        own.step()
        for data, error in own.failures[told:]:
            path = given.out / f"failure_{told:03}.yaml"
            path.write_bytes(data)
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            told += 1
    print(
        f"{own.tried} recipes, {own.refused} refused, {len(own.parents)} parents, {len(own.reached)} lines reached, "
        f"{len(own.failures)} failures"
    )
    return min(100, len(own.failures))


if __name__ == "__main__":
    raise SystemExit(main())
