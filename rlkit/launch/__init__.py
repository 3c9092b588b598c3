"""From a recipe to a finished run: building the AlgorithmConfig, `tune.run`, one trial, following it live."""

import sys

if sys.platform == "win32":
    raise ImportError("rlkit's launcher needs POSIX signals; use WSL on Windows")
