"""Wall-clock of the whole command, process start to CartPole-v1 solved by PPO, against Stable-Baselines3.

    python benchmarks/onpolicy_command.py [--runs 5]

Ours is `rlkit train configs/ppo_cartpole.yaml`, Ray's start included; theirs is peers/sb3_ppo.py with rl-zoo's
parameters. Solved is a greedy return of 475 over 100 episodes; what ours found is checked afterwards, outside the
clock, on fresh episodes. Run i uses seed i, one torch thread per process. Bar: at most 1.0 x (medians).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from offpolicy_command import ours, show, theirs
from peer_env import SB3, python_of

TASK = {"recipe": "ppo_cartpole", "peer": "sb3_ppo.py", "episodes": 100}
SOLVED, BAR = 475.0, 1.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    python_of("sb3", SB3)
    walls: dict[str, list[float]] = {"rlkit": [], "SB3": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.runs):
            for name, measured in (
                ("rlkit", ours(TASK, seed, 1, folder)),
                ("SB3", theirs(TASK, [seed])),
            ):
                show(name, seed, *measured, SOLVED)
                walls[name].append(measured[0])
    mine, other = (statistics.median(values) for values in walls.values())
    verdict = "PASS" if mine / other <= BAR else "FAIL"
    print(f"median: rlkit {mine:.1f} s, SB3 {other:.1f} s")
    print(f"rlkit / SB3: {mine / other:.2f}   (bar: at most {BAR}) {verdict}")


if __name__ == "__main__":
    main()
