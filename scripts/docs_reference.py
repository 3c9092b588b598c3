"""References for the documentation site, as Markdown: from the JSON Schema, the commands and the registry.

`scripts/docs_site.py` puts them into the pages when the site is built, so that none of them is committed or goes stale.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).parents[1]
ANY_SPACE = "a search space"
Schema = Mapping[str, Any]


@cache
def schema() -> dict[str, Any]:
    from rlkit.recipe import json_schema

    return json_schema()


def resolved(node: Schema) -> Schema:
    """Return what a reference stands for."""
    return schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def alternatives(node: Schema) -> list[Schema]:
    """Return the values a schema takes, without search spaces, which fit anywhere."""
    found = []
    for part in node.get("anyOf", node.get("oneOf", [node])):
        if not str(part.get("description", "")).startswith(ANY_SPACE):
            nested = "anyOf" in part or "oneOf" in part
            found += alternatives(part) if nested and part is not node else [part]
    return found


def kind(node: Schema) -> str:
    """Say in words what values a schema takes."""
    words = [_kind(part) for part in alternatives(node)]
    return ", or ".join(dict.fromkeys(words))


def _kind(node: Schema) -> str:
    if "$ref" in node:
        target = resolved(node)
        return f"mapping of {code(*target['properties'])}" if target.get("properties") else "mapping"
    if "const" in node or "enum" in node:
        return code(*node.get("enum", [node.get("const")]))
    bounds = [
        f"{word} {node[key]:,}"
        for key, word in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in node
    ]
    what = node.get("type", "anything")
    if what == "array":
        items = node.get("items", {})
        if items.get("prefixItems"):
            return "schedule `[[env step, value], …]`"
        return f"list of: {kind(items)}" if items else "list"
    names = {"object": "mapping", "boolean": "true or false", "null": "null", "string": "text"}
    return " ".join([names.get(what, what), *bounds])


def code(*values: Any) -> str:
    return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in values)


def default(node: Schema, required: bool) -> str:
    if required:
        return "required"
    if "default" not in node:
        return "–"
    value = node["default"]
    if "$ref" in node:
        return "see below"
    return code(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)


def sentence(text: str) -> str:
    """Return a description on one line, ready for a cell of a table."""
    line = " ".join(text.split()).replace("<", "&lt;")
    return "`".join(part if i % 2 else part.replace("|", "\\|") for i, part in enumerate(line.split("`")))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("\n", " ") or " " for cell in row) + " |" for row in lines
    )


def properties(node: Schema) -> str:
    """Return the table of a mapping's keys."""
    required = node.get("required", ())
    rows = [
        (f"`{name}`", kind(value), default(value, name in required), sentence(value.get("description", "")))
        for name, value in node.get("properties", {}).items()
    ]
    return table(("key", "value", "default", "what it means"), rows) if rows else "No options."


def algorithms() -> dict[str, Schema]:
    """Return {algorithm: schema of its section `config`}."""
    found = {}
    for rule in schema()["allOf"]:
        name = rule["if"]["properties"]["algorithm"]["const"]
        found[name] = resolved(rule["then"]["properties"]["config"])
    return found


def options(algorithm: str) -> str:
    """Return the table of `config: {training: …}` of one algorithm."""
    return properties(resolved(algorithms()[algorithm]["properties"]["training"]))


def method(name: str) -> str:
    """Return one table for a method of all algorithms; what differs between them is said in the cell."""
    found = {a: resolved(c["properties"][name]) for a, c in algorithms().items() if name in c["properties"]}
    rows = []
    for argument in sorted({key for node in found.values() for key in node.get("properties", {})}):
        own = {a: node["properties"][argument] for a, node in found.items() if argument in node["properties"]}
        common = next(iter(own.values()))
        values: dict[str, list[str]] = {}
        for algorithm, node in own.items():
            values.setdefault(default(node, False), []).append(algorithm)
        ranked = sorted(values.items(), key=lambda item: -len(item[1]))
        cells = [ranked[0][0], *(f"{', '.join(who)}: {value}" for value, who in ranked[1:])]
        only = "" if len(own) == len(found) else f"{', '.join(own)} only. "
        meaning = only + sentence(common.get("description", ""))
        rows.append((f"`{argument}`", kind(common), "; ".join(cells), meaning))
    return table(("argument", "value", "default", "what it means"), rows)


def named(key: str, word: str) -> str:
    """Return a table for each registered name of `model`, `exploration` or `callbacks`."""
    node = schema()["properties"][key]
    parts = [resolved(part) for part in (node.get("items") or node)["anyOf"]]
    out = []
    for part in parts:
        name = part["properties"].get(word, {}).get("const")
        if name is not None:
            rest = {k: v for k, v in part["properties"].items() if k != word}
            out.append(f"#### `{name}`\n\n{summary(key, name)}\n\n{properties({'properties': rest})}")
    return "\n\n".join(out)


def summary(key: str, name: str) -> str:
    from rlkit.registry import TABLES

    return sentence(TABLES[{"model": "models", "exploration": "explorations"}.get(key, key)][name].summary)


def recipe() -> str:
    """Return the whole reference of a recipe."""
    top = schema()
    below = {key: {"type": f"see [below](#{key})"} for key in ("model", "exploration")}
    below["callbacks"] = {"type": "array", "items": {"type": "see [below](#callbacks)"}}
    keys = {
        key: {"description": node["description"], **below.get(key, node)}
        for key, node in top["properties"].items()
    }
    parts = ["## Keys", properties({**top, "properties": keys})]
    for title, name in (
        ("policies", "PolicySection"), ("evaluation", "EvaluationSection"), ("checkpoint", "Checkpoint"),
        ("tune", "Tune"),
    ):  # fmt: skip
        parts += [f"### `{title}`", properties(top["$defs"][name])]
    parts += [
        "## `config`",
        "One key per method of RLlib's AlgorithmConfig, below it the method's arguments.",
    ]
    names = list(dict.fromkeys(key for node in algorithms().values() for key in node["properties"]))
    parts += [text for name in names if name != "training" for text in (f"### `{name}`", method(name))]
    for name in algorithms():
        parts += [f"### `training` of `{name}`", options(name)]
    fields = [
        d for d in map(resolved, top["properties"]["model"]["anyOf"]) if "fcnet_hiddens" in d["properties"]
    ]
    parts += [
        "## `model`",
        "RLlib's own network, by the fields of its DefaultModelConfig:",
        properties(fields[0]),
    ]
    parts += ["### Registered models", named("model", "name")]
    parts += ["## `exploration`", named("exploration", "type"), "## `callbacks`", named("callbacks", "name")]
    return "\n\n".join(parts)


def registered(table_name: str) -> str:
    """Return the names of a registry's table, as `rlkit list` prints them."""
    from rlkit.registry import TABLES

    rows = [(f"`{name}`", sentence(entry.summary)) for name, entry in sorted(TABLES[table_name].items())]
    return table(("name", "what it is"), rows)


def commands() -> str:
    """Return every command with its arguments and options."""
    from typer.main import get_command

    from rlkit.cli import app

    found: list[str] = []
    group: Any = get_command(app)

    def walk(command: Any, words: str) -> None:
        inner = getattr(command, "commands", {})
        if not inner or getattr(command, "invoke_without_command", False):
            found.append(_command(command, words))
        for name, child in inner.items():
            walk(child, f"{words} {name}")

    walk(group, "rlkit")
    return "\n\n".join(found)


def _command(command: Any, words: str) -> str:
    params = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p.metavar or p.name.upper() for p in params if p.param_type_name == "argument"]
    rows = []
    for param in params:
        if param.param_type_name != "option":
            continue
        names = ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts))
        value = "" if param.is_flag else f"`{param.metavar or _typed(param)}`"
        start = param.default() if callable(param.default) else param.default
        given = "" if start in (None, False, [], ()) or param.required else code(str(start))
        rows.append(
            (names, value, given or ("required" if param.required else "–"), sentence(param.help or ""))
        )
    usage = " ".join([words, *arguments, *(["[OPTIONS]"] if rows else [])])
    text = (command.help or "").strip()
    head = ("option", "value", "default", "what it does")
    return f"### `{words}`\n\n```text\n{usage}\n```\n\n{text}\n\n" + (table(head, rows) if rows else "")


def _typed(param: Any) -> str:
    """Return what stands for the value of an option that names none."""
    annotation = param.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(get_args(annotation))
    return {int: "N", Path: "PATH", float: "X"}.get(annotation, "TEXT")


def deviations(module: str) -> str:
    """Return the numbered list of deviations in the docstring of a module."""
    text = (
        ast.get_docstring(ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text())) or ""
    )
    found = re.search(r"Deviations[^:\n]*:\n\n?(1\. .*?)(?=\n\n|\Z)", text, re.S)
    if found is None:
        raise KeyError(f"{module} numbers no deviations in its docstring")
    return found[1]


def public_names(package: str) -> dict[str, str]:
    """Return {name: dotted path of its definition} of a package, read from its `__init__.py`."""
    folder = ROOT / Path(*package.split("."))
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse((folder / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            found |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "lazy_names"
            and len(node.args) == 2
        ):
            where = node.args[1]
            pairs = zip(where.keys, where.values, strict=True) if isinstance(where, ast.Dict) else ()
            for key, value in pairs:
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    found[str(key.value)] = f"rlkit.{value.value}.{key.value}"
    if package == "rlkit.exploration":
        from rlkit.registry import TABLES

        found |= {name: f"{entry.module}.{name}" for name, entry in TABLES["explorations"].items()}
    return {name: path for name, path in sorted(found.items()) if not name.isupper()}


def api(package: str) -> str:
    """Return the page of a package's Python API; mkdocstrings fills it."""
    lines = [f"::: {path}\n    options:\n      heading_level: 2" for path in public_names(package).values()]
    text = (
        ast.get_docstring(ast.parse((ROOT / Path(*package.split(".")) / "__init__.py").read_text())) or ""
    ).split("\n\n")
    intro = text[0].replace("\n", " ")
    return f"# {package}\n\n{intro}\n\n" + "\n\n".join(lines) + "\n"


REFERENCES: dict[str, Callable[..., str]] = {
    "recipe": recipe, "commands": commands, "options": options, "registered": registered,
    "deviations": deviations,
}  # fmt: skip


def reference(words: str) -> str:
    """Return the reference that a page asks for, such as `options DQN` or `commands`.

    Raises:
        KeyError: for a reference, or a name in it, that does not exist.
    """
    name, *arguments = words.split()
    return REFERENCES[name](*arguments)
