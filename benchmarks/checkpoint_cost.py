"""What a checkpoint's manifest costs: hashing when it is written, and verifying before it is read.

    python benchmarks/checkpoint_cost.py [--rows 1000 100000 2500000] [--repeats 5]

CPU seconds of a DQN trial with replay buffers of `--rows` steps, medians; the bar is 5 % of a checkpoint's CPU time.
`hashing` is SHA-256 alone over the same files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from rlkit import registry
from rlkit.files import sha256
from rlkit.launch.trial import trainable
from rlkit.replay import Fragment
from rlkit.runs import manifest

BAR = 0.05


def fill(replay: object, rows: int) -> None:
    """Put random steps into a buffer of CartPole's."""
    import numpy as np

    rng = np.random.default_rng(0)
    columns = {"actions": rng.integers(0, 2, rows), "rewards": np.ones(rows, np.float32)}
    flags = {name: np.zeros(rows, bool) for name in ("terminateds", "truncateds")}
    observations = rng.normal(size=(rows + 1, 4)).astype(np.float32)
    replay.add([Fragment("e", 0, rows, {"obs": observations}, {**columns, **flags}, done=False)])  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 2_500_000])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    for rows in given.rows:
        print(json.dumps(measure(rows, given.repeats)), flush=True)


def measure(rows: int, repeats: int) -> dict[str, Any]:
    """Return the size of a checkpoint in megabytes, medians of CPU seconds, and the shares of its manifest."""
    training = {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": rows}}
    recipe = {
        "name": "cost", "algorithm": "DQN", "env": "CartPole-v1", "stop": {"iterations": 1},
        "config": {"training": training, "env_runners": {"num_env_runners": 0}},
    }  # fmt: skip
    trial = trainable(registry.resolve("algorithms", "DQN")().algo_class)(recipe)
    fill(trial.replays["default_policy"], rows)
    took: dict[str, list[float]] = {
        name: [] for name in ("saving", "manifest", "restoring", "verifying", "hashing")
    }
    size = 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "checkpoint_000001")
            folder.mkdir()
            with mock.patch.object(manifest, "write"), clocked(took["saving"]):
                trial.save_checkpoint(str(folder))
            with clocked(took["manifest"]):
                notes = manifest.write(folder, recipe=recipe, iteration=1, env_steps=rows)
            with clocked(took["verifying"]):
                manifest.verify(folder, trust=True)
            with mock.patch.object(manifest, "verify", return_value=notes), clocked(took["restoring"]):
                trial.restore(str(folder))
            files = [path for path in folder.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
            with clocked(took["hashing"]):
                for path in files:
                    sha256(path)
    trial.stop()
    seconds = {name: statistics.median(times) for name, times in took.items()}
    shares = {
        "of_saving": seconds["manifest"] / (seconds["saving"] + seconds["manifest"]),
        "of_restoring": seconds["verifying"] / (seconds["restoring"] + seconds["verifying"]),
    }
    return {
        "megabytes": round(size / 1e6, 2), **{k: round(v, 4) for k, v in (seconds | shares).items()},
        "held": max(shares.values()) <= BAR,
    }  # fmt: skip


@contextmanager
def clocked(into: list[float]) -> Iterator[None]:
    """Add the CPU seconds of the block to a list."""
    began = time.process_time()
    yield
    into.append(time.process_time() - began)


if __name__ == "__main__":
    main()
