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

_BASE_60 = r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
_SECONDS = "write the number (seconds, for a time), or quote it: '{0}'"
# what YAML readers disagree on: pattern, what is wrong, what to write
_BAD = (
    (r"[-+]?0[0-9_]+", "{0} has a leading zero, which YAML reads as octal", "write {1}, or quote it: '{0}'"),
    (r"[-+]?0[bo][0-9_]+", "{0} is read differently by different YAML readers", "write the decimal number"),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "{0} is not a finite number", "write a number"),
    (_BASE_60, "{0} is a number in base 60 for some YAML readers", _SECONDS),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?", "{0} is a date for some YAML readers", "quote it: '{0}'"),
)
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
        message = f"YAML readers disagree whether {text} is {value} or text"
        return BadScalar(message, f"write {value}, or quote it: '{text}'")
    if text[0] not in "+-.0123456789":
        return text
    return _read_number(text)


def _read_number(text: str) -> Any:
    if _INT.fullmatch(text):
        return _whole(text)
    for pattern, message, fix in _BAD:
        if re.fullmatch(pattern, text):
            plain = text.replace("_", "").lstrip("+-").lstrip("0") or "0"
            return BadScalar(message.format(text), fix.format(text, plain))
    if _HEX.fullmatch(text):
        return _whole(text, 16)
    if power := _POWER.fullmatch(text):
        return _whole(power[1] + "0" * int(power[2])) if int(power[2]) <= 15 else _real(text)
    return _real(text) if _FLOAT.fullmatch(text) else text


def _whole(text: str, base: int = 10) -> Any:
    if len(text) > 24:
        return BadScalar("the number has too many digits", "write a number below 2**63")
    value = int(text.replace("_", ""), base)
    if not -(2**63) <= value < 2**63:
        return BadScalar(f"{text} does not fit in 64 bits", "write a number below 2**63")
    return value


def _real(text: str) -> Any:
    try:
        value = float(text.replace("_", ""))
    except ValueError:  # an exponent that is too long, or underscores in odd places
        return text
    if math.isfinite(value):
        return value
    return BadScalar(f"{text} is larger than any number", "write a finite number")


def needs_quotes(text: str) -> bool:
    """True if a text would not be read back as itself without quotes."""
    value = read_scalar(text)
    return not isinstance(value, str) or value != text
