"""What `rlkit report` and `rlkit plot` cost: CPU seconds of the whole command, children included, and wall-clock.

    python benchmarks/report_cost.py [--runs 3] [--rows 1000] [--run RUN]

Plot: ten runs of five recipes with 1,000 rows each, two seeds a recipe. Report: the same runs without films; and RUN,
the run of a training, with films of its best checkpoint, where one is given (else `dqn_cartpole` is trained for 3,000
env steps first). Import: what Python needs to import RLlib alone, which films cannot do without. Medians; bars: plot
3 s, report 5 s of wall-clock.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

BARS = {"plot": 3.0, "report": 5.0, "report with films": 5.0}


def command(words: list[str], runs: int) -> tuple[float, float]:
    """Run a command; return the medians of its CPU and wall-clock seconds."""
    cpu, wall = [], []
    for _ in range(runs):
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, *words], check=True, cwd=ROOT, **quiet)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.monotonic() - begin)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(cpu), statistics.median(wall)


def rows(count: int, slope: float) -> list[dict[str, float]]:
    """Return a run's metrics, as DQN reports them."""
    return [
        {
            "iteration": i, "env_steps": 100.0 * i, "updates": 50.0 * i, "time_s": 0.1 * i,
            "steps_per_s": 1000.0 + i % 7, "episode_return": slope * math.sqrt(i) + i % 5,
            "episode_length": float(i % 100),
            "loss/default_policy/total_loss": 1 / i, "loss/default_policy/qf_mean": math.log(i + 1),
            **({"eval/episode_return": slope * math.sqrt(i)} if i % 10 == 0 else {}),
        }
        for i in range(1, count + 1)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--run", help="a run with a checkpoint")
    options = parser.parse_args()
    from run_folders import write_run

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ten = [
            str(write_run(
                folder / f"dqn_{number % 5}" / str(number // 5),
                lambda seed, slope=1.0 + number: rows(options.rows, slope), seeds=(number // 5,),
            ))
            for number in range(10)
        ]  # fmt: skip
        page, run = str(folder / "report.html"), options.run
        if run is None:
            train = ["train", "dqn_cartpole", "stop={env_steps: 3000}", "--out", name, "--quiet"]
            command(["-m", "rlkit", *train], 1)
            run = f"{name}/dqn_cartpole"
        measured = {
            "import of RLlib": command(["-c", "import ray.rllib"], options.runs),
            "plot": command(["-m", "rlkit", "plot", *ten, "-o", str(folder / "a.png")], options.runs),
            "report": command(["-m", "rlkit", "report", *ten, "-o", page, "--no-videos"], options.runs),
            "report with films": command(["-m", "rlkit", "report", run, "-o", page], options.runs),
        }
    missed = []
    for what, (cpu, wall) in measured.items():
        bar = BARS.get(what)
        verdict = "" if bar is None else f"   (bar: {bar:g} s) {'PASS' if wall <= bar else 'FAIL'}"
        missed += [what] if bar is not None and wall > bar else []
        print(f"{what:18} {cpu:5.2f} CPU s   {wall:5.2f} s{verdict}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
