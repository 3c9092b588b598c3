"""A traced graph as plain data: a list of torch operations by name, which is run without code of its own.

`encode` takes what `torch.export` traced. A node is `[operation, arguments, keyword arguments]`; its result gets the
next number after the inputs and the nodes before it. An argument is a JSON value, or an object with one key:

    {"v": 7}          value number 7            {"w": "name"}     a weight
    {"dtype": "…"}    a torch dtype             {"f": "-inf"}     a number that JSON lacks

`Program` runs it. Operations are looked up in `OPERATIONS` and nowhere else; all are pure functions of tensors and
numbers. Imports torch alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rlkit.errors import CheckpointError, UsageError

NODES = 20_000
LARGEST = 1 << 26  # a number in a shape
END = 2**63 - 1  # torch's end of a slice
PIECES = 4_096  # of a tensor that is taken apart
RESULTS = 1 << 30  # numbers in all results of one run: they are kept until it ends

_ATEN = """
__and__.Tensor __or__.Tensor _softmax.default _log_softmax.default _to_copy.default abs.default add.Scalar add.Tensor
addmm.default all.default all.dim alias.default amax.default amin.default any.default any.dim any.dims arange.default
arange.start arange.start_step argmax.default argmin.default atan.default atanh.default avg_pool2d.default
baddbmm.default batch_norm.default bitwise_and.Tensor bitwise_not.default bitwise_or.Tensor bmm.default
broadcast_tensors.default cat.default ceil.default chunk.default clamp.Tensor clamp.default clamp_max.default
clamp_min.default clone.default constant_pad_nd.default contiguous.default conv1d.default conv2d.default
convolution.default cos.default cumsum.default detach.default detach_.default div.Scalar div.Tensor dropout.default
einsum.default elu.default embedding.default empty_like.default eq.Scalar eq.Tensor erf.default exp.default
expand.default expm1.default flatten.using_ints flip.default floor.default full.default full_like.default
gather.default ge.Scalar ge.Tensor gelu.default glu.default group_norm.default gru.input gt.Scalar gt.Tensor
hardtanh.default index.Tensor index_select.default isfinite.default isinf.default isnan.default layer_norm.default
le.Scalar le.Tensor leaky_relu.default lift_fresh_copy.default linear.default log.default log1p.default
log_softmax.int logical_and.default logical_not.default logical_or.default logsumexp.default lstm.input lt.Scalar
lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul.default max.dim max_pool2d.default maximum.default mean.default
mean.dim min.dim minimum.default mish.default mm.default movedim.int mul.Scalar mul.Tensor nan_to_num.default
nanmean.default native_group_norm.default native_layer_norm.default ne.Scalar ne.Tensor neg.default new_full.default
new_ones.default new_zeros.default one_hot.default ones.default ones_like.default pad.default permute.default
pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor reciprocal.default relu.default remainder.Scalar repeat.default
reshape.default rms_norm.default round.default rsqrt.default rsub.Scalar scalar_tensor.default
scaled_dot_product_attention.default scatter.src scatter.value select.int selu.default sigmoid.default sign.default
silu.default sin.default slice.Tensor softmax.int softplus.default split.Tensor split_with_sizes.default sqrt.default
squeeze.default squeeze.dim squeeze.dims stack.default std.correction sub.Scalar sub.Tensor sum.default
sum.dim_IntList sym_size.int t.default tan.default tanh.default to.dtype transpose.int tril.default triu.default
type_as.default unbind.int unflatten.int unsqueeze.default var.correction view.default view_as.default where.Scalar
where.ScalarOther where.ScalarSelf where.self zeros.default zeros_like.default
"""


def _number(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation on sizes: Python's own would also multiply lists and texts, and integers have no end."""

    def bounded(*args: Any) -> Any:
        if not all(isinstance(value, int | float) for value in args):
            raise TypeError(f"expected numbers, got {str(args)[:60]}")
        result = function(*args)
        if abs(result) > END:
            raise ValueError(f"got a number beyond {END}")
        return result

    return bounded


def _pieces(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that makes a list of views: each is an object of its own, however small."""

    def bounded(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if max(tensor.shape, default=0) > PIECES:
            raise ValueError(f"got {tuple(tensor.shape)} to take apart, expected at most {PIECES:,} pieces")
        return function(tensor, *args, **kwargs)

    return bounded


_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": _number(operator.add), "sub": _number(operator.sub), "mul": _number(operator.mul),
    "floordiv": _number(operator.floordiv), "neg": _number(operator.neg), "getitem": operator.getitem,
    "sym_max": _number(max), "sym_min": _number(min),
}  # fmt: skip
_TAKEN_APART = ("unbind.int", "split.Tensor", "split_with_sizes.default", "chunk.default")
# checks of the tracer, which say nothing about the result
_SKIPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "_assert_async")
_DROPPED = ("device", "layout", "pin_memory", "memory_format")


def operations() -> dict[str, Callable[..., Any]]:
    """Return every operation a program may use, by name: those of this torch."""
    found: dict[str, Callable[..., Any]] = {**_NUMBERS}
    for name in _ATEN.split():
        packet, _, overload = name.partition(".")
        made = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if made is not None:
            found[name] = _pieces(made) if name in _TAKEN_APART else made
    return found


# a program keeps no memory formats, so a view of what torch had laid out for it may need a copy
_AS = {"view.default": "reshape.default", "_unsafe_view.default": "reshape.default"}
OPERATIONS = set(_ATEN.split()) | set(_NUMBERS)


def encode(traced: Any, weight: Callable[[str], str]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the program of an ExportedProgram as plain data, and its tensors by name.

    Args:
        traced: torch's; its inputs and outputs are tensors.
        weight: parameter, buffer or constant as the traced module calls it -> name in the program.

    Raises:
        UsageError: an operation that a program cannot hold; names it.
    """
    from torch.export.graph_signature import InputKind

    kinds = {spec.arg.name: spec for spec in traced.graph_signature.input_specs}
    values: dict[Any, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    nodes: list[Any] = []
    inputs = sum(spec.kind is InputKind.USER_INPUT for spec in kinds.values())
    outputs: list[Any] = []
    place = 0
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            spec = kinds[node.name]
            if spec.kind is InputKind.USER_INPUT:
                values[node] = {"v": place}
                place += 1
                continue
            held = traced.state_dict if spec.target in traced.state_dict else traced.constants
            name = weight(spec.target)
            tensors[name] = held[spec.target].detach()
            values[node] = {"w": name}
        elif node.op == "output":
            outputs = [_argument(value, values) for value in node.args[0]]
        else:
            name = _name(node.target)
            name = _AS.get(name, name)
            if name.split(".")[0] in _SKIPPED:
                continue
            if name not in OPERATIONS:
                raise UsageError(
                    f"the operation {name} cannot stand in a bundle; export to .onnx or .pt2, or write the model "
                    "with other operations of torch"
                )
            kwargs = {k: _argument(v, values) for k, v in node.kwargs.items() if k not in _DROPPED}
            values[node] = {"v": inputs + len(nodes)}
            nodes.append([name, [_argument(a, values) for a in node.args], kwargs])
    used = _names(nodes) | _names(outputs)
    return {"inputs": inputs, "nodes": nodes, "outputs": outputs}, {
        n: t for n, t in tensors.items() if n in used
    }


def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target.name().partition("::")
        packet, _, overload = name.partition(".")
        return f"{packet}.{overload or 'default'}" if namespace == "aten" else target.name()
    return getattr(target, "__name__", str(target))


def _argument(value: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(value, torch.fx.Node):
        return values[value]
    if isinstance(value, list | tuple):
        return [_argument(item, values) for item in value]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"an argument {value!r} ({type(value).__name__}) cannot stand in a bundle; export to .onnx or .pt2"
    )


def _names(value: Any) -> set[str]:
    if isinstance(value, dict) and set(value) == {"w"}:
        return {value["w"]}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for item in items for name in _names(item)}


class Program:
    """Runs a program.

    Args:
        data: from `encode`, or from a stranger: everything is checked before anything runs.
        weights: tensors by name.
        where: what messages call it.

    Raises:
        CheckpointError: an unknown operation, a value or weight that is not there, a number that is too large.
    """

    def __init__(self, data: Any, weights: Mapping[str, torch.Tensor], where: str):
        self.where, self._weights = where, weights
        try:
            self.inputs = int(data["inputs"])
            nodes, outputs = data["nodes"], data["outputs"]
            if not isinstance(nodes, list) or not 0 < len(nodes) <= NODES or not 0 < self.inputs <= NODES:
                raise ValueError(f"expected 1 to {NODES} nodes and inputs")
            known = operations()
            self._steps = [self._step(node, self.inputs + i, known) for i, node in enumerate(nodes)]
            self._outputs = [self._checked(value, self.inputs + len(nodes)) for value in outputs]
            self.outputs = len(self._outputs)
            for value in self._outputs:
                if not isinstance(value, _Value | torch.Tensor):
                    raise ValueError(f"got the output {str(value)[:60]}, expected a result or a weight")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{where}: not a program ({type(error).__name__}: {error})") from error

    def _step(self, node: Any, place: int, known: Mapping[str, Callable[..., Any]]) -> tuple[Any, Any, Any]:
        name, args, kwargs = node
        if name not in known:
            raise CheckpointError(
                f"{self.where}: the operation {str(name)[:60]!r} is none of those a program may use"
                + ("; this torch lacks it" if name in OPERATIONS else "")
            )
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ValueError(f"{name} has arguments {str(args)[:60]}")
        return known[name], self._checked(args, place), self._checked(dict(kwargs), place, names=True)

    def _checked(self, value: Any, place: int, names: bool = False) -> Any:
        """Return an argument ready to be filled: references, weights and dtypes become objects of their own."""
        if isinstance(value, list):
            return [self._checked(item, place) for item in value]
        if names:
            return {key: self._checked(item, place) for key, item in value.items()}
        if isinstance(value, dict):
            (kind, what), *more = value.items()
            if kind == "v" and isinstance(what, int) and not more and 0 <= what < place:
                return _Value(what)
            if kind == "w" and not more and what in self._weights:
                return self._weights[what]
            if kind == "dtype" and not more and isinstance(getattr(torch, str(what), None), torch.dtype):
                return getattr(torch, what)
            if kind == "f" and not more and what in ("inf", "-inf", "nan"):
                return float(what)
            raise ValueError(f"got the argument {str(value)[:60]}, which refers to nothing before it")
        if isinstance(value, int) and abs(value) > LARGEST and value != END:
            raise ValueError(f"got the number {str(value)[:40]}, expected at most {LARGEST}")
        return value

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the outputs for the inputs, both in the program's order.

        Raises:
            ValueError: the results hold more than `RESULTS` numbers.
        """
        values: list[Any] = list(inputs)
        count = 0
        for function, args, kwargs in self._steps:
            if kwargs:
                values.append(
                    function(*_filled(args, values), **{k: _fill(v, values) for k, v in kwargs.items()})
                )
            else:
                values.append(function(*_filled(args, values)))
            count += _size(values[-1])
            if count > RESULTS:
                raise ValueError(f"its results hold more than {RESULTS:,} numbers")
        found = _filled(self._outputs, values)
        for value in found:
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"it gives {type(value).__name__}, expected tensors")
        return found


def _size(result: Any) -> int:
    """Count the numbers in the result of an operation."""
    if isinstance(result, torch.Tensor):
        return result.numel()
    return sum(map(_size, result)) if isinstance(result, list | tuple) else 1


class _Value:
    """The result number `place`."""

    __slots__ = ("place",)

    def __init__(self, place: int):
        self.place = place


def _fill(value: Any, values: list[Any]) -> Any:
    kind = type(value)
    if kind is _Value:
        return values[value.place]
    return _filled(value, values) if kind is list else value


def _filled(args: list[Any], values: list[Any]) -> list[Any]:
    return [_fill(value, values) for value in args]
