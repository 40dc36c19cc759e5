"""Tables on terminals of any width: nothing is cut, what identifies a row stays whole, constants are said once."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lary_schema.commands import PROGRAM
from lary_terminal.fitting import fitted
from lary_terminal.tables import Table
from lary_terminal.widths import longest_word, width_of, wrap

WORDS = st.text("abc-/é漢", min_size=1, max_size=12)
CELLS = st.one_of(st.just("-"), WORDS, st.lists(WORDS, max_size=8).map(" ".join))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.integers(1, 7))
    rows = draw(st.lists(st.tuples(*[CELLS] * columns), max_size=6))
    some = st.frozensets(st.integers(0, columns - 1))
    return Table(
        draw(CELLS),
        tuple(draw(st.lists(WORDS, min_size=columns, max_size=columns))),
        rows,
        right=draw(some),
        sections=draw(st.frozensets(st.integers(0, 5))),
        alarming=draw(st.frozensets(st.integers(0, 5))),
        notes=tuple(draw(st.lists(CELLS, max_size=2))),
        keys=draw(some) or frozenset({0}),
    )


def drawn(table: Table, width: int) -> list[str]:
    return [line.text for line in fitted(table, width)]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


# A row of which nothing but its key says something, in a table that is drawn in pieces.
@example(Table("-", ("a",) * 5, [("-", "-", "a a a a a a bb/", "-", "-")], frozenset({0}), keys=frozenset({2})), 24)
@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(24, 200))
def test_nothing_is_cut_and_no_line_is_too_long(table: Table, width: int) -> None:
    lines = drawn(table, width)
    assert max(map(width_of, lines)) <= width
    shown = "".join(lines)
    for row in table.rows:
        for cell in row:
            assert set(squeezed(cell)) - {"-"} <= set(shown)
            # A word that fits is whole in some line.
            words = [word for word in cell.split() if width_of(word) <= 6 and word != "-"]
            assert all(any(word in line for line in lines) for word in words)


@settings(max_examples=60, deadline=None)
@given(CELLS, st.integers(2, 40))
def test_wrapping_keeps_every_character(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert squeezed("".join(lines)) == squeezed(text)
    assert max(map(width_of, lines)) <= width
    if longest_word([text]) <= width:
        assert " ".join(lines).split() == text.split()


def leaderboard(datasets: int, models: int = 4) -> Table:
    columns = ("model", "variant", *(f"demo_set_{i}/val MSE ↓" for i in range(datasets)))
    rows = [(f"model-{i}", "corrected", *["0.327 [0.277, 0.384]"] * datasets) for i in range(models)]
    chance = ("most frequent class, mean action", "", *["1.046"] * datasets)
    return Table("scores", columns, [*rows, chance], frozenset(range(2, 2 + datasets)), frozenset({models - 1}))


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("datasets", [1, 3, 5, 9])
def test_a_leaderboard_at_usual_widths(width: int, datasets: int) -> None:
    lines = drawn(leaderboard(datasets), width)
    assert max(map(width_of, lines)) <= width
    text = "\n".join(lines)
    assert "all: variant corrected" in text
    assert text.count("corrected") == 1
    for i in range(4):
        assert f"model-{i}" in text
    assert text.count("0.327 [0.277, 0.384]") == 4 * datasets
    for i in range(datasets):
        assert f"demo_set_{i}/val" in text


def test_many_datasets_become_rows_where_that_fits() -> None:
    lines = drawn(leaderboard(9, models=2), 120)
    (header,) = [line for line in lines if "model-0" in line]
    assert "model-1" in header
    assert [line.split()[0] for line in lines if line.startswith("demo_set_")] == [
        f"demo_set_{i}/val" for i in range(9)
    ]


def test_pieces_repeat_the_keys_and_leave_out_rows_without_a_score() -> None:
    rows = [("frame-diff", "9" * 30, "-"), ("chance", "-", "1" * 30), ("pixels", "8" * 30, "2" * 30)]
    lines = drawn(Table("t", ("model", "a", "b"), rows, frozenset({1, 2}), frozenset({1})), 50)
    assert [line.split()[0] for line in lines if line and line[0].isalpha()] == [
        *("t", "model", "frame-diff", "pixels", "model", "chance", "pixels")
    ]


def test_keys_that_begin_alike_stay_whole() -> None:
    keys = [f"dinov3-cs{size}_sl16_dim32_lr1e-4" for size in (8, 16, 32)]
    rows = [("demo_motion", "train", key, "corrected", str(i), f"missing_file {i}") for i, key in enumerate(keys)]
    table = Table(
        "t", ("dataset", "split", "model", "variant", "rows", "why"), rows, frozenset({4}), keys=frozenset(range(4))
    )
    lines = drawn(table, 80)
    assert "all: dataset demo_motion, split train, variant corrected" in lines
    assert all(any(key in line for line in lines) for key in keys)


def test_text_is_wrapped_before_columns_are_moved() -> None:
    rows = [("frame-diff", "differences of neighbouring frames, " * 4), ("pixels", "pixels")]
    lines = drawn(Table("t", ("key", "what it is"), rows), 60)
    assert sum(line.startswith("frame-diff") for line in lines) == 1
    assert sum("neighbouring" in line for line in lines) >= 3


def test_too_narrow_for_a_table_is_a_record_each() -> None:
    rows = [("a" * 30, "b" * 20, "some text"), ("c" * 30, "d" * 20, "more text")]
    lines = drawn(Table("t", ("one", "two", "three"), rows, keys=frozenset({0, 1})), 40)
    assert [line.split() for line in lines if "text" in line] == [["three", "some", "text"], ["three", "more", "text"]]


def test_details_are_left_out_where_not_all_fits() -> None:
    table = Table("t", ("key", "licence"), [("a", "x" * 50), ("b", "y" * 50)], details=frozenset({1}))
    assert not any("x" in line for line in drawn(table, 40))
    assert any("x" * 50 in line for line in drawn(table, 80))


def test_commands_stay_in_one_line_to_be_copied() -> None:
    command = f"again: {PROGRAM} run " + "-m model " * 20
    assert command in drawn(Table("t", ("a",), [("b",)], notes=(command,)), 60)


def test_a_column_of_numbers_with_gaps_is_no_constant() -> None:
    table = Table("t", ("key", "n"), [("a", "5"), ("b", "")], frozenset({1}))
    assert not any(line.startswith("all:") for line in drawn(table, 80))
