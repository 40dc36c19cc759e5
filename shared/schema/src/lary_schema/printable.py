"""Text of others (file names, cells, messages, model output) made safe to show, and JSON that is always valid.

A terminal acts on escape sequences, and bidirectional controls make a name read as another one. Both are shown as
their codes. All code that prints, and the HTML report, passes such text through here.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

JOINERS = "\u200c\u200d"
"""Needed by scripts and emoji; they move nothing."""
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format (bidirectional ones too), halves of a pair, line and paragraph separators."""


def printable(text: str) -> str:
    r"""One line: control and invisible characters as `\x1b` or `\u202e`, line breaks and tabs too."""
    return _SUSPECT.sub(lambda found: _code(found[0]), text)


def printable_lines(text: str) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    return re.sub(r"[^\n\t\x20-\x7e]", lambda found: _code(found[0]), text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as strict JSON (NaN and infinities become null) that is safe to print and reads back as the same."""
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub(r"[^\n\x20-\x7e]", lambda found: _code(found[0], _json_code), text)


def finite(value: Any) -> Any:
    """A JSON value with null in place of each number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _python_code(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _json_code(character: str) -> str:
    return json.dumps(character)[1:-1]


def _code(character: str, as_code: Callable[[str], str] = _python_code) -> str:
    hidden = unicodedata.category(character) in _HIDDEN and character not in JOINERS
    return as_code(character) if hidden else character
