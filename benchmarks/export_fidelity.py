"""An export against its checkpoint: python benchmarks/export_fidelity.py RUN...

For each run, as ONNX and as a bundle: greedy actions that are equal over 10,000 steps of the recipe's environment, the
largest difference of continuous actions and Q-values (relative above 1), seconds from `import rlkit` to the first
action of the bundle in a fresh process, and microseconds of one action of the ONNX graph in onnxruntime.
The environment follows the checkpoint's actions; the export answers the same observations.
"""

from __future__ import annotations

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

STEPS = 10_000
COLD = """
import time
began = time.perf_counter(), time.process_time()
import sys
import rlkit
agent = rlkit.load(sys.argv[1])
agent.observation_space.seed(0)
agent.act(agent.observation_space.sample(), info=INFO)
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
print(time.perf_counter() - began[0], time.process_time() - began[1])
"""


def fidelity(path: str, made: Path) -> Comparison:
    agent, (other, _) = rlkit.load(path), bundle.read(made)
    env = make_checked(agent, *environment_of(agent, None, None), render=False)
    result, seed, several = Comparison(), 0, agent.policy.multi_agent
    sides = (agent.policy, other)
    memories: list[Any] = []
    over = True
    for _ in range(STEPS):
        if over:
            memories = [side.begin(f"fidelity-{seed}") for side in sides]
            seen: tuple[Any, ...] = env.reset(seed=seed)
            observation, info, rest = seen[0], seen[1], (0.0, False, False)
            seed += 1
        for side, memory in zip(sides, memories, strict=True):
            side.see(memory, observation, info, *rest)
        (ours,), (theirs,) = (side.act([m], q_values=True) for side, m in zip(sides, memories, strict=True))
        for name, action in ours.actions.items():
            result = compare_actions(other.members[name].action_space, action, theirs.actions[name], result)
            if name in theirs.q_values:
                result = result.with_numbers(ours.q_values[name], theirs.q_values[name], action=False)
        step = env.step(ours.actions if several else ours.actions[ALONE])
        observation, info, rest = step[0], step[4], step[1:4]
        over = any(flags["__all__"] if several else flags for flags in step[2:4])
    env.close()
    return result


def cold(made: Path) -> str:
    runs = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", COLD.replace("INFO", "{'opponent_action': 0}"), str(made)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        runs.append([float(x) for x in out.stdout.split()])
    wall, cpu = np.min(runs, axis=0)
    return f"{wall:.2f} s ({cpu:.2f} s CPU)"


def agents_of(path: str) -> list[str]:
    policy = rlkit.load(path).policy
    return list(policy.observation_space.spaces) if policy.multi_agent else [ALONE]


def one_action(made: Path) -> float:
    """Microseconds of CPU per call of onnxruntime with one row for every agent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(made), options, providers=["CPUExecutionProvider"])
    kinds = {
        "tensor(float)": np.float32,
        "tensor(int64)": np.int64,
        "tensor(bool)": bool,
        "tensor(double)": np.float64,
    }
    fed = {port.name: np.zeros((1, *port.shape[1:]), kinds[port.type]) for port in session.get_inputs()}
    session.run(None, fed)
    began = time.process_time()
    for _ in range(5_000):
        session.run(None, fed)
    return (time.process_time() - began) / 5_000 * 1e6


def main(paths: list[str]) -> None:
    print(
        "| run | kind | equal actions | largest difference | first action | onnxruntime |\n|---|---|---|---|---|---|"
    )
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("policy.onnx", "policy"):
                made = export(path, Path(folder) / name).path
                found = fidelity(path, made)
                share = 1 - found.different / found.actions
                once = f"{one_action(made):.0f} us" if made.suffix else ""
                first = "" if made.suffix or len(agents_of(path)) > 1 else cold(made)
                print(
                    f"| {Path(path).name} | {made.suffix or 'bundle'} | {share:.4%} of {found.actions:,} "
                    f"| {found.error:.1e} | {first} | {once} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
