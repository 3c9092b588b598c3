"""What a word without quotes means. Stricter than YAML 1.1, and `1e-3` is a number.

PyYAML reads `1e-3` as text, `1:30` as 90, `010` as 8, `no` as false and `2024-01-01` as a date. Here the first is the
number it is, and the others are errors that say what to write: quotes for text, the plain form for a value.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_POWER = re.compile(r"([-+]?[1-9][0-9]*)[eE]\+?([0-9]{1,2})")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_OTHER_BASE = re.compile(r"[-+]?0[bo][0-9_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_AMBIGUOUS = {
    word: value for value, words in ((True, "yes on y"), (False, "no off n")) for word in words.split()
}


@dataclass(frozen=True)
class BadScalar:
    """A word that is not accepted: what is wrong with it, and what to write instead."""

    message: str
    fix: str


def read_scalar(text: str) -> Any:
    """Return the value of an unquoted word, or a `BadScalar`."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text.lower() in _AMBIGUOUS and text in (text.lower(), text.upper(), text.capitalize()):
        value = str(_AMBIGUOUS[text.lower()]).lower()
        return BadScalar(
            f"YAML readers disagree whether {text} is {value} or text",
            f"write {value}, or quote it: '{text}'",
        )
    if text[0] not in "+-.0123456789":
        return text
    return _read_number(text)


def _read_number(text: str) -> Any:
    if _INT.fullmatch(text):
        return _whole(text)
    if _LEADING_ZERO.fullmatch(text):
        plain = text.replace("_", "").lstrip("+-").lstrip("0") or "0"
        return BadScalar(
            f"{text} has a leading zero, which YAML reads as octal", f"write {plain}, or quote it: '{text}'"
        )
    if _HEX.fullmatch(text):
        return _whole(text, 16)
    if _OTHER_BASE.fullmatch(text):
        return BadScalar(f"{text} is read differently by different YAML readers", "write the decimal number")
    if power := _POWER.fullmatch(text):
        return _whole(power[1] + "0" * int(power[2])) if int(power[2]) <= 15 else _real(text)
    if _FLOAT.fullmatch(text):
        return _real(text)
    if _NOT_FINITE.fullmatch(text):
        return BadScalar(f"{text} is not a finite number", "write a number")
    if _SEXAGESIMAL.fullmatch(text):
        return BadScalar(
            f"{text} is a number in base 60 for some YAML readers",
            f"write the number (seconds, for a time), or quote it: '{text}'",
        )
    if _DATE.fullmatch(text):
        return BadScalar(f"{text} is a date for some YAML readers", f"quote it: '{text}'")
    return text


def _whole(text: str, base: int = 10) -> Any:
    if len(text) > 24:
        return BadScalar("the number has too many digits", "write a number below 2**63")
    value = int(text.replace("_", ""), base)
    return (
        value
        if -(2**63) <= value < 2**63
        else BadScalar(f"{text} does not fit in 64 bits", "write a number below 2**63")
    )


def _real(text: str) -> Any:
    try:
        value = float(text.replace("_", ""))
    except ValueError:  # an exponent that is too long, or underscores in odd places
        return text
    return (
        value
        if math.isfinite(value)
        else BadScalar(f"{text} is larger than any number", "write a finite number")
    )


def needs_quotes(text: str) -> bool:
    """True if a text would not be read back as itself without quotes."""
    value = read_scalar(text)
    return not isinstance(value, str) or value != text
