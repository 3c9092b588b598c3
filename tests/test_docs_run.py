"""The documentation's Python and commands, run: page after page, in a folder with short runs of the names it uses.

The tutorial's files have a test of their own in test_docs.py. Commands of other programs (`make`, `git`,
`python benchmarks/…`) are not run here; `make bench-smoke` starts the benchmarks.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import BLOCKS, COMMANDS, INLINE, LINKED, PAGES, ROOT, Block, text_of

import rlkit
from rlkit.cli import process

TINY = {"stop": {"iterations": 1}, "evaluation": {"every": 1, "episodes": 2}}
TRAINED = ("dqn_cartpole", "sac_pendulum", "maddpg_spread")
STAMP = "2026-01-01_00-00-00"  # of docs/cluster.md
# What a page writes, and what is run: fewer steps and seeds, files of the folder.
SHORTER = {
    "50_000": "500",
    "60_000": "1_000",
    "grid_search([0, 1, 2])": "grid_search([0])",
    "episodes=100": "episodes=2",
}
FILES = {
    "s3://bucket": "shared",
    "/shared/runs": "shared/runs",
    "runs/…": "runs/dqn_cartpole",
    "RUN…": "RUN",
    "RECIPE…": "RECIPE",
}
NAMES = {
    "RUN": "runs/dqn_cartpole", "CHECKPOINT": "runs/dqn_cartpole", "KIND": "envs", "RECIPE": "my.yaml",
    "FILE": "my.yaml", "zoo/NAME": "zoo/ppo_cartpole",
}  # fmt: skip
READ_ONLY = ("list", "show", "check", "runs", "plot", "compare", "report", "evaluate", "export")
MORE = {"evaluate": ["--episodes", "2"], "report": ["--no-videos"], "train": ["--dry-run"]}


@pytest.fixture(scope="module")
def folder(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes, runs and modules under the names that the pages use."""
    made = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "configs", made / "configs")
    short = (ROOT / "configs" / "dqn_cartpole.yaml").read_text().split("stop:")[0]
    short += "stop: {iterations: 1}\nevaluation: {every: 1, episodes: 2}\n"
    for name in ("configs/dqn_cartpole.yaml", "my.yaml", "recipe.yaml", "cartpole.yaml"):
        (made / name).write_text(short)
    for name in TRAINED:
        rlkit.train(name, TINY, out=made / "runs")
    run = rlkit.open_run(made / "runs" / "dqn_cartpole").path
    for name in ("dron_styles", "bc_cartpole", "ppo_cartpole", "second"):
        shutil.copytree(run, made / "runs" / name / run.name)
    shutil.copytree(run, made / "shared" / "runs" / "my" / STAMP)
    model = next(b for b in BLOCKS if b.body.startswith("# my_model.py"))
    (made / "my_model.py").write_text(model.body)
    return made


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def replaced(text: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        text = text.replace(old, new)
    return text


def words_of(line: str) -> list[str]:
    """A documented command as it is run here."""
    words = shlex.split(replaced(re.sub(r" --address \S+| \[KEY=VALUE…\]", "", line), FILES))
    for number, word in enumerate(words):
        words[number] = (
            "runs/second" if word == "RUN" and "RUN" in line.split()[:number] else NAMES.get(word, word)
        )
    more = MORE.get(words[1], [])
    return [*words, *(["--episodes", "1"] if "--video" in words else more)]


def run(line: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    """Run a command in this process, beside the Ray that runs already."""
    monkeypatch.setattr(sys, "argv", words_of(line))
    with pytest.raises(SystemExit) as left:
        process.main()
    assert (left.value.code or 0) == code, line


def run_python(block: Block, names: dict[str, Any]) -> None:
    code = compile("\n" * block.line + replaced(block.body.replace("…", "..."), SHORTER), str(block), "exec")
    exec(code, names)
    if "algorithm" in names:
        names.pop("algorithm").stop()


def runnable(page: str) -> list[Block]:
    """The blocks of a page; of the tutorial those before its files, whose commands test_docs.py runs."""
    found = [block for block in BLOCKS if block.page == page]
    if page == "docs/tutorial.md":
        found = found[: next(i for i, block in enumerate(found) if block.title)]
    return [block for block in found if block.lang in ("python", "sh") and not block.title]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_the_blocks_of_a_page_run(page: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; the names of one block are there in the next. Trainings are dry runs.

    A Python block that begins with a file's name is that file. `--resume` goes with no dry run.
    """
    if page == "docs/environments.md":
        pytest.importorskip("vmas", reason="the extra vmas")
    names: dict[str, Any] = {"__name__": "page"}
    for block in runnable(page):
        if block.lang == "python":
            if not block.body.startswith("# my_model.py"):
                run_python(block, names)
            continue
        for line in (line for owner, line in COMMANDS if owner == block):
            if "--resume" in line:
                continue
            if line.startswith("rlkit "):
                run(line, monkeypatch)
            else:
                assert line.split()[0] in ("pip", "git", "make", "python", "."), line


def complete(line: str) -> bool:
    """True for a command in the text that looks at runs or recipes, and names them."""
    words = line.split()
    if (
        words[0] != "rlkit"
        or words[1] not in READ_ONLY
        or {"--versus", "clean"} & {*words}
        or "--seed RECIPE" in line
    ):
        return False
    return words[1:] == ["runs"] or (len(words) > 2 and not words[2].startswith("--"))


# A command that several pages name is run once; a film of the zoo is made in the blocks of docs/export.md.
TEXT = {tuple(words_of(line)): line for _, line in INLINE if complete(line) and ".gif" not in line}


@pytest.mark.parametrize("line", sorted(TEXT.values()))
def test_a_command_in_the_text_runs(
    line: str, there: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run(line, monkeypatch)
    assert capfd.readouterr().out.strip(), line


def test_the_errors_that_the_page_shows_are_those_of_its_recipe(
    there: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    block = next(b for b in BLOCKS if b.page == "docs/recipe.md" and b.body.startswith("$ cat broken.yaml"))
    _, file, shown = re.split(r"^\$ .+\n", block.body, flags=re.M)
    (there / "broken.yaml").write_text(file)
    run("rlkit check broken.yaml", monkeypatch, code=2)
    said = capfd.readouterr()
    assert [line for line in shown.splitlines() if line not in said.out + said.err] == []


# Links out of the documentation ------------------------------------------------------------------------


def status(url: str) -> int | str:
    """The HTTP status of a page, or why there is none."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "Mozilla/5.0 (links of rlkit's documentation)"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)


def dead(urls: set[str]) -> dict[str, int | str]:
    """Links that lead nowhere. A page that turns programs away (401, 403, 405, 429) is there."""
    found = {url: status(url) for url in sorted(urls)}
    return {url: said for url, said in found.items() if said not in (200, 401, 403, 405, 429)}


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_dead_link_is_found(server: str) -> None:
    assert dead({f"{server}/200", f"{server}/404", f"{server}/403"}) == {f"{server}/404": 404}


@pytest.mark.slow
def test_external_links_answer() -> None:
    pages = "\n".join(text_of(page) for page in LINKED)
    urls = {url for url in re.findall(r"\]\((https?://[^)\s#]+)", pages) if "rlkit-rllib" not in url}
    assert len(urls) > 10
    try:
        socket.create_connection(("docs.ray.io", 443), timeout=10).close()
    except OSError as error:
        pytest.skip(f"no network: {error}")
    assert dead(urls) == {}
