"""A trial on another node than the driver's, with the run in object storage; then that node is lost, another joins.

    python tests/faults/away_trial.py FOLDER

Prints a line of JSON: the iterations in metrics.csv, how many came after the loss, seconds until the next one, the
checkpoints in the store, and the iterations after a `--resume` from a machine that has nothing of the run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import kills
from processes import Training, rows_of, wait_for
from ray.cluster_utils import Cluster


def main(folder: Path) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of one test, on the loopback address
    os.environ["RLKIT_STORES"] = str(folder / "driver")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=3)
    file, uri = folder / "recipe.json", f"file://{folder}/bucket"
    recipe = {**kills.recipe("DQN"), "tune": {"max_failures": 3}, "checkpoint": {"every": 2, "keep": 2}}
    file.write_text(json.dumps(recipe))
    training = Training("train", file, "--out", uri, "--address", cluster.address)
    place = folder / "driver" / "file" / str(folder).lstrip("/") / "bucket" / "killed"
    try:
        begun = wait_for(lambda: any(len(rows_of(t.parent)) >= 5 for t in place.glob("*/metrics.csv")), 240)
        assert begun, training.end(0)[2][-1000:]
        (run,) = place.glob("*")
        before = rows_of(run)[-1]
        cluster.remove_node(node, allow_graceful=False)
        since = time.monotonic()
        cluster.add_node(num_cpus=3)
        reached = wait_for(lambda: training.process.poll() is not None or rows_of(run)[-1] >= before + 3, 240)
        seconds = time.monotonic() - since
        training.send(signal.SIGINT)
        code, _, err = training.end(120)
        assert reached, f"exit {code}: {err[-1000:]}"
        assert code == 130, f"exit {code}: {err[-1000:]}"
        rows = rows_of(run)
        stored = folder / "bucket" / "killed" / run.name
        checkpoints = sorted(path.parent.name for path in stored.glob("trial_*/checkpoint_*/manifest.json"))
        os.environ["RLKIT_STORES"] = str(folder / "another")
        again = Training("train", "--resume", f"{uri}/killed/{run.name}", f"stop.iterations={rows[-1] + 4}",
                         "--address", cluster.address)  # fmt: skip
        code, _, err = again.end(240)
        assert code == 0, f"--resume: exit {code}: {err[-1000:]}"
        resumed = rows_of(stored)
        print(json.dumps({"iterations": rows, "after": rows[-1] - before, "seconds": round(seconds, 1),
                          "checkpoints": checkpoints, "resumed": resumed}))  # fmt: skip
    finally:
        training.end(0)
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
