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
    ],
)
def test_alike(labels: list[str], expected: list[tuple[str, ...]]) -> None:
    assert alike(labels) == expected
