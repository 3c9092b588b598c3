"""The main recipe over five seeds: greedy return over 100 evaluation episodes of each best checkpoint.

    python benchmarks/main_recipe.py [RECIPE] [--seeds 5] [--bar 475]

Trains the seeds as one Tune run and evaluates on seeds 0-99, which neither training nor the choice of the
checkpoint saw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import rlkit

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", nargs="?", default=str(ROOT / "configs" / "dqn_cartpole.yaml"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bar", type=float, default=475.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rlkit", "train", given.recipe, f"tune.samples={given.seeds}"]
        subprocess.run([*command, "--out", folder, "--quiet"], check=True)
        run = rlkit.open_run(next(Path(folder).glob("*/*")))
        reached = 0
        for trial in run.trials:
            command = [
                sys.executable,
                "-m",
                "rlkit",
                "evaluate",
                str(trial.path),
                "--episodes",
                "100",
                "--json",
            ]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            value = json.loads(out)["episode_return"]
            reached += value["mean"] >= given.bar
            last = trial.last
            print(
                f"seed {trial.recipe.seed}: {value['mean']:.1f}  95 % interval {value['ci95'][0]:.1f} to "
                f"{value['ci95'][1]:.1f}  after {last['env_steps']:.0f} env steps, {last['time_s']:.1f} s",
                flush=True,
            )
        print(f"{reached} of {given.seeds} seeds at least {given.bar:g} (bar: all)")


if __name__ == "__main__":
    main()
