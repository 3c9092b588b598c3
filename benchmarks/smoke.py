"""Starts every script of benchmarks/ for real, in a short form: it runs to its end, whatever its figures are.

    python benchmarks/smoke.py [NAME…] [--without-peers] [--most 300]

Exit code 1 when a script fails, runs longer than `--most` seconds, or is not in the table. A script whose bar
is missed in so short a form still counts as started: exit code 1 with figures on stdout and no traceback.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TMP = "{tmp}"
# script -> arguments of its short form
SHORT: dict[str, list[str]] = {
    "callback_cost": [],
    "check_cost": ["configs/dqn_cartpole.yaml", "--runs", "1"],
    "checkpoint_cost": ["--rows", "1000", "--repeats", "1"],
    "curriculum_cost": ["--rounds", "1"],
    "curriculum_recipes": [
        "configs/curriculum_grid.yaml",
        "--seeds",
        "1",
        "--episodes",
        "2",
        "--steps",
        "2000",
    ],
    "curriculum_sparse": ["--seeds", "1", "--steps", "2000"],
    "curriculum_unlearnable": ["--seeds", "1", "--steps", "2000", "--types", "random"],
    "dqn_cartpole_seeds": ["report"],
    "dron_bare": ["--steps", "3000"],
    "dron_exact": [],
    "dron_wall_clock": ["--repeats", "1", "--steps", "12000"],
    "env_check_cost": [],
    "evaluate_cost": ["--episodes", "2", "--repeats", "1"],
    "illegal_actions": ["--steps", "2500"],
    "joint_runner": ["--seconds", "0.5"],
    "launch_overhead": ["--runs", "1"],
    "maddpg_run": ["--seconds", "2"],
    "maddpg_speed": ["--runs", "1", "--seconds", "3"],
    "maddpg_update": ["--updates", "1", "--runs", "1"],
    "main_recipe": ["configs/dqn_cartpole.yaml", "--seeds", "1", "--bar", "0"],
    "offpolicy_replay": [],
    "offpolicy_throughput": ["--runs", "1", "--seconds", "1"],
    "offpolicy_update": ["--rounds", "1"],
    "offline_pendulum": [
        *("--algorithms", "MARWIL", "--seeds", "1", "--iterations", "1", "--out", "/dev/null"),
    ],
    "onpolicy_command": ["--runs", "1"],
    "onpolicy_growth": ["--normalize", "--runs", "1", "--seconds", "1"],
    "onpolicy_throughput": ["--runs", "1", "--seconds", "1"],
    "opponent_features": ["styles", "--updates", "20"],
    "opponent_modelling": [
        *("run", "--pools", "styles", "matrix_mixed", "--methods", "concat", "--steps", "4000"),
        *("--games", "50", "--out", f"{TMP}/rows.jsonl"),
    ],
    "opponent_pool": ["soccer", "{opponents: styles, width: 5, height: 4}", "--games", "100"],
    "init_from": ["run", "--seeds", "1", "--source-steps", "2000", "--steps", "10000", "--out", "/dev/null"],
    "pbt_cartpole": ["--seeds", "1", "--steps", "1000", "--out", "/dev/null"],
    "random_returns": ["--episodes", "2"],
    "report_cost": ["--runs", "1", "--rows", "100"],
    "sac_critics": ["--rounds", "1"],
    "scale": ["driver", "--runners", "1", "10"],
    "search_cartpole": ["--trials", "2", "--steps", "600", "--seeds", "1", "--out", "/dev/null"],
    "seed_streams": [],
    "soak": ["--algorithms", "DQN", "--iterations", "8"],
    "team_results": ["show"],
    "team_throughput": ["--runs", "1", "--seconds", "1", "--peers"],
    "with_without": ["configs/ppo_cartpole.yaml", "stop.env_steps=1500", "--seeds", "0", "--out", TMP],
}
# not started by themselves: modules, and scripts that need a finished run or hours of training
OTHERS = {
    "before_after": "needs another tree of rlkit",
    "connect_four": "needs a finished run",
    "dron_games": "a module",
    "export_fidelity": "needs a finished run",
    "peer_env": "a module",
    "processes": "a module",
    "smoke": "this script",
    "soccer_pool": "a module",
    "dron_table": "adds a row of 400k env steps to benchmarks/results/dron.jsonl",
    "dron_gate": "needs a run of dron_styles.yaml",
    "maddpg_results": "trains 300k env steps and more for each name",
    "mountaincar": "trains ten runs of 120k env steps",
    "zoo": "trains recipes to their published budgets",
    "offpolicy_command": "trains SAC or DQN to its bar in each library",
}
PEERS = {"maddpg_speed", "team_throughput", "offpolicy_throughput", "onpolicy_throughput", "onpolicy_command"}


def run(name: str, most: float) -> tuple[bool, str]:
    """Start one script; return whether it came to its end, and what to print."""
    with tempfile.TemporaryDirectory(prefix="rlkit-bench-") as folder:
        words = [word.replace(TMP, folder) for word in SHORT[name]]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / f"{name}.py"), *words],
                cwd=HERE.parent, capture_output=True, text=True, timeout=most, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"longer than {most:.0f} s"
    took = f"{time.monotonic() - begin:.0f} s"
    if done.returncode == 0:
        return True, took
    if done.returncode == 1 and done.stdout.strip() and "Traceback" not in done.stderr:
        return True, f"{took}, a bar is missed"
    last = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()[-1]
    return False, f"exit code {done.returncode}: {last[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--most", type=float, default=300.0)
    options = parser.parse_args()
    scripts = {path.stem for path in HERE.glob("*.py")}
    missing = sorted(scripts - set(SHORT) - set(OTHERS))
    failed = [f"{name}: in no line of benchmarks/smoke.py" for name in missing]
    if unknown := [name for name in options.names if name not in SHORT]:
        parser.error(f"no short form of {', '.join(unknown)}; there are {', '.join(SHORT)}")
    for name in options.names or SHORT:
        if options.without_peers and name in PEERS:
            continue
        good, text = run(name, options.most)
        print(f"{'ok' if good else 'FAILED':6} {name:24} {text}", flush=True)
        if not good:
            failed.append(f"{name}: {text}")
    for name, why in OTHERS.items():
        print(f"       {name:24} not started: {why}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
