"""MADDPG end to end: env steps per second against XuanCe and AgileRL, growth with agents, time to a training return.

    python benchmarks/maddpg_speed.py [--runs 3] [--seconds 60]    # mpe2 spread, and VMAS spread with 64 copies
    python benchmarks/maddpg_speed.py --growth [--seconds 20]      # 3, 6, 12, 24 agents
    python benchmarks/maddpg_speed.py --until -20 [--runs 3] [--most 600]    # -20 per agent, mean of 100 episodes

Continuous actions, batch 1024, 64x64, one update of all agents per 100 env steps, one torch thread each; the rest is
each library's recipe for this environment, with the same learning rates, tau and gamma. Every contender prints a line
when learning has started and one at the end; between the two, wall-clock and the CPU time of its whole process tree
(Ray's daemons included) are taken. In turn, medians over the runs. Peers are installed into .venvs/ by pip
(peer_env.py).

Bars: at least 2 x the best peer by wall-clock, 1.5 x per CPU second; VMAS at least 10 x by wall-clock; the time to
the return, from process start, at most half the best peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from peer_env import AGILERL, AGILERL_NEEDS, XUANCE, XUANCE_NEEDS, python_of
from processes import tree

HERE = Path(__file__).parent
ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAY_worker_niceness": "0", "WANDB_MODE": "disabled"}
OURS = [sys.executable, str(HERE / "maddpg_run.py")]


@dataclass(frozen=True)
class Run:
    """Between the lines `begin` and `end`: env steps, wall-clock and CPU seconds; the return; time since the start."""

    steps: int
    wall: float
    cpu: float
    per_agent: float
    since_start: float


def commands() -> dict[str, list[str]]:
    """Return what to run for each contender; makes the peers' virtual environments."""
    xuance = python_of("xuance", XUANCE_NEEDS, XUANCE)
    agilerl = python_of("agilerl", AGILERL_NEEDS, AGILERL)
    peers = HERE / "peers"
    return {
        "rlkit, 16 environments": OURS,
        "XuanCe 1.4.4, 1 environment": [xuance, str(peers / "xuance_maddpg.py"), "--envs", "1"],
        "XuanCe 1.4.4, 10 environments": [xuance, str(peers / "xuance_maddpg.py"), "--envs", "10"],
        "AgileRL 2.58": [agilerl, str(peers / "agilerl_maddpg.py")],
    }


def run(command: list[str], *more: object) -> Run:
    """Run a contender and take the time between its two lines.

    Raises:
        RuntimeError: it ended without them; with the last it said on stderr.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, *map(str, more)], env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    marks: dict[str, tuple[float, float, dict]] = {}
    # stderr is read at the end: nothing here writes more than a pipe holds but progress bars, which are dropped
    drain = subprocess.Popen(
        ["tail", "-c", "2000"], stdin=process.stderr, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    for line in process.stdout:
        if line.startswith('{"event"'):
            told = json.loads(line)
            marks[told["event"]] = (time.monotonic(), sum(tree().values()), told)
    process.wait()
    errors = drain.communicate()[0]
    if set(marks) != {"begin", "end"}:
        raise RuntimeError(f"{' '.join(command)} ended early: {errors}")
    (wall, cpu, first), (wall_end, cpu_end, last) = marks["begin"], marks["end"]
    return Run(
        last["steps"] - first["steps"], wall_end - wall, cpu_end - cpu, last["per_agent"], wall_end - started
    )


def compare(runs: int, seconds: float) -> None:
    contenders = commands()
    vmas, remote = "rlkit, VMAS, 64 environments", "rlkit, 16 environments, remote runner"
    vmas_remote = f"{vmas}, remote runner"
    contenders[vmas] = [*OURS, "--vmas", "--envs", "64"]
    contenders[remote] = [*OURS, "--runners", "1"]
    contenders[vmas_remote] = [*contenders[vmas], "--runners", "1"]
    found: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, command in contenders.items():
            found[name].append(run(command, "--seconds", seconds))
    wall = {name: statistics.median(r.steps / r.wall for r in rs) for name, rs in found.items()}
    cpu = {name: statistics.median(r.steps / r.cpu for r in rs) for name, rs in found.items()}
    for name in contenders:
        print(f"{name:43} {wall[name]:8.0f} env steps/s   {cpu[name]:8.0f} per CPU second")
    peers = [name for name in contenders if not name.startswith("rlkit")]
    best, best_cpu = max(wall[p] for p in peers), max(cpu[p] for p in peers)
    ours = next(iter(contenders))
    show("wall-clock, no remote runner", wall[ours] / best, 2.0)
    show("wall-clock, one remote runner", wall[remote] / best, 2.0)
    show("per CPU second", cpu[ours] / best_cpu, 1.5)
    show("VMAS with 64 environments, wall-clock", max(wall[vmas], wall[vmas_remote]) / best, 10.0)


def show(what: str, ratio: float, bar: float) -> None:
    print(f"{what}: {ratio:.2f} x the best peer   (bar: at least {bar}) {'PASS' if ratio >= bar else 'FAIL'}")


def growth(seconds: float) -> None:
    """Cost per env step with more agents, and of which part: the environment alone takes most of it."""
    base = 0.0
    for agents in (3, 6, 12, 24):
        found = run(OURS, "--agents", agents, "--seconds", seconds, "--warmup", 2_400)
        cost = 1e3 * found.cpu / found.steps
        base = base or cost
        alone = 1e3 * environment_cost(agents)
        print(
            f"{agents:3} agents: {cost:8.3f} ms of CPU per env step ({cost / base:5.1f} x of 3), the environment alone "
            f"{alone:8.3f} ms",
            flush=True,
        )


def environment_cost(agents: int, steps: int = 400) -> float:
    """CPU seconds of one step of mpe2's environment as rlkit steps it, by itself, with random actions."""
    from mpe2 import simple_spread_v3

    from rlkit.envs.mpe import world_steps

    env = world_steps(simple_spread_v3.parallel_env(N=agents, continuous_actions=True))
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    begin = time.process_time()
    for _ in range(steps):
        env.step(actions)
        if not env.agents:
            env.reset()
    return (time.process_time() - begin) / steps


def until(target: float, runs: int, most: float) -> None:
    """Print when each contender's running return reached the target; after `most` seconds of learning it has not."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(runs):
        for name, command in commands().items():
            result = run(command, "--seconds", most, "--until", target, "--seed", seed)
            reached = result.per_agent >= target
            values = (result.since_start, result.cpu) if reached else (float("inf"), float("inf"))
            found.setdefault(name, []).append(values)
            print(
                f"{name:32} seed {seed}: {result.since_start:6.0f} s, {result.cpu:6.0f} CPU s of learning, "
                f"{result.steps:7} env steps, {result.per_agent:.1f} per agent{'' if reached else ': not reached'}",
                flush=True,
            )
    for k, what in enumerate(("wall-clock", "CPU seconds of learning")):
        medians = {name: statistics.median(value[k] for value in values) for name, values in found.items()}
        ours, *peers = medians
        best = min(medians[p] for p in peers)
        verdict = "PASS" if medians[ours] <= 0.5 * best else "FAIL"
        bar = f"   (bar: at most half) {verdict}" if k == 0 else ""
        print(f"to {target:g}, {what}: rlkit {medians[ours]:.0f} s, best peer {best:.0f} s{bar}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--until", type=float)
    parser.add_argument("--most", type=float, default=600.0)
    options = parser.parse_args()
    if options.growth:
        growth(options.seconds)
    elif options.until is not None:
        until(options.until, options.runs, options.most)
    else:
        compare(options.runs, options.seconds)


if __name__ == "__main__":
    main()
