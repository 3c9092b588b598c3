"""Private names of RLlib and Tune stand in rlkit/rllib/ alone.

A private name begins with one underscore and is defined in the source of `ray.rllib`, `ray.tune` or `ray.train`. Where
rlkit uses it (reads, sets, calls, overrides), it counts

- in a class, on `self`, `cls`, `super()` or as a method or attribute of the class: if one of the class's bases in ray
  defines it;
- on any other object: if ray defines it and the file itself does not;
- in an import from ray: always.

What RLlib documents for subclasses to override (`EXTENSION_POINTS`) does not count.
"""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).parents[1]
RAY = Path(ray.__file__).parent
# https://docs.ray.io/en/latest/rllib/rl-modules.html: "override `_forward…`"
EXTENSION_POINTS = {"_forward", "_forward_inference", "_forward_exploration", "_forward_train"}
DEFINED = re.compile(r"(?:\bself\.|\bcls\.|def |^    )(_[a-zA-Z]\w*)\b(?=\s*(?:\(|=[^=]|:))", re.MULTILINE)


def defined(source: str) -> set[str]:
    """Private names that a piece of source defines: functions, attributes set on `self`, class attributes."""
    return {name for name in DEFINED.findall(source) if not name.endswith("__")}


@functools.cache
def names_of_ray() -> set[str]:
    files = (path for part in ("rllib", "tune", "train") for path in (RAY / part).rglob("*.py"))
    return {name for path in files if "tests" not in path.parts for name in defined(path.read_text())}


def names_of_bases(module: str, qualname: str) -> set[str]:
    """Private names of a class of rlkit that come from its bases in ray."""
    cls = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    bases = [base for base in cls.__mro__ if base.__module__.startswith("ray.")]
    return {name for base in bases for name in defined(inspect.getsource(base))}


def is_own(node: ast.expr) -> bool:
    """Is this `self`, `cls` or `super()`?"""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in EXTENSION_POINTS


def uses(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every private name of ray that a file of rlkit uses."""
    source = path.read_text()
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    foreign = names_of_ray() - defined(source)

    def visit(node: ast.AST, inherited: set[str], scope: str) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.ClassDef):
            scope = f"{scope}.{node.name}".lstrip(".")
            inherited = names_of_bases(module, scope)
            for member in node.body:
                targets = getattr(member, "targets", [getattr(member, "target", None)])
                names = [getattr(member, "name", None), *(getattr(target, "id", None) for target in targets)]
                yield from ((member.lineno, n) for n in names if n and private(n) and n in inherited)
        if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node.value) != "os":
            known = inherited if is_own(node.value) else foreign
            if node.attr in known:
                yield node.lineno, node.attr
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray"):
            words = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from ((node.lineno, word) for word in words if private(word))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inherited, scope)

    yield from visit(ast.parse(source), set(), "")


FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "rlkit").rglob("*.py")
    # VMAS is an extra, and its adapter has no base in RLlib's internals
    if path.parent != ROOT / "rlkit" / "rllib" and path.name != "vmas.py"
)


@pytest.mark.parametrize("file", FILES)
def test_a_file_uses_no_private_name_of_rllib(file: str) -> None:
    found = [f"{file}:{line}: {name}" for line, name in uses(ROOT / file)]
    assert not found, "give it a name in rlkit/rllib/: " + ", ".join(found)


def test_the_rule_sees_reads_overrides_and_imports(tmp_path: Path) -> None:
    assert {"_env_to_module", "_try_env_step", "_ongoing_episodes"} <= names_of_ray()
    assert "_try_env_step" in names_of_bases("rlkit.algos.sampling.array_runner", "ArrayEnvRunner")
    assert "_forward_train" not in {name for _, name in uses(ROOT / "rlkit/algos/dron.py")}


def test_the_package_brings_no_ray() -> None:
    code = "import sys; from rlkit import rllib; rllib.add_callbacks; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
