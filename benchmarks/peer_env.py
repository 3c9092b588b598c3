"""Virtual environments of the libraries rlkit is compared with: made once, under .venvs/, with our torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Versions each peer was measured with: XuanCe needs another pyglet than VMAS.
PINS = Path(__file__).parent / "peers"
SB3 = ("stable-baselines3==2.9.2",)
MPE = ("torch", "mpe2", "pettingzoo", "gymnasium")
BENCHMARL = ("benchmarl==1.5.2",)
BENCHMARL_NEEDS = (
    *MPE, "tensordict==0.14.3", "torchrl==0.14.1", "hydra-core", "tqdm", "imageio", "pandas", "wandb",
)  # fmt: skip
# torchvision, which XuanCe requires and imports for three algorithms on pictures only, would bring another torch
XUANCE = ("xuance==1.4.4",)
XUANCE_NEEDS = (
    *MPE,
    "scipy",
    "PyYAML",
    "tqdm",
    "tensorboard",
    "wandb",
    "opencv-python-headless",
    "imageio",
    "pyglet==1.5.15",
)
# most of what AgileRL requires is for language models and clouds; peft is imported all the same
AGILERL = ("agilerl==2.58.0", "agilerl-arena==1.29.0")
AGILERL_NEEDS = (
    *MPE, "tensordict==0.13.0", "peft", "accelerate", "dill", "fastrand", "flatten-dict", "h5py", "hydra-core",
    "lazy-loader", "matplotlib", "minari", "omegaconf", "pandas", "pydantic", "redis", "rich", "supersuit", "tabulate",
    "termcolor", "tqdm", "wandb",
)  # fmt: skip


def python_of(name: str, packages: Sequence[str], alone: Sequence[str] = ()) -> str:
    """Return the interpreter of the environment `.venvs/<name>`, made with pip if it is not there yet.

    Args:
        name: of the folder, and of the file in `peers/` with the versions to install.
        packages: installed with what they require.
        alone: installed without: their requirements would replace torch, or are not needed and large.
    """
    folder = ROOT / ".venvs" / name
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join((*packages, *alone))
    if not done.exists() or done.read_text() != wanted:
        print(f"making {folder} ({', '.join((*packages, *alone))}) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        constraints = ["-c", str(PINS / f"{name}.txt")]
        subprocess.run([*pip, *packages, *constraints], check=True)
        if alone:
            subprocess.run([*pip, "--no-deps", *alone], check=True)
        done.write_text(wanted)
    return str(python)
