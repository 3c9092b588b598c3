"""An export against its checkpoint: python benchmarks/export_fidelity.py [--first-action] [--steps 10000] RUN...

For each run, as ONNX and as a bundle: greedy actions that are equal over so many steps of the recipe's environment, the
largest difference of continuous actions and Q-values (relative above 1), how far the two best Q-values of the
checkpoint lie apart where the actions differ, and microseconds of CPU for one action of the ONNX graph in onnxruntime.
The environment follows the checkpoint's actions; the export answers the same observations.

With --first-action instead: seconds from `import rlkit` to the first action in a fresh process, beside `import torch`
alone, median of 7, in turn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import rlkit
from rlkit.play import bundle
from rlkit.play.answers import ALONE
from rlkit.play.evaluation import environment_of, make_checked
from rlkit.play.export import export
from rlkit.play.export.checking import Comparison, compare_actions

COLD = """
import time
began = time.perf_counter(), time.process_time()
import sys
import rlkit
agent = rlkit.load(sys.argv[1])
agent.observation_space.seed(0)
agent.act(agent.observation_space.sample())
print(time.perf_counter() - began[0], time.process_time() - began[1])
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
"""
TORCH = """
import time
began = time.perf_counter(), time.process_time()
import torch
print(time.perf_counter() - began[0], time.process_time() - began[1])
"""


def fidelity(path: str, made: Path, steps: int) -> tuple[Comparison, float]:
    """Return what was compared, and how far the two best Q-values lie apart at most where the choices differ."""
    agent, (other, _) = rlkit.load(path), bundle.read(made)
    env = make_checked(agent, *environment_of(agent, None, None), render=False)
    result, seed, several, apart = Comparison(), 0, agent.policy.multi_agent, 0.0
    sides = (agent.policy, other)
    memories: list[Any] = []
    over = True
    for _ in range(steps):
        if over:
            memories = [side.begin(f"fidelity-{seed}") for side in sides]
            seen: tuple[Any, ...] = env.reset(seed=seed)
            observation, info, rest = seen[0], seen[1], (0.0, False, False)
            seed += 1
        for side, memory in zip(sides, memories, strict=True):
            side.see(memory, observation, info, *rest)
        (ours,), (theirs,) = (side.act([m], q_values=True) for side, m in zip(sides, memories, strict=True))
        for name, action in ours.actions.items():
            before = result.different
            result = compare_actions(other.members[name].action_space, action, theirs.actions[name], result)
            if result.different > before and np.ndim(ours.q_values.get(name)) == 1:
                second, best = np.sort(ours.q_values[name])[-2:]
                apart = max(apart, float(best - second))
            if name in theirs.q_values:
                result = result.with_numbers(ours.q_values[name], theirs.q_values[name], action=False)
        step = env.step(ours.actions if several else ours.actions[ALONE])
        observation, info, rest = step[0], step[4], step[1:4]
        over = any(flags["__all__"] if several else flags for flags in step[2:4])
    env.close()
    return result, apart


def cold(path: str) -> None:
    """Print the seconds to a first action in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        cases = {"import torch alone": [TORCH]}
        for kind, name in {"a bundle": "policy", "an .onnx file": "policy.onnx"}.items():
            cases[kind] = [COLD, str(export(path, Path(folder) / name).path)]
        seconds: dict[str, list[list[float]]] = {kind: [] for kind in cases}
        for _ in range(7):
            for kind, code in cases.items():
                out = subprocess.run(
                    [sys.executable, "-c", *code], capture_output=True, text=True, check=True
                )
                seconds[kind].append([float(x) for x in out.stdout.split()])
    print(f"{rlkit.load(path).manifest.recipe['name']}:\n| | wall clock | CPU |\n|---|---|---|")
    for kind, runs in seconds.items():
        wall, cpu = np.median(runs, axis=0)
        print(f"| {kind} | {wall:.2f} s | {cpu:.2f} s |", flush=True)


def one_action(made: Path) -> float:
    """Microseconds of CPU per call of onnxruntime with one row for every agent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(made), options, providers=["CPUExecutionProvider"])
    kinds = {"float": "float32", "double": "float64"}  # the others are called as numpy calls them
    fed = {}
    for port in session.get_inputs():
        kind = port.type.removeprefix("tensor(").removesuffix(")")
        fed[port.name] = np.zeros((1, *port.shape[1:]), kinds.get(kind, kind))
    session.run(None, fed)
    began = time.process_time()
    for _ in range(5_000):
        session.run(None, fed)
    return (time.process_time() - began) / 5_000 * 1e6


def compare(paths: list[str], steps: int) -> None:
    print(
        "| run | kind | equal actions | largest difference | Q apart | onnxruntime |\n|---|---|---|---|---|---|"
    )
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("policy.onnx", "policy"):
                made = export(path, Path(folder) / name).path
                found, apart = fidelity(path, made, steps)
                share = 1 - found.different / found.actions
                once = f"{one_action(made):.0f} us" if made.suffix else ""
                print(
                    f"| {rlkit.load(path).manifest.recipe['name']} | {made.suffix or 'bundle'} "
                    f"| {share:.4%} of {found.actions:,} | {found.error:.1e} "
                    f"| {f'{apart:.1e}' if found.different else ''} | {once} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--first-action", action="store_true")
    parser.add_argument("--steps", type=int, default=10_000)
    given = parser.parse_args()
    if given.first_action:
        for run in given.runs:
            cold(run)
    else:
        compare(given.runs, given.steps)


if __name__ == "__main__":
    main()
