"""A cluster of raylets on this machine: the node with the env runners is lost while a run trains, another joins late.

    python tests/faults/lost_node.py FOLDER

Prints a line of JSON: the iterations in metrics.csv, how many came after the loss, and seconds until the next one.
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
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2)
    file = folder / "recipe.json"
    file.write_text(json.dumps({**kills.recipe("PPO"), "tune": {"max_failures": 3}}))
    training = Training("train", file, "--out", folder / "runs", "--address", cluster.address)
    tables = (folder / "runs" / "killed").glob
    try:
        begun = wait_for(lambda: any(len(rows_of(t.parent)) >= 2 for t in tables("*/metrics.csv")), 240)
        assert begun, training.end(0)[2][-1000:]
        (run,) = tables("*")
        before = rows_of(run)[-1]
        cluster.remove_node(node, allow_graceful=False)
        since = time.monotonic()
        cluster.add_node(num_cpus=2)
        reached = wait_for(lambda: training.process.poll() is not None or rows_of(run)[-1] >= before + 3, 240)
        seconds = time.monotonic() - since
        training.send(signal.SIGINT)
        code, _, err = training.end(120)
        assert reached, f"exit {code}: {err[-1000:]}"
        assert code == 130, f"exit {code}: {err[-1000:]}"
        rows = rows_of(run)
        print(json.dumps({"iterations": rows, "after": rows[-1] - before, "seconds": round(seconds, 1)}))
    finally:
        training.end(0)
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
