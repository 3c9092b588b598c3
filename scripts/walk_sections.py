"""Find the arguments of section methods that nothing reads, by watching an algorithm train.

    python scripts/walk_sections.py [ALGORITHM ...]    # rewrites "unread" of rlkit/recipe/without_effect.json

For every algorithm of the registry a small recipe is built as `rlkit train` builds it, with one remote env runner and
without, for one agent and for two, and trained for two iterations with an evaluation and a checkpoint. Every read of an
attribute of its AlgorithmConfig is noted, except by the config itself while it is set, copied, checked or written
down. An argument whose attribute nothing read has no effect, whatever its value.

What this cannot see: code of other processes (a remote learner, an aggregator, a runner for offline evaluation), and
code that waits for an accident. `UNSEEN` names those arguments, each with who reads it. Nor does a read prove an
effect: that is for the tests of each algorithm.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{TESTS}"  # for Ray's workers

import walk_model  # noqa: E402

from rlkit import registry  # noqa: E402
from rlkit.recipe.config_check import refusal  # noqa: E402
from rlkit.recipe.options import is_code  # noqa: E402
from rlkit.recipe.signatures import METHODS, Config  # noqa: E402

# Functions of a config that carry its values about, and read them for nothing else.
CARRIERS = {
    *METHODS, "api_stack", "framework", "validate", "copy", "to_dict", "from_dict", "update_from_dict", "freeze",
    "__init__", "__setattr__", "serialize", "get_state", "items", "keys", "values", "experimental", "resources",
    "__reduce__", "__getstate__", "__deepcopy__", "callbacks", "model_dump",
}  # fmt: skip


# Methods that other checks speak of: recipe/data_check.py, and what a recipe does not call.
ELSEWHERE = {"offline_data", "checkpointing"}
# Who reads what the walk cannot see.
UNSEEN = {
    "training.grad_clip_by": "the learner, where grad_clip is set",
    "training.normalize_values": "the centralised critic of a team",
    "training.train_batch_size": "the config, where train_batch_size_per_learner is null",
    "training.tau": "the update of target networks, after target_network_update_freq",
    "training.burn_in_len": "the replay of modules with a state",
    "training.teams": "the ensembles of MADDPG",
    "training.infer_batch_size": "MADDPG with inferred policies",
    "training.infer_entropy_coeff": "MADDPG with inferred policies",
    "training.lr": "nobody in MADDPG, whose rules refuse it",
    "env_runners.episode_lookback_horizon": "runners of episodes; MADDPG's others have none",
    "learners.num_cpus_per_learner": "the group of remote learners",
    "learners.custom_resources_per_learner": "the group of remote learners",
    "learners.max_requests_in_flight_per_learner": "the group of remote learners",
    "learners.local_gpu_idx": "a learner on a GPU",
    "fault_tolerance.delay_between_env_runner_restarts_s": "the manager of runners, when one failed",
    "fault_tolerance.env_runner_restore_timeout_s": "the algorithm, when a runner failed",
    "fault_tolerance.restart_failed_sub_environments": "a runner whose environment failed",
}


@contextmanager
def watched() -> Iterator[set[str]]:
    """Note every attribute of an AlgorithmConfig that is read for its value."""
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    found: set[str] = set()
    plain = AlgorithmConfig.__getattribute__

    def read(self: Any, name: str) -> Any:
        if name not in found and not name.startswith("__") and _for_its_value(sys._getframe(1)):
            found.add(name)
        return plain(self, name)

    AlgorithmConfig.__getattribute__ = read  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del AlgorithmConfig.__getattribute__


def _for_its_value(frame: Any) -> bool:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    while frame is not None:
        code = frame.f_code
        of_config = isinstance(frame.f_locals.get("self"), AlgorithmConfig)
        if of_config and (code.co_name in CARRIERS or code.co_name.startswith("_validate")):
            return False
        if not of_config and code.co_name not in (
            "<genexpr>",
            "<dictcomp>",
            "<listcomp>",
            "__deepcopy__",
            "deepcopy",
        ):
            return not code.co_filename.endswith(("copy.py", "cloudpickle.py"))
        frame = frame.f_back
    return True


def recipes(algorithm: str) -> Iterator[dict[str, Any]]:
    """Yield the small recipes of an algorithm."""
    from support import Case

    kind = algorithm.removeprefix("rllib/")
    acts = "Box" if kind in ("SAC", "TQC", "MADDPG", "MATD3", "CQL", "IQL") else "Discrete"
    if kind not in ("MADDPG", "MATD3", "DRON"):
        yield Case(algorithm, acts, life="one agent").recipe()
    if kind not in ("TQC", "BC", "MARWIL", "CQL", "IQL"):
        yield Case(algorithm, acts, life="fixed").recipe()
    yield Case(
        algorithm, acts, life="fixed" if kind in ("MADDPG", "MATD3", "DRON") else "one agent", remote=True
    ).recipe()


def reads(algorithm: str) -> set[str]:
    """Return the attributes of the config that were read."""
    from rlkit.launch.build import build
    from rlkit.launch.spaces import check_spaces, forget_rosters
    from rlkit.recipe import from_mapping

    found: set[str] = set()
    for values in recipes(algorithm):
        forget_rosters()
        recipe = from_mapping(values)
        with watched() as seen:
            config = build(recipe)
            check_spaces(config, recipe)
            algo = config.build_algo()
            try:
                for _ in range(2):
                    algo.train()
                with tempfile.TemporaryDirectory() as folder:
                    algo.save_to_path(folder)
            finally:
                algo.stop()
        found |= seen
    return found


def unread(algorithm: str) -> list[str]:
    """Return `method.argument` of what a recipe may set and nothing read."""
    config, seen = Config(algorithm), reads(algorithm)
    names = []
    for method in set(METHODS) - ELSEWHERE:
        rows = config.arguments(method)
        for argument, row in rows.items():
            name, known = f"{method}.{argument}", refusal(config, method, argument, rows) is None
            if known and name not in UNSEEN and not is_code(row) and not {argument, f"_{argument}"} & seen:
                names.append(name)
    return names


def main() -> None:
    """Walk the algorithms that are given, or all, and write what is found into the table."""
    import ray
    import support

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    support.register()
    for algorithm in sys.argv[1:] or registry.TABLES["algorithms"]:
        write(algorithm, unread(algorithm))


def write(algorithm: str, names: list[str]) -> None:
    """Put what nothing read for one algorithm into the table: {argument: [algorithms]}."""
    content = json.loads(walk_model.TABLE.read_text(encoding="utf-8"))
    known = content.get("unread", {"walked": [], "arguments": {}})
    walked = {*known["walked"], algorithm}
    found = {name: {*users} - {algorithm} for name, users in known["arguments"].items()}
    for name in names:
        found[name] = {*found.get(name, ()), algorithm}
    order = [name for name in registry.TABLES["algorithms"] if name in walked]
    arguments = {name: [a for a in order if a in users] for name, users in sorted(found.items()) if users}
    content["unread"] = {"walked": order, "arguments": arguments}
    walk_model.TABLE.write_text(walk_model.dumped(content), encoding="utf-8")
    walk_model.DOCS.write_text(walk_model.markdown(content), encoding="utf-8")
    print(f"{algorithm}: nothing reads {len(names)} arguments")


if __name__ == "__main__":
    main()
