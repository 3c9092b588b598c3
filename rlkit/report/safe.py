"""Names and values of strangers' runs, made harmless for the terminal and for spreadsheets.

HTML has autoescaping of its own (`rlkit.report.page`).
"""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: object) -> str:
    r"""Return text without control characters, terminal escapes and direction marks: each is shown as `\x1b`."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)
    )


def cell(value: object) -> object:
    """Return a CSV cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, int | float) or value is None:
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text
