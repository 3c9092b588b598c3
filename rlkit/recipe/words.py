"""Words that users of RLlib know and that mean something else here, or nothing: each with what to write instead.

They stand in scripts/rllib_words.py, and in the generated table.
"""

from __future__ import annotations

from rlkit.recipe.signatures import table

_WORDS: dict[str, dict[str, str]] = table()["words"]
OLD_TOP_KEYS = _WORDS["OLD_TOP_KEYS"]
OLD_ALGORITHMS = _WORDS["OLD_ALGORITHMS"]
OLD_MODEL_KEYS = _WORDS["OLD_MODEL_KEYS"]
OLD_METRICS = _WORDS["OLD_METRICS"]
CLOSED_METHODS = _WORDS["CLOSED_METHODS"]
RENAMED = _WORDS["RENAMED"]
FOREIGN = _WORDS["FOREIGN"]
