"""`init_from`: modules that begin with the weights of another run, a checkpoint or a bundle.

Weights are matched by name and shape. A module takes from the source module of its own name, else from the one that
fits most numbers. Names of the same part in other algorithms count as equal where its own name is missing (`ROLES`):
the policy's encoder and head of PPO, IMPALA and BC, DQN's encoder and advantage head, SAC's policy. A tensor of equal
rank and another shape takes the block that both have, so that an observation with more numbers behind the old ones
keeps what was learned. Target networks begin equal to the networks they follow.

What fits nothing is an error before training. A run that goes on (`--resume`) has its own weights and takes nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.errors import UsageError, did_you_mean, printable
from rlkit.recipe.shipped import find_policy
from rlkit.roster import matches
from rlkit.runs.store import is_uri

Weights = dict[str, np.ndarray]

# what a part is called in RLlib's modules (ray 2.60) -> its role
ROLES = (
    (
        re.compile(
            r"^(encoder\.actor_encoder|encoder\.encoder|_encoder|pi_encoder|encoder(?!\.critic_encoder))\."
        ),
        "policy.",
    ),
    (re.compile(r"^(pi|_pi_head|af)\."), "head."),
)
MASKED = re.compile(r"^(pi|_pi_head|af|vf)\.head\.")  # a head whose outputs are masked lies in one that masks
TARGETS = re.compile(r"^(_target_|target_)|\._target_|_target\b")


@dataclass(frozen=True)
class Taken:
    """What became of one tensor of a module: `how` is taken, resized or left."""

    name: str
    how: str
    numbers: int
    shape: tuple[int, ...]
    source: str = ""
    source_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What one module takes: from where, tensor by tensor, and the values themselves."""

    module: str
    path: str
    source: str
    rows: list[Taken]
    values: Weights

    def count(self, how: str) -> int:
        return sum(row.numbers for row in self.rows if row.how == how)


def sources(init_from: str | Mapping[str, str]) -> dict[str, str]:
    """Return glob of modules -> path, absolute unless it names the zoo or a store; `#module` at its end stays."""
    given = {"*": init_from} if isinstance(init_from, str) else dict(init_from)
    found = {}
    for glob, text in given.items():
        path, mark, module = text.partition("#")
        shipped = find_policy(path) != Path(path)
        place = path if shipped or is_uri(path) else Path(path).expanduser().absolute()
        found[glob] = f"{place}{mark}{module}"
    return found


Shapes = Mapping[str, tuple[int, ...]]


def plans(
    init_from: str | Mapping[str, str], modules: Mapping[str, Shapes], *, trust: bool = False
) -> list[Plan]:
    """Read the sources and match them with modules.

    Args:
        init_from: the recipe's.
        modules: shapes of their weights by id.
        trust: accept a checkpoint this user did not write.

    Raises:
        UsageError: a glob without a module, no such path or source module, weights that fit nothing.
        CheckpointError: damaged, or not signed by this user.
    """
    read = functools.cache(functools.partial(_read, trust=trust))
    left, made = dict(modules), []
    for glob, text in sources(init_from).items():
        path, _, wanted = text.partition("#")
        mine = [name for name in left if matches(name, [glob])]
        if not mine:
            raise UsageError(
                f"init_from: {glob!r} matches no policy that is still free; policies: {', '.join(modules)}"
            )
        for name in mine:
            made.append(_plan(name, left.pop(name), path, read(path), wanted))
    return made


def _read(path: str, trust: bool) -> dict[str, Weights]:
    """Return the weights at a path, verified before anything is unpickled: module -> name -> array."""
    from rlkit.play import bundle
    from rlkit.play.agent import verified

    place = find_policy(path)
    if bundle.is_bundle(place):
        return _checked(path, bundle.read_weights(place))
    notes = verified(path, trust=trust)
    from rlkit.play.restore import read_modules

    return _checked(path, {str(name): _numpy(module) for name, module in read_modules(notes).items()})


def _checked(path: str, found: dict[str, Weights]) -> dict[str, Weights]:
    if not found:
        raise UsageError(f"init_from: {path} holds no weights of a policy")
    for module, weights in found.items():
        for name, values in weights.items():
            number = values.dtype.kind in "fiub"
            if not number or not (np.abs(values) <= np.finfo(np.float32).max).all():
                got = "NaN, infinite or huge numbers" if number else f"{values.dtype} numbers"
                raise UsageError(
                    f"init_from: {path}: {printable(name)} of policy {printable(module)!r} holds {got}, expected "
                    "finite ones; use a run or a checkpoint before they came"
                )
    return found


def _numpy(module: Any) -> Weights:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in _state(module).items()}


def _state(module: Any) -> Mapping[str, Any]:
    unwrapped = module.unwrapped() if hasattr(module, "unwrapped") else module
    return unwrapped.state_dict()


def shapes_of(modules: Any) -> dict[str, Shapes]:
    """Return module -> name -> shape of its weights, without target networks, of a MultiRLModule."""
    return {
        str(module_id): {n: tuple(t.shape) for n, t in _state(module).items() if not TARGETS.search(n)}
        for module_id, module in modules.items()
    }


def of_learners(algorithm: Any) -> dict[str, Shapes]:
    """Return the shapes of the modules that an algorithm's learners have, critics included."""
    (first, *_) = algorithm.learner_group.foreach_learner(lambda learner: shapes_of(learner.module))
    return first.get()


def _plan(name: str, shapes: Shapes, path: str, source: Mapping[str, Weights], wanted: str) -> Plan:
    if wanted and wanted not in source:
        known = printable(", ".join(source))
        raise UsageError(
            f"init_from: {path} has no policy {wanted!r}{did_you_mean(wanted, source)}; it has {known}"
        )
    names = [wanted] if wanted else [name] if name in source else list(source)
    tried = [Plan(name, path, other, *match(shapes, source[other])) for other in names]
    best = max(tried, key=lambda plan: plan.count("taken") + plan.count("resized"))
    if not best.values:
        got = {n: tuple(v.shape) for n, v in source[best.source].items()}
        raise UsageError(
            f"init_from: nothing in {path} fits policy {name!r}: got {_some(got)}, expected {_some(dict(shapes))}; use "
            "a run whose model has the same names and sizes, or leave init_from out"
        )
    return best


def match(shapes: Mapping[str, tuple[int, ...]], source: Weights) -> tuple[list[Taken], Weights]:
    """Match a module's tensors with those of a source.

    Args:
        shapes: name -> shape of what the module has.
        source: name -> array.

    Returns:
        A row per tensor of the module; and what to put where, name -> array, smaller than the module's if resized.
    """
    roles: dict[str, str] = {}
    for name in source:
        roles.setdefault(role(name), name)
    rows, values = [], {}
    for name, shape in shapes.items():
        other = name if name in source else roles.get(role(name), "")
        numbers = int(np.prod(shape))
        found = source.get(other)
        if found is None or found.ndim != len(shape) or 0 in found.shape:
            rows.append(
                Taken(name, "left", numbers, shape, other, () if found is None else tuple(found.shape))
            )
            continue
        same = tuple(found.shape) == shape
        block = found[tuple(slice(0, side) for side in shape)]
        how = "taken" if same else "resized"
        rows.append(Taken(name, how, int(block.size), shape, other, tuple(found.shape)))
        values[name] = block
    return rows, values


def role(name: str) -> str:
    """Return a name with the part's role in the place of what an algorithm calls it."""
    name = MASKED.sub(r"\1.", name)
    for pattern, part in ROLES:
        if pattern.search(name):
            return pattern.sub(part, name)
    return name


def apply(algorithm: Any, made: Sequence[Plan]) -> None:
    """Put the weights into every learner, its target networks, and every env runner."""
    values = {plan.module: plan.values for plan in made}
    algorithm.learner_group.foreach_learner(functools.partial(_put, values=values))
    for group in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
        if group is not None:
            group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)


def _put(learner: Any, values: Mapping[str, Weights]) -> None:
    """Write into the module's tensors, which optimisers and stacked networks share."""
    import torch

    for module_id, weights in values.items():
        module = learner.module[module_id].unwrapped()
        state = module.state_dict()
        with torch.no_grad():
            for name, value in weights.items():
                block = tuple(slice(0, side) for side in value.shape)
                state[name][block].copy_(torch.from_numpy(np.array(value)))
            for main, target in _targets(module):
                followed = main.state_dict()
                for name, tensor in target.state_dict().items():
                    tensor.copy_(followed[name])


def _targets(module: Any) -> list[tuple[Any, Any]]:
    if hasattr(module, "target_actors"):  # MADDPG
        names = [name for name in ("actors", "critics", "inferred") if hasattr(module, name)]
        return [(getattr(module, name), getattr(module, f"target_{name}")) for name in names]
    return list(module.get_target_network_pairs()) if hasattr(module, "get_target_network_pairs") else []


def table(made: Sequence[Plan]) -> str:
    """Return what was taken as lines: one per policy, one per tensor that was resized or left."""
    lines = []
    for plan in made:
        total = sum(row.numbers for row in plan.rows if row.how != "resized") + sum(
            int(np.prod(row.shape)) for row in plan.rows if row.how == "resized"
        )
        counts = ", ".join(f"{plan.count(how):,} {how}" for how in ("taken", "resized") if plan.count(how))
        lines.append(
            f"init_from  {plan.module} <- {plan.path} ({printable(plan.source)}): {counts} of {total:,} numbers"
        )
        for row in plan.rows:
            if row.how == "resized":
                lines.append(
                    f"           resized  {row.name} {_shape(row.source_shape)} -> {_shape(row.shape)}"
                )
            elif row.how == "left":
                lines.append(f"           left     {row.name} {_shape(row.shape)}")
    return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _some(shapes: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{printable(name)} {_shape(shape)}" for name, shape in list(shapes.items())[:4]]
    return ", ".join(shown) + (" …" if len(shapes) > 4 else "")
