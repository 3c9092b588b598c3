"""`make look`: opens pages in a real Chromium, and fails on what a reader would see go wrong.

    python scripts/look.py FOLDER PAGE…     # screenshots go to FOLDER

Each page is opened at the widths of phones and of a large screen, light, dark and for the printer. An error or a
warning in the console, a request for anything but a file of this machine, a picture or a film that does not load, and
a page that is wider than the screen are told; the exit code is then 1. A report is opened as the file it is. A page
below build/site gets an address, whose files are read from there: Chromium runs no search worker of a file.
Needs playwright, and Chromium in the PATH, in $CHROMIUM, or from `playwright install chromium`.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = (390, 400, 1600)
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "print": {"color_scheme": "light", "media": "print"},
}
PAPER = 794  # CSS pixels of an A4 sheet: a print has no other width
HIGHEST = 16_000  # pixels of a picture: Chromium draws no more
SITE, ADDRESS = Path("build/site"), "http://site.test/"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Plays what is there, and returns what is broken and by how much the page is too wide.
JUDGE = """async () => {
  const bad = [];
  for (const image of document.images)
    if (!image.complete || image.naturalWidth === 0) bad.push(`a picture without pixels: ${image.alt}`);
  for (const film of document.querySelectorAll("video")) {
    film.muted = true;
    try { await film.play(); } catch (error) { bad.push(`a film that does not play: ${error.message}`); continue; }
    const start = film.currentTime;
    for (let tries = 0; tries < 100 && film.currentTime === start && !film.ended; tries++)
      await new Promise(next => setTimeout(next, 50));
    if (film.currentTime === start && !film.ended) bad.push("a film that stands still");
    film.pause();
  }
  const extra = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (extra > 0) bad.push(`the page is ${extra} pixels wider than the screen`);
  return bad;
}"""


def chromium() -> str | None:
    """The browser to start; None for playwright's own."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def look(browser: Browser, file: Path, name: str, width: int, kind: str, out: Path) -> list[str]:
    """Open a page in one way, write its picture, and return what is wrong."""
    found: list[str] = []
    tall = 844 if width < 1000 else 1000
    context = browser.new_context(viewport={"width": PAPER if kind == "print" else width, "height": tall})
    page: Page = context.new_page()
    page.emulate_media(**LOOKS[kind])

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            found.append(f"console: {message.text}")

    def serve(route: Any) -> None:
        path = SITE / urllib.parse.unquote(urllib.parse.urlsplit(route.request.url).path.lstrip("/"))
        path = path / "index.html" if path.is_dir() else path
        if path.is_file():
            route.fulfill(path=path)
        else:
            route.fulfill(status=404)

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", ADDRESS)):
            found.append(f"network: {request.url}")

    page.on("console", said)
    page.on("request", asked)
    page.on("requestfailed", lambda request: found.append(f"failed: {request.url[:200]} ({request.failure})"))
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("response", lambda got: found.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
    context.route(f"{ADDRESS}**", serve)
    inside = SITE in file.parents
    page.goto(
        ADDRESS + str(file.relative_to(SITE)) if inside else file.resolve().as_uri(), wait_until="networkidle"
    )
    found += page.evaluate(JUDGE)
    page.evaluate("scrollTo(0, 0)")
    height = min(page.evaluate("document.documentElement.scrollHeight"), HIGHEST)
    page.screenshot(path=out / f"{name}-{width}-{kind}.png", clip={"x": 0, "y": 0, "width": page.viewport_size["width"],
                    "height": height}, full_page=True)  # fmt: skip
    if kind == "print":
        page.pdf(path=out / f"{name}.pdf", format="A4")
    context.close()
    return found


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, files = Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        print(f"Chromium {browser.version}")
        for file in files:
            name = "-".join(part for part in (file.parent.name, file.stem) if part not in ("site", "look"))
            for width in WIDTHS:
                for kind in LOOKS:
                    if kind == "print" and width != WIDTHS[-1]:
                        continue
                    found = look(browser, file, name, width, kind, out)
                    wrong += len(found)
                    print(f"{'WRONG' if found else 'ok':6}{file} {width} px, {kind}", flush=True)
                    for line in dict.fromkeys(found):
                        print(f"      {line}")
        browser.close()
    print(f"{wrong} problems; screenshots in {out}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
