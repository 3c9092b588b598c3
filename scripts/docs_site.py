"""Hooks of mkdocs (mkdocs.yml): pages from the repository's top, references, links that hold on both sides.

Pages are written for a reader on GitHub. Here they become a site:

- README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are pages of it, README.md the first one;
- `<!-- reference: options DQN -->` is replaced by what `scripts/docs_reference.py` makes of it;
- a link to a file that is no page (source, recipes) leads to the repository. A link to nothing is a warning, which
  `mkdocs build --strict` takes for an error;
- a page asks nobody else for anything: the theme would ask GitHub for the repository's stars.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docs_reference
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
       "SECURITY.md": "security-policy.md"}  # fmt: skip
PACKAGES = ("rlkit", "rlkit.algos", "rlkit.callbacks", "rlkit.curriculum", "rlkit.envs", "rlkit.exploration",
            "rlkit.models", "rlkit.replay")  # fmt: skip
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
# A link whose text is a file's name: the name of the page is enough.
NAMED = re.compile(r"\[(?:docs/)?([\w-]+)\.md\]\(")
FENCE = re.compile(r"^(```+).*?^\1\s*?$", re.M | re.S)
MARKER = re.compile(r"^<!-- reference: (.+?) -->$", re.M)
log = logging.getLogger("mkdocs.hooks.rlkit")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, page in TOP.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=docs_reference.api(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Fill in references and turn links."""
    name = page.file.src_uri
    origin = next((source for source, target in TOP.items() if target == name), f"docs/{name}")
    markdown = MARKER.sub(lambda found: docs_reference.reference(found[1]), markdown)
    turn = turner(origin, name, config["repo_url"])
    return outside_code(markdown, lambda text: LINK.sub(turn, NAMED.sub(r"[\1](", text)))


def on_post_page(output: str, **more: Any) -> str:
    """Leave the link to the repository a link."""
    return output.replace(' data-md-component="source"', "")


def on_post_template(output_content: str, **more: Any) -> str:
    """The same for 404.html."""
    return on_post_page(output_content)


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Apply a function to what is not in a fenced block."""
    parts, at = [], 0
    for block in FENCE.finditer(markdown):
        parts += [change(markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, change(markdown[at:])])


def turner(origin: str, page: str, repository: str) -> Callable[[re.Match[str]], str]:
    """Return the replacement for a link on a page.

    Args:
        origin: the page's file in the repository, `docs/recipe.md`.
        page: its name on the site, `recipe.md`.
        repository: address of the repository.
    """

    def turn(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not (ROOT / path).exists():
            log.warning("%s links to %s, which does not exist", origin, target)
            return found[0]
        if path in TOP or path.startswith("docs/"):
            place = TOP.get(path, path.removeprefix("docs/"))
            return os.path.relpath(place, posixpath.dirname(page) or ".") + anchor
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{repository}/{kind}/main/{path}{anchor}"

    return turn
