"""From graphs to files: tracing, and an ONNX file, a .pt2 file or a bundle, each written beside its place.

Legend: B rows.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from rlkit import rllib
from rlkit.errors import UsageError
from rlkit.files import sha256, write_atomic
from rlkit.play import spaces
from rlkit.play.bundle import EXTRA, FORMAT, METADATA, NAME, WEIGHTS
from rlkit.play.export.graph import AgentGraph, Port, Team
from rlkit.play.program import encode
from rlkit.runs.layout import versions
from rlkit.runs.manifest import Manifest

OPSET = 20
MODULE = "choosing.module."  # where an AgentGraph has the RLModule
ROWS = 3  # of the examples a graph is traced with


def trace(graph: AgentGraph | Team, inputs: Sequence[Port], groups: Sequence[int]) -> Any:
    """Return torch's ExportedProgram of a graph, for any number of rows.

    Args:
        inputs: in the order of `forward`.
        groups: per input, which agent it belongs to: each agent has a number of rows of its own.

    Raises:
        UsageError: the graph cannot be traced; says what torch said.
    """
    rows = {group: Dim(f"rows_{group}", min=0) for group in groups}
    shapes = tuple({0: rows[group]} for group in groups)
    try:
        with torch.no_grad(), _quiet(), rllib.traceable_heads(graph):
            return torch.export.export(
                graph.eval(),
                tuple(port.zeros(ROWS) for port in inputs),
                dynamic_shapes=(shapes,),
                strict=False,
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UsageError(
            f"the policy cannot be traced ({type(error).__name__}: {first}); a model has to compute with torch "
            "operations alone, without branches on the values of tensors"
        ) from error


def trace_team(team: Team) -> Any:
    """Return the ExportedProgram of all agents."""
    groups = [i for i, graph in enumerate(team.graphs) for _ in graph.inputs]
    return trace(team, [port for _, port in team.inputs], groups)


# What a file says about itself ---------------------------------------------------------------------------------


def describe(
    notes: Manifest, greedy: Mapping[Any, AgentGraph], sampled: Mapping[Any, AgentGraph]
) -> dict[str, Any]:
    """Return the description but for its graphs: versions, recipe, members with numbers of graphs, greedy first."""
    members = []
    for number, agent in enumerate(greedy or sampled):
        graph = (greedy or sampled)[agent]
        if agent is not None and not isinstance(agent, str):
            raise UsageError(
                f"agent {agent!r} is a {type(agent).__name__}; an export needs names that are texts"
            )
        members.append(
            {
                "agent": agent,
                "module": graph.module_id,
                "observation_space": spaces.to_json(graph.observation_space),
                "action_space": spaces.to_json(graph.action_space),
                "greedy": number if greedy else None,
                "sampled": len(greedy) + number if sampled else None,
                "feeds": [dict(piece.feed) for piece in graph.pieces if piece.feed is not None],
            }
        )
    return {
        "format": FORMAT,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "iteration": notes.iteration,
        "env_steps": notes.env_steps,
        "recipe": notes.recipe and _without_places(notes.recipe),
        "normalized": all(graph.normalized for graph in (greedy or sampled).values()),
        "members": members,
    }


def _without_places(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without where its data and first weights lay: playing needs neither, and a bundle travels."""

    def name(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: name(item) for key, item in value.items()}
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return {key: name(value) if key in ("data", "init_from") else value for key, value in recipe.items()}


def _ports(ports: Sequence[Port]) -> list[dict[str, Any]]:
    return [
        {
            "name": p.name,
            "role": p.role,
            "shape": list(p.tensor.shape),
            "dtype": p.tensor.dtype,
            "note": p.note,
        }
        for p in ports
    ]


def _sides(graph: AgentGraph) -> dict[str, Any]:
    return {"inputs": _ports(graph.inputs), "outputs": _ports(graph.outputs)}


# The three kinds ------------------------------------------------------------------------------------------------


def write_onnx(path: Path, notes: Manifest, graphs: Mapping[Any, AgentGraph], sampled: bool) -> None:
    """Write one ONNX file of all agents; the description stands in its metadata under `rlkit`.

    Raises:
        UsageError: no onnx here, or a graph that cannot be traced.
    """
    try:
        import onnx  # noqa: F401 (torch.onnx imports both late, and says less)
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError(f"writing {path.name} needs onnx and onnxscript: {EXTRA}") from None
    team = Team(graphs)
    said = describe(notes, {} if sampled else graphs, graphs if sampled else {})
    several = len(graphs) > 1 or None not in graphs
    said["graphs"] = [{"prefix": f"{a}/" if several else "", **_sides(g)} for a, g in graphs.items()]
    with _quiet():
        try:
            made = torch.onnx.export(
                trace_team(team),
                (),
                None,
                input_names=[name for name, _ in team.inputs],
                output_names=[name for name, _ in team.outputs],
                opset_version=OPSET,
                verbose=False,
            )
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"ONNX cannot hold this policy ({type(error).__name__}: {str(error).strip().splitlines()[0]}); "
                "export a bundle or a .pt2 file"
            ) from error
    proto = made.model_proto
    if {i.name for i in proto.graph.input} != {name for name, _ in team.inputs}:
        raise UsageError(
            f"inputs {sorted(name for name, _ in team.inputs)} became {sorted(i.name for i in proto.graph.input)}"
        )
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(said)
    proto.producer_name, proto.producer_version = "rlkit", said["versions"]["rlkit"]
    path.write_bytes(proto.SerializeToString())


def write_pt2(path: Path, notes: Manifest, graphs: Mapping[Any, AgentGraph], sampled: bool) -> None:
    """Write an archive for `torch.export.load`; the description is its extra file `rlkit.json`."""
    team = Team(graphs)
    said = describe(notes, {} if sampled else graphs, graphs if sampled else {})
    said["inputs"] = [{**_ports([port])[0], "name": name} for name, port in team.inputs]
    said["outputs"] = [{**_ports([port])[0], "name": name} for name, port in team.outputs]
    with _quiet():
        torch.export.save(trace_team(team), path, extra_files={"rlkit.json": json.dumps(said)})


def write_bundle(
    folder: Path, notes: Manifest, greedy: Mapping[Any, AgentGraph], sampled: Mapping[Any, AgentGraph]
) -> None:
    """Write bundle.json and weights.safetensors into an empty folder.

    Raises:
        UsageError: no safetensors here, or a graph that cannot be traced or has an operation of its own.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise UsageError("writing a bundle needs safetensors: pip install safetensors") from None
    said = describe(notes, greedy, sampled)
    weights: dict[str, torch.Tensor] = {}
    said["graphs"] = []
    for number, graph in enumerate([*greedy.values(), *sampled.values()]):
        with torch.no_grad(), _quiet():
            traced = trace(graph, graph.inputs, [0] * len(graph.inputs)).run_decompositions({})

        def name(weight: str, module_id: str = graph.module_id, number: int = number) -> str:
            if weight.startswith(MODULE):
                return f"modules/{module_id}/{weight.removeprefix(MODULE)}"
            return f"graphs/{number}/{weight}"

        program, tensors = encode(traced, name)
        said["graphs"].append({**_sides(graph), "program": program})
        weights |= {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    path = folder / WEIGHTS
    # what `save_file` writes only its owner can read
    path.write_bytes(save(weights, metadata={"format": "pt"}))
    said["weights"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_atomic(folder / NAME, json.dumps(said))


@contextmanager
def place_beside(path: Path, folder: bool) -> Iterator[Path]:
    """Give a temporary file or folder beside a path; it is removed unless the caller has moved it.

    Raises:
        UsageError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        inside = Path(tempfile.mkdtemp(prefix=".exporting_", dir=path.parent))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        if folder:
            os.chmod(inside, 0o755)
        yield inside if folder else inside / path.name
    finally:
        shutil.rmtree(inside, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch's exporters say about themselves, on warnings and loggers."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
