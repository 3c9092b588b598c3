"""Wall-clock of the whole command, process start to a solved task, against Stable-Baselines3 on the same cores.

    python benchmarks/offpolicy_command.py dqn [--runs 5]      # CartPole-v1: greedy 475 over 100 episodes, one seed
    python benchmarks/offpolicy_command.py seeds [--runs 3]    # four seeds: one Tune run against four SB3 runs
    python benchmarks/offpolicy_command.py sac [--runs 5]      # Pendulum-v1: mean return -200 over 20 episodes

Ours is `rlkit train configs/dqn_cartpole.yaml` (or sac_pendulum.yaml); theirs is peers/sb3_dqn.py (or
sb3_sac.py) with rl-zoo's hyper-parameters. Run i uses seed i. One torch thread per process; Ray's workers at
niceness 0. SB3's four seeds run two at a time. What ours found is checked afterwards, outside the clock, by
`rlkit evaluate` on fresh episodes. `--steps N` ends both sides after so many env steps, solved or not.

Bars: dqn at most 1.0 x, seeds at most 0.8 x, sac at most 1.0 x (medians).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from peer_env import ROOT, SB3, python_of
from processes import measure

ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
RLKIT = [sys.executable, "-m", "rlkit"]
TASKS: dict[str, dict[str, Any]] = {
    "dqn": {"recipe": "dqn_cartpole", "peer": "sb3_dqn.py", "bar": 1.0, "episodes": 100, "solved": 475.0},
    "seeds": {"recipe": "dqn_cartpole", "peer": "sb3_dqn.py", "bar": 0.8, "episodes": 100, "solved": 475.0},
    "sac": {"recipe": "sac_pendulum", "peer": "sb3_sac.py", "bar": 1.0, "episodes": 20, "solved": -200.0},
}


def ours(
    task: dict[str, Any], seed: int, samples: int, folder: str, steps: int | None
) -> tuple[float, list[dict[str, Any]]]:
    """Run the recipe; return the wall-clock seconds and what each trial reached."""
    out = Path(folder, f"{task['recipe']}-{seed}-{samples}")
    command = [
        *RLKIT,
        "train",
        str(ROOT / "configs" / f"{task['recipe']}.yaml"),
        f"seed={seed}",
        "--quiet",
        "--json",
    ]
    if steps:
        command.append(f"stop.env_steps={steps}")
    if samples > 1:
        command += [f"tune.samples={samples}", "tune.concurrent=2"]
    cost = measure([*command, "--out", str(out)], ENV)
    end = json.loads(cost.out.strip().splitlines()[-1])
    run = Path(end["run"])
    trials = sorted(p.parent for p in run.glob("*/result.json")) or [run]
    reached = []
    for trial in trials:
        verdict = subprocess.run(
            [*RLKIT, "evaluate", str(trial), "--episodes", str(task["episodes"]), "--seed", "12345", "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = json.loads(verdict.stdout.strip().splitlines()[-1])
        last = json.loads((trial / "result.json").read_text().strip().splitlines()[-1])
        steps = last["num_env_steps_sampled_lifetime"]
        reached.append({"steps": steps, "return": found["episode_return"]["mean"]})
    return cost.wall, reached


def theirs(task: dict[str, Any], seeds: list[int], steps: int | None) -> tuple[float, list[dict[str, Any]]]:
    """Run the peer's script for each seed, two at a time; return the wall-clock seconds and what each reached."""
    python = python_of("sb3", SB3)
    script = str(Path(__file__).parent / "peers" / task["peer"])
    short = ["--max-steps", str(steps), "--eval-every", str(steps)] if steps else []

    def one(seed: int) -> dict[str, Any]:
        return json.loads(
            measure([python, script, "--seed", str(seed), *short], ENV).out.strip().splitlines()[-1]
        )

    begin = time.monotonic()
    with ThreadPoolExecutor(min(2, len(seeds))) as pool:
        reached = list(pool.map(one, seeds))
    return time.monotonic() - begin, reached


def show(name: str, seed: int, wall: float, reached: list[dict[str, Any]], solved: float) -> None:
    ends = ", ".join(f"{r['return']:.0f} at {int(r['steps'])} steps" for r in reached)
    failed = sum(r["return"] < solved for r in reached)
    print(
        f"{name:5} seed {seed}: {wall:6.1f} s   {ends}{f'   ({failed} below {solved:.0f})' if failed else ''}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    task = TASKS[options.task]
    samples = 4 if options.task == "seeds" else 1
    python_of("sb3", SB3)
    walls: dict[str, list[float]] = {"rlkit": [], "SB3": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.runs):
            seed = i * samples
            wall, reached = ours(task, seed, samples, folder, options.steps)
            show("rlkit", seed, wall, reached, task["solved"])
            walls["rlkit"].append(wall)
            wall, reached = theirs(task, list(range(seed, seed + samples)), options.steps)
            show("SB3", seed, wall, reached, task["solved"])
            walls["SB3"].append(wall)
    medians = {name: statistics.median(values) for name, values in walls.items()}
    ratio = medians["rlkit"] / medians["SB3"]
    verdict = "PASS" if ratio <= task["bar"] else "FAIL"
    print(f"median: rlkit {medians['rlkit']:.1f} s, SB3 {medians['SB3']:.1f} s")
    print(f"rlkit / SB3: {ratio:.2f}   (bar: at most {task['bar']}) {verdict}")


if __name__ == "__main__":
    main()
