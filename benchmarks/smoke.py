"""Starts every script of benchmarks/ for real, in a short form: it runs to its end, whatever its figures are.

    python benchmarks/smoke.py [NAME…] [--without-peers] [--most 300] [--keep]

Scripts that look at a finished run get one of a moment, trained once. No short form adds to benchmarks/results. Exit
code 1 when a script fails, runs longer than `--most` seconds, or is not in the table. A script whose bar is missed in
so short a form still counts as started: exit code 1 with figures on stdout and no traceback. `--keep` writes the
seconds and the day to smoke.json, which docs/results.md shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE / "smoke.json"
TMP, RUN = "{tmp}", "{run:"  # a folder that is removed; the newest run of a recipe, trained for a moment
ROWS = ("--rows", f"{TMP}/rows.jsonl")
# script -> arguments of its short form
SHORT: dict[str, list[str]] = {
    "before_after": [".", "--runs", "1", "--only", "help,dqn", "--steps", "2000"],  # this tree beside itself
    "callback_cost": [],
    "check_cost": ["configs/dqn_cartpole.yaml", "--runs", "1"],
    "connect_four": [f"{RUN}ppo_connect_four}}", "--games", "4"],
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
    "dqn_cartpole_seeds": ["run", "--seeds", "1", "--variant", "short", "--steps", "1024", *ROWS],
    "dron_bare": ["--steps", "3000"],
    "dron_exact": [],
    "dron_gate": [f"{RUN}dron_styles}}", "--games", "200", "--out", f"{TMP}/gate.png"],
    "dron_table": ["run", "--variants", "moe", "--seeds", "0", "--steps", "2000", "--games", "20", *ROWS],
    "dron_wall_clock": ["--repeats", "1", "--steps", "12000"],
    "env_check_cost": [],
    "evaluate_cost": ["--episodes", "2", "--repeats", "1"],
    "export_fidelity": [f"{RUN}dron_styles}}", "--steps", "200"],
    "illegal_actions": ["--steps", "2500"],
    "joint_runner": ["--seconds", "0.5"],
    "launch_overhead": ["--runs", "1"],
    "maddpg_results": [
        *("run", "spread", "--seeds", "0", "--steps", "2000", "--episodes", "2", "--out", TMP, *ROWS),
    ],
    "maddpg_run": ["--seconds", "2"],
    "maddpg_speed": ["--runs", "1", "--seconds", "3"],
    "maddpg_update": ["--updates", "1", "--runs", "1"],
    "main_recipe": ["configs/dqn_cartpole.yaml", "--seeds", "1", "--bar", "0"],
    "mountaincar": [
        *(
            "configs/mountaincar_counts.yaml",
            "--seeds",
            "1",
            "--steps",
            "2000",
            "--episodes",
            "2",
            "--out",
            TMP,
        ),
    ],
    "offpolicy_command": ["dqn", "--runs", "1", "--steps", "2000"],
    "offpolicy_replay": [],
    "offpolicy_throughput": ["--runs", "1", "--seconds", "1"],
    "offpolicy_update": ["--rounds", "1"],
    "offline_pendulum": [
        *("--algorithms", "MARWIL", "--seeds", "1", "--iterations", "1", "--steps", "600", "--episodes", "4"),
        *("--out", "/dev/null"),
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
    "search_beats": ["cartpole", "--trials", "2", "--steps", "600", "--seeds", "1", "--out", "/dev/null"],
    "seed_streams": [],
    "soak": ["--algorithms", "DQN", "--iterations", "8"],
    "team_results": ["run", "--seeds", "0", "--recipes", "mappo_spread", "--steps", "1000", *ROWS],
    "team_throughput": ["--runs", "1", "--seconds", "1", "--peers"],
    "with_without": ["configs/ppo_cartpole.yaml", "stop.env_steps=1500", "--seeds", "0", "--out", TMP],
    "zoo": [
        *(
            "run",
            "ppo_cartpole",
            "stop.env_steps=1000",
            "--variant",
            "short",
            "--seeds",
            "0",
            "--episodes",
            "2",
        ),
        *ROWS,
    ],
}
# further forms of a script, in the same folder
AGAIN: dict[str, list[list[str]]] = {
    "dqn_cartpole_seeds": [["report", *ROWS]],
    "scale": [["runners", "--runners", "1", "--seconds", "1"], ["queue", "--trials", "2", "--seconds", "20"]],
    "search_beats": [
        ["pendulum", "--trials", "2", "--steps", "512", "--seeds", "1", "--out", "/dev/null"],
    ],
    "team_results": [["show", *ROWS]],
    "zoo": [["show", "ppo_cartpole"]],
}
# what a run of a moment is trained with
MOMENT = ("stop={iterations: 1}", "evaluation=null", "checkpoint={every: 1}")
# not started by themselves
OTHERS = {
    "dron_games": "a module",
    "migrate_public": "needs a clone of Ray; tests/test_migrate.py runs it on files of its own",
    "peer_env": "a module",
    "processes": "a module",
    "smoke": "this script",
    "soccer_pool": "a module",
}
PEERS = {
    "maddpg_speed", "team_throughput", "offpolicy_throughput", "onpolicy_throughput", "onpolicy_command",
    "offpolicy_command",
}  # fmt: skip


def trained(recipe: str, runs: Path, most: float) -> str:
    """Return the run of a recipe in a folder, trained for a moment on first use."""
    if not (runs / recipe).exists():
        command = [
            sys.executable,
            "-m",
            "rlkit",
            "train",
            f"configs/{recipe}.yaml",
            *MOMENT,
            "--out",
            str(runs),
        ]
        subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True, timeout=most)
    return str(runs / recipe)


def run(name: str, most: float, runs: Path) -> tuple[bool, str]:
    """Start one script in each of its forms; return whether all came to their end, and what to print."""
    bars, begin = "", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rlkit-bench-") as folder:
        for form in [SHORT[name], *AGAIN.get(name, [])]:
            try:
                words = [word.replace(TMP, folder) for word in form]
                words = [
                    trained(word.removeprefix(RUN)[:-1], runs, most) if word.startswith(RUN) else word
                    for word in words
                ]
                left = max(1.0, most - (time.monotonic() - begin))
                done = subprocess.run(
                    [sys.executable, str(HERE / f"{name}.py"), *words],
                    cwd=HERE.parent, capture_output=True, text=True, timeout=left, errors="replace",
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return False, f"longer than {most:.0f} s"
            except subprocess.CalledProcessError as error:
                return False, f"its run could not be trained: {error.stderr.strip()[-200:]}"
            if done.returncode == 1 and done.stdout.strip() and "Traceback" not in done.stderr:
                bars = ", a bar is missed"
            elif done.returncode:
                last = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()[-1]
                return False, f"exit code {done.returncode}: {last[:200]}"
    return True, f"{time.monotonic() - begin:.0f} s{bars}"


def keep(name: str, text: str) -> None:
    """Remember how long a script took, and that it came to its end."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[name] = {"took": text, "date": time.strftime("%Y-%m-%d")}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept))
    KEPT.write_text(f"{{\n{lines}\n}}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--most", type=float, default=300.0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    scripts = {path.stem for path in HERE.glob("*.py")}
    missing = sorted(scripts - set(SHORT) - set(OTHERS))
    failed = [f"{name}: in no line of benchmarks/smoke.py" for name in missing]
    if unknown := [name for name in options.names if name not in SHORT]:
        parser.error(f"no short form of {', '.join(unknown)}; there are {', '.join(SHORT)}")
    with tempfile.TemporaryDirectory(prefix="rlkit-runs-") as folder:
        for name in options.names or SHORT:
            if options.without_peers and name in PEERS:
                continue
            good, text = run(name, options.most, Path(folder))
            print(f"{'ok' if good else 'FAILED':6} {name:24} {text}", flush=True)
            if good and options.keep:
                keep(name, text)
            if not good:
                failed.append(f"{name}: {text}")
    for name, why in OTHERS.items():
        print(f"       {name:24} not started: {why}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
