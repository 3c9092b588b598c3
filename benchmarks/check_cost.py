"""CPU seconds of checking a recipe: the whole process, imports included.

    python benchmarks/check_cost.py [RECIPE ...] [--runs 5]

For each recipe: `rlkit check RECIPE` as a command, and `rlkit.recipe.check` alone in a fresh interpreter. The figure
is user plus system time of the process, the median of the runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_PYTHON = "import sys; from rlkit.recipe import check; sys.exit(2 if check(*sys.argv[1:]) else 0)"


def cpu_seconds(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its CPU seconds, wall seconds and exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    code = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall, code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=sorted(map(str, (ROOT / "configs").glob("*.yaml"))))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = [(Path(path).name, path) for path in arguments.recipes]
    print(f"{'recipe':32} {'rlkit check':>24} {'rlkit.recipe.check':>24}   exit")
    for name, path in rows:
        cells = []
        for command in (
            [sys.executable, "-m", "rlkit", "check", path],
            [sys.executable, "-c", IN_PYTHON, path],
        ):
            measured = [cpu_seconds(command) for _ in range(arguments.runs)]
            cpu, wall = (statistics.median(m[i] for m in measured) for i in (0, 1))
            cells.append(f"{cpu:.2f} s CPU, {wall:.2f} s wall")
            code = measured[0][2]
        print(f"{name:32} {cells[0]:>24} {cells[1]:>24}   {code}")


if __name__ == "__main__":
    main()
