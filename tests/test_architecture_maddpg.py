"""MADDPG stays small enough to read: its files and their layers, and one name, default and text for every option."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.algos.centralised.options import MADDPGOptions
from rlkit.algos.options import descriptions

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "maddpg.md").read_text(encoding="utf-8")
CENTRALISED = ROOT / "rlkit" / "algos" / "centralised"


def section(title: str) -> str:
    """The text of a section of the documentation."""
    found = re.search(rf"^## {title}\n(.*?)^## ", DOCS, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def imports_of(path: Path) -> set[str]:
    """What a file imports of rlkit, wherever the statement stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name.startswith("rlkit.")}


def test_an_update_and_its_networks_are_five_files_and_1300_lines() -> None:
    named = re.findall(r"^\| `(rlkit/[\w/]+\.py)` \|", section("Reading the code"), re.MULTILINE)
    assert 0 < len(named) <= 5
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in named}
    assert sum(lines.values()) <= 1300, lines


def test_an_update_is_one_method_in_the_order_of_the_docs() -> None:
    from rlkit.algos.maddpg import MADDPGLearner

    code = inspect.getsource(MADDPGLearner.update)
    order = ["td_targets(", "critic_losses(", "actor_losses(", "move_targets()"]
    places = [code.index(step) for step in order]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["inferred", "ensembles"])
def test_extensions_are_known_to_the_config_alone(name: str) -> None:
    files = [*(ROOT / "rlkit" / "algos").rglob("*.py")]
    users = [path for path in files if f"rlkit.algos.centralised.{name}" in imports_of(path)]
    assert users == [CENTRALISED / "config.py"]
    words = {"inferred": r"infer_policies|inferred", "ensembles": r"ensemble"}[name]
    own = {f"{name}.py", "options.py", "config.py"}
    for path in files:
        if path.name not in own:
            assert not re.search(words, path.read_text(encoding="utf-8"), re.IGNORECASE), path


def test_nothing_below_the_essay_imports_it() -> None:
    for path in CENTRALISED.glob("*.py"):
        assert "rlkit.algos.maddpg" not in imports_of(path), path


def test_options_need_neither_ray_nor_torch() -> None:
    code = "import sys, rlkit.algos.centralised.options; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_the_signature_and_its_documentation_are_those_of_the_options() -> None:
    from rlkit.algos import MADDPGConfig, MATD3Config

    parameters = inspect.signature(MADDPGConfig.training).parameters
    assert [*parameters] == ["self", *MADDPGOptions.model_fields, "kwargs"]
    documented = inspect.getdoc(MADDPGConfig.training) or ""
    config, other = MADDPGConfig(), MATD3Config()
    for name, value in MADDPGOptions():
        assert re.search(rf"^    {name}: \w|^    {name}: [`{{(]", documented, re.MULTILINE), name
        assert getattr(config, name) == value
    changed = {name for name, value in MADDPGOptions() if getattr(other, name) != value}
    assert changed == {"twin_q", "policy_delay", "target_noise"}


def test_an_unknown_option_is_refused_and_rllibs_are_taken() -> None:
    from rlkit.algos import MADDPGConfig

    with pytest.raises(TypeError, match="twin_qs"):
        MADDPGConfig().training(twin_qs=True)
    config = MADDPGConfig().training(gamma=0.9, num_epochs=1, overlap_sampling=False, tau=0.5)
    assert (config.gamma, config.num_epochs, config.overlap_sampling, config.tau) == (0.9, 1, False, 0.5)


def test_the_table_of_options_in_the_docs_is_that_of_the_options() -> None:
    rows, told = [], descriptions(MADDPGOptions)
    for name, default in MADDPGOptions():
        text = " ".join(told[name].split())
        rows.append(f"| `{name}` | {json.dumps(default)} | {text.removesuffix('.')} |")
    table = "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])
    assert table in DOCS, f"docs/maddpg.md must hold\n{table}"
