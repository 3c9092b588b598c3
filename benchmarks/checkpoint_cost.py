"""What a checkpoint's manifest costs: hashing while it is written, and verifying before it is read.

    python benchmarks/checkpoint_cost.py [--rows 100000] [--repeats 5]

CPU seconds of a DQN trial with a replay buffer of `--rows` steps, medians. The bar is 5 % of what writing takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from rlkit import registry
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
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    training = {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": given.rows}}
    recipe = {
        "name": "cost", "algorithm": "DQN", "env": "CartPole-v1", "stop": {"iterations": 1},
        "config": {"training": training, "env_runners": {"num_env_runners": 0}},
    }  # fmt: skip
    trial = trainable(registry.resolve("algorithms", "DQN")().algo_class)(recipe)
    fill(trial.replays["default_policy"], given.rows)
    saving, hashing, verifying, size = [], [], [], 0
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "checkpoint_000001")
            folder.mkdir()
            with mock.patch.object(manifest, "write"):
                began = time.process_time()
                trial.save_checkpoint(str(folder))
                saving.append(time.process_time() - began)
            began = time.process_time()
            manifest.write(folder, recipe=recipe, iteration=1, env_steps=given.rows)
            hashing.append(time.process_time() - began)
            began = time.process_time()
            manifest.verify(folder, trust=True)
            verifying.append(time.process_time() - began)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    trial.stop()
    seconds = {name: statistics.median(times) for name, times in
               (("saving", saving), ("manifest", hashing), ("verifying", verifying))}  # fmt: skip
    share = seconds["manifest"] / (seconds["saving"] + seconds["manifest"])
    print(json.dumps({"megabytes": round(size / 1e6, 2), **{k: round(v, 4) for k, v in seconds.items()},
                      "share": round(share, 4), "held": share <= BAR}))  # fmt: skip


if __name__ == "__main__":
    main()
