"""Columnar replay: fragments of episodes in preallocated arrays, drawn in microseconds.

`Replay` is numpy alone; `rlkit.replay.episodes` turns RLlib's episodes into the fragments it takes, and
`rlkit.replay.saving` writes it into a checkpoint as arrays.
"""

from __future__ import annotations

from rlkit.replay.buffer import Replay
from rlkit.replay.columns import Column
from rlkit.replay.ring import Fragment

__all__ = ["Column", "Fragment", "Replay"]
