"""README.md and docs/: every fenced block is tried, every link leads somewhere, references are made.

A block's language says what is tried: `yaml` is checked as a recipe; in `sh` commands, options and files must exist,
and overrides of a shipped recipe are checked; `python` compiles, and its imports from rlkit exist. Blocks with a title
are the tutorial's files: its test writes them and runs the commands, one training shortened to one iteration and the
others as dry runs. tests/test_docs_run.py runs the other blocks and commands.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import BLOCK, BLOCKS, COMMANDS, INLINE, LINKED, PAGES, ROOT, Block, text_of

from rlkit import recipe, registry
from rlkit.cli import app, process
from rlkit.recipe.shipped import shipped

LANGUAGES = {"sh", "yaml", "python", "text"}
# What a page's fragments are part of, where PPO on CartPole-v1 is not it.
CONTEXT = {
    "docs/off-policy.md": "algorithm: MADDPG\nenv: pettingzoo/mpe2.simple_spread_v3\n",
    "docs/maddpg.md": "algorithm: MADDPG\nenv: pettingzoo/mpe2.simple_tag_v3\n",
    "docs/curriculum.md": "env: soccer_two\n",
    "docs/ppo.md": "env: pettingzoo/mpe2.simple_spread_v3\n",
}
REST = {"algorithm": "PPO", "env": "CartPole-v1", "stop": "{iterations: 100}"}


def test_every_block_is_of_a_language_that_is_tried() -> None:
    assert len(BLOCKS) > 80
    assert [str(block) for block in BLOCKS if block.lang not in LANGUAGES] == []
    for page in PAGES:
        outside = BLOCK.sub("", text_of(page))
        assert "```" not in outside, page
        assert not re.search(r"(^#.*|^)\n    \S", outside, re.M), (
            f"{page}: an indented block, which nothing tries"
        )


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.lang == "yaml" and not b.title], ids=str)
def test_a_yaml_block_is_a_recipe(block: Block) -> None:
    """Or becomes one with the keys that its page takes for granted."""
    registry.register_model("mine", lambda observation_space, features=128: None)
    text = block.body
    keys = re.findall(r"^(\w+):", text, re.M)
    if block.page == "docs/curriculum.md" and keys[0] == "lessons":
        text = "curriculum:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    for line in (CONTEXT.get(block.page, "") if "env" not in keys else "").splitlines():
        text += "" if line.split(":")[0] in keys else f"{line}\n"
    for key, value in REST.items():
        text += "" if re.search(rf"^{key}:", text, re.M) else f"{key}: {value}\n"
    recipe.loads(text)


def options_of(words: list[str]) -> tuple[set[str], list[str]]:
    """Return the options of the command that words begin with, and the words behind it."""
    from typer.main import get_command

    group: Any = get_command(app)
    while words and words[0] in getattr(group, "commands", {}):
        group, words = group.commands[words[0]], words[1:]
    return {flag for param in group.params for flag in (*param.opts, *param.secondary_opts)} | {
        "--help"
    }, words


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda value: str(value) if isinstance(value, tuple) else None
)
def test_a_command_exists(command: tuple[Block, str]) -> None:
    block, line = command
    words = shlex.split(line.replace("…", "x"))
    if words[0] == "rlkit":
        known, rest = options_of(words[1:])
        assert len(rest) < len(words) - 1 or words[1].startswith("--"), f"{block}: no command {words[1]!r}"
        given = [word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
        assert set(given) <= known, f"{block}: {line}"
        if (
            words[1] in ("train", "check", "show")
            and "=" in line
            and "--import" not in line
            and rest[0] in RECIPES
        ):
            overrides = [word for word in rest[1:] if "=" in word and not word.startswith("data=")]
            assert recipe.check([RECIPES[rest[0]]], overrides=overrides) == []
        if words[1] in ("train", "check") and rest and not rest[0].startswith("-") and "RECIPE" not in line:
            local = {b.title for b in BLOCKS if b.page == block.page} | {"recipe.yaml", "broken.yaml"}
            assert rest[0] in RECIPES or rest[0] in local or "my" in rest[0], (
                f"{block}: no recipe {rest[0]!r}"
            )
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line
    elif words[0] in ("python", "pytest"):
        file = next(word for word in words[1:] if not word.startswith("-"))
        assert (ROOT / file).exists() or file in {b.title for b in BLOCKS if b.page == block.page}, line
    else:
        assert words[0] in ("pip", "git", ".", "tensorboard"), line


def test_a_command_in_the_text_exists() -> None:
    assert len(INLINE) > 150
    for page, line in INLINE:
        words = shlex.split(re.sub(r"\[KEY=VALUE…\]", "", line))
        if words[0] == "python":
            file = next(word for word in words[1:] if word != "-m")
            assert file.startswith("rl_zoo3.") or (ROOT / file).exists(), f"{page}: {line}"
        elif not words[1].startswith(("-", "…", "COMMAND")):
            known, rest = options_of(words[1:])
            assert len(rest) < len(words) - 1, f"{page}: no command {words[1]!r}"
            given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            assert given <= known, f"{page}: {line}"


RECIPES = {str(name): path for name, path in shipped().items()}
RECIPES |= {f"configs/{path.name}": path for path in (ROOT / "configs").glob("*.yaml")}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.lang == "python"], ids=str)
def test_a_python_block_compiles_and_its_imports_exist(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse(block.body.replace("…", "..."), str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlkit"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module} has no {alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rlkit":
            assert hasattr(importlib.import_module("rlkit"), node.attr), f"{block}: rlkit.{node.attr}"


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", LINKED)
def test_links_and_anchors_of_a_page_exist(page: str) -> None:
    for target, anchor in re.findall(
        r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", BLOCK.sub("", text_of(page))
    ):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        # Its headings come when the site is built; strict mkdocs looks there.
        generated = path.name == "recipe-reference.md"
        if anchor and not generated:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT))), f"{page}: {target}#{anchor}"


# The site ------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("docs_reference")


def test_every_page_has_a_place_on_the_site() -> None:
    placed = re.findall(r"^ *- ([\w./-]+\.md)$", text_of("mkdocs.yml"), re.M)
    top = {"index.md", "contributing.md", "changelog.md", "security-policy.md"}
    assert sorted(name for name in placed if "/" not in name and name not in top) == sorted(
        page.removeprefix("docs/") for page in PAGES[1:]
    )


def test_references_that_pages_ask_for_can_be_made(reference: Any) -> None:
    asked = [
        words for page in PAGES for words in re.findall(r"^<!-- reference: (.+?) -->$", text_of(page), re.M)
    ]
    assert len(asked) >= 8
    for words in asked:
        assert len(reference.reference(words)) > 200, words


def test_the_reference_of_commands_names_every_command_and_option(reference: Any) -> None:
    text = reference.commands()
    for words in (["train"], ["evaluate"], ["compare"], ["runs"], ["runs", "clean"], ["migrate"]):
        section = text.split(f"### `rlkit {' '.join(words)}`\n")[1].split("\n### ")[0]
        for flag in options_of(words)[0] - {"--help"}:
            assert not flag.startswith("-") or f"`{flag}`" in section, f"rlkit {' '.join(words)} {flag}"


def test_the_reference_of_recipes_names_every_key_type_default_and_bound(reference: Any) -> None:
    text = reference.recipe()
    schema = recipe.json_schema()
    for name in [*schema["properties"], *schema["$defs"]["Tune"]["properties"]]:
        assert f"| `{name}` |" in text, name
    dqn = text.split("### `training` of `DQN`\n")[1].split("\n### ")[0]
    assert "| `gamma` | number ≥ 0 ≤ 1 | `0.99` | Float specifying the discount factor" in dqn
    assert "| `grad_clip_by` | `value`, `norm`, `global_norm` | `global_norm` |" in dqn
    assert "hiddens" not in dqn, "RLlib ignores it, so a recipe may not say it"


@pytest.mark.parametrize(
    "package",
    [
        "rlkit",
        "rlkit.algos",
        "rlkit.callbacks",
        "rlkit.curriculum",
        "rlkit.envs",
        "rlkit.exploration",
        "rlkit.models",
    ],
)
def test_the_python_api_shows_what_a_package_exports(reference: Any, package: str) -> None:
    module = importlib.import_module(package)
    shown = reference.public_names(package)
    assert set(shown) == {
        name for name in module.__all__ if not name.startswith("__") and not name.isupper()
    } | {name for name in shown if name.isupper()}
    for name, path in shown.items():
        where, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(where), attribute) is getattr(module, name), path


def test_links_become_links_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    site = importlib.import_module("docs_site")
    where = "https://example.org/rlkit"

    def turned(origin: str, page: str, text: str) -> str:
        return site.LINK.sub(site.turner(origin, page, where), text)

    assert turned("README.md", "index.md", "[r](docs/recipe.md#tune)") == "[r](recipe.md#tune)"
    assert (
        turned("docs/dqn.md", "dqn.md", "[s](../rlkit/algos/dqn.py)")
        == f"[s]({where}/blob/main/rlkit/algos/dqn.py)"
    )
    assert (
        turned("docs/dqn.md", "dqn.md", "[c](../CONTRIBUTING.md#a-model)") == "[c](contributing.md#a-model)"
    )
    assert turned("docs/dqn.md", "dqn.md", "[p](https://example.org)") == "[p](https://example.org)"
    fenced = "```text\n[s](../rlkit)\n```\n"
    assert site.outside_code(fenced, lambda text: site.LINK.sub("x", text)) == fenced


def test_the_link_to_the_repository_asks_github_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The theme's script asks for stars wherever it finds its mark, which the site's hooks take out."""
    material = pytest.importorskip("material", reason="the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    site = importlib.import_module("docs_site")
    link = (Path(material.__file__).parent / "templates" / "partials" / "source.html").read_text()
    assert "data-md-component" in link
    for found in (site.on_post_page(link, page=None, config=None), site.on_post_template(link)):
        assert "data-md-component" not in found
        assert 'href="{{ config.repo_url }}"' in found


# The tutorial --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; modules that the tutorial brings are forgotten after it."""
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command in this process, beside the Ray that runs already; return what it printed."""
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        process.main()
    said = capfd.readouterr()
    assert left.value.code in (0, None), f"{words}: {said.err}"
    return said.out


SHORT = ["stop={env_steps: 1024}", "evaluation={every: 1, episodes: 2}"]


def test_the_tutorial_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From its empty folder on: all files, all commands. Of the four trainings one is run, the others are dry runs."""
    blocks = [block for block in BLOCKS if block.page == "docs/tutorial.md"]
    first = next(i for i, block in enumerate(blocks) if block.title)
    said: dict[str, str] = {}
    for block in blocks[first:]:
        if block.title:
            (folder / block.title).write_text(block.body)
    for line in (line for block in blocks[first:] if block.lang == "sh" for line in block.body.splitlines()):
        words = shlex.split(line)
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            said[line] = capfd.readouterr().out
            continue
        if words[1] == "train":
            kept = [word for word in words if not word.startswith(("stop=", "evaluation", "tune."))]
            words = [*kept, *SHORT, *([] if words[2] == "lessons.yaml" and len(kept) == 5 else ["--dry-run"])]
        words += {"evaluate": ["--episodes", "3"], "report": ["--no-videos"]}.get(words[1], [])
        if words[1] == "train" and "--dry-run" not in words:
            # In a process of its own, with the Ray it starts: the trial finds the callback's class by its module.
            env = {**os.environ, "RAY_ADDRESS": ""}
            command = [sys.executable, "-m", *words]
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            said[line] = done.stdout
        else:
            said[line] = run(words, monkeypatch, capfd)
        if words[1] == "train" and "--dry-run" not in words:
            for copy in ("with_lessons", "without"):
                shutil.copytree("runs/lessons", f"runs/{copy}")
    assert said["rlkit check bridge.yaml --import parts.py"] == "1 recipe ok\n"
    assert "status     done" in said["rlkit train lessons.yaml --import parts.py"]
    assert "custom/planks" in next(folder.glob("runs/lessons/*/metrics.csv")).read_text().splitlines()[0]
    assert "3 episodes" in said["rlkit evaluate runs/lessons --import parts.py --episodes 100"]
    assert re.fullmatch(r"\d+ planks, (across|fallen)\n", said["python act.py"])
    assert (folder / "bridge.png").stat().st_size > 10_000
    assert "with_lessons" in (folder / "report.html").read_text()


def test_the_tutorial_s_recipes_are_those_it_compares() -> None:
    """The lessons' recipe is the plain one with a model, a callback and a curriculum, as the text says."""
    titled = {b.title: yaml.safe_load(b.body) for b in BLOCKS if b.title and b.lang == "yaml"}
    plain, lessons = titled["bridge.yaml"], titled["lessons.yaml"]
    added = {"model", "callbacks", "curriculum", "name"}
    assert {k: v for k, v in lessons.items() if k not in added} == {
        k: v for k, v in plain.items() if k != "name"
    }
