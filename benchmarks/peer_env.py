"""Virtual environments of the libraries rlkit is compared with: made once, under .venvs/, with our versions
of torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SB3 = ("stable-baselines3==2.9.2",)


def python_of(name: str, packages: Sequence[str]) -> str:
    """Return the interpreter of the environment `.venvs/<name>`, made with pip if it is not there yet."""
    folder = ROOT / ".venvs" / name
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"making {folder} ({', '.join(packages)}) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages, *constraints], check=True)
        done.write_text(wanted)
    return str(python)
