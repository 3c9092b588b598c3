"""A bundle: a folder with a policy that is read without pickle, without Ray and without trust in who wrote it.

    bundle.json           spaces, recipe, versions, who plays whom, and each graph as a program (`rlkit.play.program`)
    weights.safetensors   the tensors of the programs

Nothing else in the folder is read, links are refused, sizes and sha256 are compared before a file is parsed, and a
program can only call the operations it may name. An ONNX file from `rlkit export` carries the same description in its
metadata and is played by onnxruntime. Imports torch only where a program runs, and never ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import CheckpointError, UsageError
from rlkit.files import regular_size, sha256
from rlkit.play import spaces
from rlkit.play.answers import ALONE
from rlkit.play.graph_policy import Graph, GraphPolicy, Member, Port, Run
from rlkit.roster import leaves
from rlkit.runs.manifest import Manifest

NAME, WEIGHTS, METADATA = "bundle.json", "weights.safetensors", "rlkit"
FORMAT = 1
LARGEST = 64 << 20  # bytes of bundle.json
EXTRA = "pip install 'rlkit-rllib[export]'"
ROLES_IN, ROLES_OUT = ("obs", "state", "noise", "given"), ("action", "output", "state")


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a bundle or an ONNX file, rather than a checkpoint.

    Raises:
        UsageError: a `.pt2` file, which is neither.
    """
    path = Path(path)
    if path.suffix.lower() == ".pt2" and path.is_file():
        raise UsageError(
            f"{path} is for torch.export.load; rlkit reads .onnx files and folders of bundles: `rlkit export RUN -o "
            "policy/`"
        )
    return (path / NAME).exists() or (path.suffix.lower() == ".onnx" and path.is_file())


def read(path: str | Path) -> tuple[GraphPolicy, Manifest]:
    """Return the policy of a bundle or of an ONNX file that rlkit wrote, and what it says about itself.

    Raises:
        CheckpointError: what is missing, damaged or not allowed.
        UsageError: a package that is not installed; names it.
    """
    path = Path(path)
    return _read_onnx(path) if path.is_file() else _read_bundle(path)


def read_weights(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights of a bundle's modules: module -> name of the parameter -> array.

    Raises:
        CheckpointError: see `read`.
        UsageError: see `read`.
    """
    folder = Path(path)
    if folder.is_file():
        raise UsageError(
            f"{folder}: weights are taken from a run, a checkpoint or a bundle, not from an ONNX file"
        )
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in _weights(folder, _description(folder)).items():
        kind, _, rest = name.partition("/")
        module, _, parameter = rest.rpartition("/")
        if kind == "modules":
            # numpy has no bfloat16, nor float8
            odd = tensor.is_floating_point() and tensor.element_size() < 4
            found.setdefault(module, {})[parameter] = (tensor.float() if odd else tensor).numpy()
    return found


def _read_bundle(folder: Path) -> tuple[GraphPolicy, Manifest]:
    from rlkit.play.program import Program

    said = _description(folder)
    weights = _weights(folder, said)
    where = folder / NAME

    def run(number: int, inputs: Sequence[Port], outputs: Sequence[Port]) -> Run:
        import torch

        program = Program(said["graphs"][number].get("program"), weights, f"{where}: graph {number}")
        if program.inputs != len(inputs):
            raise CheckpointError(
                f"{where}: graph {number} names {len(inputs)} inputs, its program {program.inputs}"
            )
        if program.outputs != len(outputs):
            raise CheckpointError(
                f"{where}: graph {number} names {len(outputs)} outputs, its program {program.outputs}"
            )
        names = [port.name for port in outputs]

        def call(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                try:
                    outs = program([torch.from_numpy(arrays[port.name]) for port in inputs])
                except (
                    RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError
                ) as error:  # fmt: skip
                    raise CheckpointError(
                        f"{where}: graph {number} fails ({type(error).__name__}: {error})"
                    ) from error
            return dict(zip(names, (out.numpy() for out in outs), strict=True))

        return call

    return _policy(said, run, str(where)), _manifest(folder, said)


def _read_onnx(path: Path) -> tuple[GraphPolicy, Manifest]:
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(f"{path}: to play it, {EXTRA}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except Exception as error:  # onnxruntime's own classes
        raise CheckpointError(
            f"{path}: onnxruntime cannot read it ({type(error).__name__}: {error})"
        ) from error
    if text is None:
        raise CheckpointError(
            f"{path}: this ONNX file is not one of `rlkit export`, it says nothing about its spaces"
        )
    said = _parsed(text, str(path))
    policy = onnx_policy(said, session, str(path))
    return policy, _manifest(path, said)


def onnx_policy(said: Mapping[str, Any], session: Any, where: str) -> GraphPolicy:
    """Return the policy of an onnxruntime session: one graph of all agents, asked for one agent at a time."""
    every = {port.name: port for port in session.get_inputs()}

    def run(number: int, inputs: Sequence[Port], outputs: Sequence[Port]) -> Run:
        prefix = said["graphs"][number].get("prefix", "")
        names = [prefix + port.name for port in outputs]
        # The others in the file get one row: onnxruntime (1.32) aborts the process on a GRU or LSTM without rows.
        others = {
            name: np.zeros((1, *(port.shape[1:])), _onnx_dtype(port.type, where))
            for name, port in every.items()
            if prefix and not name.startswith(prefix)
        }
        missing = [prefix + port.name for port in inputs if prefix + port.name not in every]
        if missing:
            raise CheckpointError(
                f"{where}: the graph has inputs {sorted(every)}, its description names {missing}"
            )

        def call(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            fed = {prefix + name: values for name, values in arrays.items()} | others
            try:
                outs = session.run(names, fed)
            except Exception as error:  # onnxruntime's own classes
                raise CheckpointError(
                    f"{where}: graph {number} fails ({type(error).__name__}: {error})"
                ) from error
            return dict(zip((port.name for port in outputs), outs, strict=True))

        return call

    return _policy(said, run, where)


def _onnx_dtype(kind: str, where: str) -> str:
    name = kind.removeprefix("tensor(").removesuffix(")")
    name = {"float": "float32", "double": "float64"}.get(name, name)
    if name not in spaces.DTYPES:
        raise CheckpointError(f"{where}: got an input of {kind}, expected one of {', '.join(spaces.DTYPES)}")
    return name


def _policy(said: Mapping[str, Any], run: Any, where: str) -> GraphPolicy:
    """Return the policy of a description; `run(number, inputs, outputs)` gives what runs a graph."""
    try:
        made: list[Graph] = []
        for number, graph in enumerate(said["graphs"]):
            inputs = tuple(_port(p, ROLES_IN) for p in graph["inputs"])
            outputs = tuple(_port(p, ROLES_OUT) for p in graph["outputs"])
            made.append(Graph(run(number, inputs, outputs), inputs, outputs))
        members: dict[Any, Member] = {}
        for member in said["members"]:
            agent = ALONE if member["agent"] is None else str(member["agent"])
            observation, action = (
                spaces.from_json(member[kind], f"{where}: {kind} of {agent}")
                for kind in ("observation_space", "action_space")
            )
            greedy, sampled = (
                None if member[k] is None else made[int(member[k])] for k in ("greedy", "sampled")
            )
            for graph in filter(None, (greedy, sampled)):
                _check_ports(graph, observation, action)
            feeds = tuple(_feed(feed) for feed in member["feeds"])
            members[agent] = Member(str(member["module"]), observation, action, greedy, sampled, feeds)
        if not members:
            raise ValueError("nobody acts")
        env_steps, normalized = int(said["env_steps"]), bool(said.get("normalized", True))
    except DAMAGED as error:
        raise CheckpointError(f"{where}: incomplete or damaged ({type(error).__name__}: {error})") from error
    if ALONE in members:
        alone = members[ALONE]
        return GraphPolicy(members, alone.observation_space, alone.action_space, env_steps, normalized)
    observation, action = (
        gym.spaces.Dict({agent: getattr(m, kind) for agent, m in members.items()})
        for kind in ("observation_space", "action_space")
    )
    return GraphPolicy(members, observation, action, env_steps, normalized)


def _check_ports(graph: Graph, observation: gym.Space, action: gym.Space) -> None:
    """A graph takes every part of an observation and gives every part of an action."""
    for kind, ports, space in (("obs", graph.inputs, observation), ("action", graph.outputs, action)):
        got, expected = sum(port.role == kind for port in ports), len(leaves(space))
        if got != expected:
            raise ValueError(f"a graph has {got} ports of the role {kind!r}, its space has {expected} parts")


def _port(given: Mapping[str, Any], roles: Sequence[str]) -> Port:
    if given["role"] not in roles:
        raise ValueError(
            f"{given['name']!r} has the role {given['role']!r}, expected one of {', '.join(roles)}"
        )
    if given["dtype"] not in spaces.DTYPES:
        raise ValueError(
            f"{given['name']!r} has dtype {given['dtype']!r}, expected one of {', '.join(spaces.DTYPES)}"
        )
    shape = tuple(int(side) for side in given["shape"])
    if min(shape, default=0) < 0 or np.prod(shape, dtype=np.float64) > spaces.LARGEST:
        raise ValueError(f"{given['name']!r} has the shape {shape}")
    return Port(str(given["name"]), given["role"], shape, given["dtype"], str(given.get("note", "")))


# kind of a feed -> its keys and what they hold; `start` and `size` count actions or policies
FEEDS: dict[str, dict[str, type]] = {
    "opponents": {"opponents": list, "alone": bool, "discrete": bool, "events": bool, "start": int},
    "sub_policy": {"team": str, "size": int},
}


def _feed(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if given["kind"] not in FEEDS:
        raise ValueError(f"a feed of the kind {given['kind']!r}")
    for key, kind in FEEDS[given["kind"]].items():
        if not isinstance(given[key], kind):
            raise ValueError(f"the {key} of a feed is {str(given[key])[:40]!r}, expected {kind.__name__}")
    if given["kind"] == "sub_policy" and given["size"] < 1:
        raise ValueError(f"the size of a feed is {given['size']}, expected at least 1")
    return given


# what a description that is none raises
DAMAGED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)
# what of the recipe in a bundle is read when it is played
PLAYED: dict[str, type | tuple[type, ...]] = {
    "env": str, "env_config": dict, "stop": dict, "curriculum": dict, "env_timeout_s": (int, float),
}  # fmt: skip


def _manifest(path: Path, said: Mapping[str, Any]) -> Manifest:
    recipe = said.get("recipe")
    if recipe is not None and not isinstance(recipe, dict):
        raise CheckpointError(f"{path}: recipe is a {type(recipe).__name__}, expected an object")
    for key, kind in PLAYED.items():
        value = (recipe or {}).get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise CheckpointError(f"{path}: recipe.{key} is {str(value)[:40]!r}, which no recipe has")
    limit_s = (recipe or {}).get("env_timeout_s")
    if limit_s is not None and not limit_s > 0:
        raise CheckpointError(f"{path}: recipe.env_timeout_s is {limit_s}, expected seconds above 0")
    iteration, versions = said.get("iteration", 0), said.get("versions") or {}
    if not isinstance(iteration, int) or not isinstance(versions, dict):
        raise CheckpointError(
            f"{path}: iteration and versions are {str(iteration)[:40]!r} and {str(versions)[:40]!r}, expected a whole "
            "number and an object"
        )
    return Manifest(
        path=path,
        recipe=recipe,
        iteration=iteration,
        env_steps=int(said["env_steps"]),
        versions={str(name): str(version) for name, version in versions.items()},
        created=str(said.get("created", "")),
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    size = regular_size(path, "bundle")
    if size > LARGEST:
        raise CheckpointError(f"{path}: {size} bytes, expected at most {LARGEST}")
    return _parsed(path.read_bytes(), str(path))


def _parsed(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError(f"got a {type(said).__name__}, expected an object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: damaged, not JSON ({error})") from error
    if said.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} has format {said.get('format')!r}, this rlkit reads format {FORMAT}; "
            "export it anew with this version"
        )
    return said


def _weights(folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    path, expected = folder / WEIGHTS, said.get("weights")
    if not isinstance(expected, dict) or set(expected) != {"bytes", "sha256"}:
        raise CheckpointError(
            f"{folder / NAME}: weights are {str(expected)[:60]!r}, expected their bytes and sha256"
        )
    size = regular_size(path, "bundle")
    if size != expected["bytes"]:
        raise CheckpointError(f"{path}: damaged, {size} bytes instead of {expected['bytes']}")
    if sha256(path) != expected["sha256"]:
        raise CheckpointError(f"{path}: damaged or edited, its sha256 is not the one in {NAME}")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UsageError(f"{folder}: to read a bundle, pip install safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
