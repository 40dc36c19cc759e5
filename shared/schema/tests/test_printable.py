"""Text of others is shown, never acted on."""

import json
import math
import unicodedata

import pytest
from lary_schema.printable import finite, json_text, printable, printable_lines

HIDDEN = [
    *range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F),
    *range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF, 0xD800, 0xDCFF, 0xE0001, 0xE0041,
]  # fmt: skip
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("point", HIDDEN, ids=hex)
def test_what_is_not_seen_is_shown_as_its_code(point: int) -> None:
    shown = printable(f"a{chr(point)}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert f"{point:x}" in shown
    kept = point in (9, 10)
    assert printable_lines(f"a{chr(point)}b") == (f"a{chr(point)}b" if kept else shown)


def test_no_control_of_unicode_is_left() -> None:
    everything = "".join(map(chr, [*range(0x20000), *range(0xE0000, 0xE1000)]))
    left = printable(everything)
    assert {c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} == set()
    assert {c for c in left if unicodedata.category(c) == "Cf"} == {"\u200c", "\u200d"}
    assert {c for c in left if unicodedata.bidirectional(c) in BIDI} == set()


@pytest.mark.parametrize("text", ["plain", "späť 抓取 क्‍ष", "👩‍🔬", "a\\x1bb", "50 % → [x]"])
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


def test_an_escape_sequence_and_a_reversed_name() -> None:
    assert printable("\x1b[2Jgone\x9b31m") == "\\x1b[2Jgone\\x9b31m"
    assert printable("clip\u202e4pm.exe") == "clip\\u202e4pm.exe"
    assert printable("a\nfailed: b\t\r") == "a\\x0afailed: b\\x09\\x0d"


def test_json_is_valid_reads_back_and_holds_no_control() -> None:
    value = {"a\u202e": ["\x1b[31m", "\x9b", "\ud800", "\U000e0041", "抓", "\n"], "n": 1.5, "t": (True, None, 3)}
    text = json_text(value, indent=1)
    assert json.loads(text) == {**value, "t": [True, None, 3]}
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")} == {"\n"}
    assert "抓" in text


def test_what_json_cannot_hold_is_null() -> None:
    value = {"a": math.nan, "b": [math.inf, (1.0, -math.inf)], "c": {"d": math.nan}}
    assert finite(value) == {"a": None, "b": [None, [1.0, None]], "c": {"d": None}}

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(json_text(value), parse_constant=refuse) == finite(value)
