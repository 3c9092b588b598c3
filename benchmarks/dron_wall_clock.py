"""Wall-clock of one 400k-step DRON run on the styles pool, everything included, against the bare PyTorch run.

    python benchmarks/dron_wall_clock.py [--repeats 3] [--core 0] [--steps 400000]

Runs `rlkit train configs/dron_styles.yaml` (Ray start, evaluations, checkpoints) and benchmarks/dron_bare.py
one after the other, each pinned to one core with one torch thread, and prints seconds of wall-clock and of
CPU, and their ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(command: list[str], core: int) -> tuple[float, float]:
    """Run a command on one core; return seconds of wall-clock and of CPU of it and its children."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        ["taskset", "-c", str(core), *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400_000)
    arguments = parser.parse_args()
    bare, ours = [], []
    for seed in range(arguments.repeats):
        script = [
            sys.executable,
            str(ROOT / "benchmarks" / "dron_bare.py"),
            "--model",
            "moe",
            "--pool",
            "styles",
        ]
        bare.append(timed([*script, "--seed", str(seed), "--steps", str(arguments.steps)], arguments.core))
        with tempfile.TemporaryDirectory() as out:
            recipe = str(ROOT / "configs" / "dron_styles.yaml")
            command = [
                sys.executable,
                "-m",
                "rlkit",
                "train",
                recipe,
                f"seed={seed}",
                "--out",
                out,
                "--quiet",
            ]
            every = max(1, min(10, arguments.steps // 20_000))  # iterations; the recipe's 10 in a run of 400k
            short = [
                f"stop.env_steps={arguments.steps}",
                f"evaluation.every={every}",
                f"checkpoint.every={every}",
            ]
            ours.append(timed([*command, *short], arguments.core))
        print(
            f"seed {seed}: bare {bare[-1][0]:.0f} s wall, {bare[-1][1]:.0f} s CPU; "
            f"rlkit train {ours[-1][0]:.0f} s wall; "
            f"ratio {ours[-1][0] / bare[-1][0]:.2f}",
            flush=True,
        )
    walls = [statistics.median(wall for wall, _ in rows) for rows in (bare, ours)]
    print(f"medians: bare {walls[0]:.0f} s, rlkit train {walls[1]:.0f} s, ratio {walls[1] / walls[0]:.2f}")


if __name__ == "__main__":
    main()
