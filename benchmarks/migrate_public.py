"""What `rlkit migrate` makes of public examples of RLlib: a row for each file of public_examples.json.

    git clone --filter=blob:none --no-checkout https://github.com/ray-project/ray
    python benchmarks/migrate_public.py ray           # prints the table
    python benchmarks/migrate_public.py ray --docs    # and writes it into docs/from-old-rllib.md, with the date

CLONE is a git repository that has the commits, Ray's own or a fork. Files are read out of it with `git show`, into a
folder that is removed. A recipe passes when `rlkit check` finds nothing in the file that `migrate` would write.
Exit code 1 when a file neither passes nor says what stops it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rlkit.errors import UsageError
from rlkit.recipe import check
from rlkit.recipe.migrate import Migrated, migrate

ROOT = Path(__file__).resolve().parents[1]
LIST = json.loads((ROOT / "benchmarks" / "public_examples.json").read_text())
PAGE = ROOT / "docs" / "from-old-rllib.md"
BEGIN, END = "<!-- public examples -->\n", "<!-- end -->\n"
PASSES = "passes"
MOST = 110  # characters of a reason


@dataclass(frozen=True)
class Row:
    """One file: how many experiments it holds, how many of their recipes pass, and what stops the others."""

    commit: str
    date: str
    path: str
    experiments: int
    good: int
    reasons: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return 0 < self.good == self.experiments

    def cells(self) -> str:
        what = PASSES if self.whole else "; ".join(self.reasons)
        name = self.path.removeprefix("rllib/tuned_examples/")
        return f"| {self.date} | `{name}` | {self.good} of {self.experiments} | {what} |"


def short(reason: str) -> str:
    """Return the first words of a reason, fit for a cell of a table."""
    reason = re.sub(r" \(expected a Gymnasium id.*", "", reason.splitlines()[0]).replace("|", "/")
    return reason if len(reason) <= MOST else reason[:MOST].rsplit(" ", 1)[0] + " …"


def stops(found: Migrated, folder: Path) -> list[str]:
    """Return what keeps an experiment's recipe from passing its check; nothing for one that passes."""
    if found.stops:
        return found.stops
    file = folder / "recipe.yaml"
    file.write_text(found.text())
    return [str(problem) for problem in check(file)]


def row(clone: str, commit: str, date: str, path: str) -> Row:
    """Migrate one file of a clone."""
    text = subprocess.run(
        ["git", "-C", clone, "show", f"{commit}:{path}"], capture_output=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / Path(path).name
        file.write_bytes(text)
        try:
            found = migrate(file)
        except UsageError as error:
            return Row(commit, date, path, 0, 0, (short(str(error).replace(str(file), file.name)),))
        left = [stops(one, Path(name)) for one in found]
    reasons = tuple(dict.fromkeys(short(reason) for some in left for reason in some))
    return Row(commit, date, path, len(found), sum(not some for some in left), reasons)


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown, below a sentence that counts them."""
    words = Counter(
        "pass" if row.whole else "algorithm" if "no algorithm" in row.reasons[0] else "other" for row in rows
    )
    head = (
        f"{len(rows)} files, {sum(row.experiments for row in rows)} experiments. Files that pass whole: "
        f"{words['pass']}; with an algorithm that rlkit has not: {words['algorithm']}; that need an environment, data "
        f"or a name first: {words['other']}.\n\n"
        "| Ray of | file below `rllib/tuned_examples` | recipes that pass | what stops the others |\n"
        "|---|---|---|---|\n"
    )
    return head + "".join(f"{row.cells()}\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    rows = [row(given.clone, c["commit"], c["date"], path) for c in LIST["commits"] for path in c["files"]]
    text = table(rows)
    print(text, end="")
    if given.docs:
        page = PAGE.read_text()
        begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        PAGE.write_text(f"{page[:begin]}Measured {time.strftime('%Y-%m-%d')}: {text}{page[end:]}")
    if silent := [row.path for row in rows if not row.whole and not row.reasons]:
        sys.exit(f"nothing says what stops {', '.join(silent)}")


if __name__ == "__main__":
    main()
