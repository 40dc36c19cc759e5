"""Labels that a person would take for one."""

import pytest
from lary_schema.labels import alike


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b", "A"], []),
        (["a", "a "], [("a", "a ")]),
        (["a b", "a\tb", "a  b", "ab"], [("a\tb", "a  b", "a b")]),
        (["\u00f6", "o\u0308"], [("o\u0308", "\u00f6")]),
        (["a\u00a0b", "a b"], [("a b", "a\u00a0b")]),
        (["", " "], [("", " ")]),
        (["don\u2019t", "don't", "dont"], [("don't", "don\u2019t")]),
        (["pick\u2013up", "pick-up", "pick up", "pickup"], [("pick-up", "pick\u2013up")]),
        (["x\u00b2", "x2", "\u00e9", "e", "\uff21", "A"], []),
    ],
)
def test_alike(labels: list[str], expected: list[tuple[str, ...]]) -> None:
    assert alike(labels) == expected


@pytest.mark.parametrize(
    "hidden", ["\u200b", "\u200d", "\u2060", "\u00ad", "\u202e", "\u2066", "\ufe0f", "\x07", "\x7f"]
)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_characters_that_are_not_shown_make_no_other_label(hidden: str, at: int) -> None:
    label = "pick"[:at] + hidden + "pick"[at:]
    assert alike(["pick", label, "place"]) == [tuple(sorted(("pick", label)))]
