"""A table in a terminal's width: as it is, with wrapped cells, in pieces of its columns, or a record per row.

What is the same in all rows is said once, above. Nothing is cut: every cell of the table stands in what is drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lary_schema.commands import program

from lary_terminal.table import Table
from lary_terminal.widths import longest_word, padded, width_of, wrap

GAP = 2
"""Spaces between columns."""
NARROWEST = 16
"""Columns of text are not wrapped to fewer."""


class Line(NamedTuple):
    """One line to print."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class _Column:
    at: int
    header: str
    right: bool
    key: bool
    natural: int
    least: int
    """It is not drawn with fewer columns of the terminal."""


def fitted(table: Table, width: int) -> Iterator[Line]:
    """The lines of a table for a terminal of `width` columns. Its texts are printable already."""
    table, same = _without_constants(table)
    yield from (Line(text, "bold") for text in wrap(table.title, width))
    if same:
        yield from (Line(text, "dim") for text in wrap(f"all: {', '.join(same)}", width))
    if table.rows:
        yield Line("")
        yield from _body(table, width)
    for note in table.notes:
        lines = note.splitlines() or [""]
        yield from (Line(text) for line in lines for text in (_whole(line) or _indented(line, width)))


def _whole(text: str) -> list[str]:
    """A text with a command in it is left to the terminal to wrap, so that it can be copied whole."""
    return [text] if program() in text else []


def _indented(line: str, width: int) -> list[str]:
    """Wrapped with the spaces that it begins with."""
    begin = line[: len(line) - len(line.lstrip())]
    return [begin + text for text in wrap(line, width - len(begin))]


def _body(table: Table, width: int) -> Iterator[Line]:
    columns = _columns(table)
    if table.details and sum(column.natural + GAP for column in columns) - GAP > width:
        table = _chosen(table, [i for i in range(len(columns)) if i not in table.details])
        columns = _columns(table)
    if (widths := _widths(columns, width)) is not None:
        yield from _grid(table, columns, widths)
    elif (turned := _turned(table, width)) is not None:
        yield from _body(turned, width)
    elif pieces := _pieces(columns, width):
        for nth, piece in enumerate(pieces):
            widths = _widths(piece, width)
            assert widths is not None
            yield from _grid(_of_piece(table, piece, is_first=nth == 0), piece, widths)
    else:
        yield from _records(table, width)


# --- what is the same in all rows -------------------------------------------------------------


def _without_constants(table: Table) -> tuple[Table, list[str]]:
    """The table without columns of one text, and what they say. Some key stays, and so do columns of numbers
    of which rows are without one.
    """
    if len(table.rows) < 2:
        return table, []
    empty = [set() if i in table.right else {""} for i in range(len(table.columns))]
    texts = [{row[i] for row in table.rows} - empty[i] for i in range(len(table.columns))]
    constant = [i for i, found in enumerate(texts) if len(found) <= 1]
    if table.keys <= set(constant):
        constant.remove(min(table.keys))
    said = [f"{table.columns[i]} {next(iter(texts[i]))}".strip() for i in constant if texts[i] - {"", "-"}]
    return _chosen(table, [i for i in range(len(table.columns)) if i not in constant]), said


def _chosen(table: Table, kept: Sequence[int]) -> Table:
    """The table of some columns."""
    return replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=[tuple(row[i] for i in kept) for row in table.rows],
        right=frozenset(to for to, i in enumerate(kept) if i in table.right),
        keys=frozenset(to for to, i in enumerate(kept) if i in table.keys),
        details=frozenset(to for to, i in enumerate(kept) if i in table.details),
    )


# --- one table, its text wrapped --------------------------------------------------------------


def _columns(table: Table) -> list[_Column]:
    found = []
    for i, header in enumerate(table.columns):
        cells, right, key = [row[i] for row in table.rows], i in table.right, i in table.keys
        inside = max(map(width_of, cells), default=0)
        natural = max(width_of(header), inside)
        least = inside if key or right else min(inside, NARROWEST)
        found.append(_Column(i, header, right, key, natural, min(natural, max(least, longest_word([header])))))
    return found


def _widths(columns: Sequence[_Column], width: int) -> list[int] | None:
    """A width for each; None where they do not fit. What is over goes to the column that lacks most."""
    widths = [column.least for column in columns]
    spare = width - sum(widths) - GAP * (len(columns) - 1)
    if spare < 0:
        return None
    while spare and (wanting := [i for i, column in enumerate(columns) if widths[i] < column.natural]):
        at = max(wanting, key=lambda i: columns[i].natural - widths[i])
        widths[at] += 1
        spare -= 1
    return widths


def _grid(table: Table, columns: Sequence[_Column], widths: Sequence[int]) -> Iterator[Line]:
    rule = (" " * GAP).join("─" * width for width in widths)
    if any(column.header for column in columns):
        yield from _wrapped([column.header for column in columns], columns, widths, "bold")
        yield Line(rule)
    for nth, row in enumerate(table.rows):
        style = "red" if nth in table.alarming else ""
        yield from _wrapped([row[column.at] for column in columns], columns, widths, style)
        if nth in table.sections and nth + 1 < len(table.rows):
            yield Line(rule)
    yield Line("")


def _wrapped(cells: Sequence[str], columns: Sequence[_Column], widths: Sequence[int], style: str) -> Iterator[Line]:
    blocks = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    blocks[-1] = _whole(cells[-1]) or blocks[-1]
    for i in range(max(map(len, blocks))):
        texts = (block[i] if i < len(block) else "" for block in blocks)
        line = (padded(t, w, right=c.right) for t, w, c in zip(texts, widths, columns, strict=True))
        yield Line((" " * GAP).join(line).rstrip(), style)


# --- other ways -------------------------------------------------------------------------------


def _turned(table: Table, width: int) -> Table | None:
    """Columns as rows, where one key and many columns of numbers (models x datasets) fit in this way alone."""
    numbers = sorted(table.right)
    if len(table.keys) != 1 or len(numbers) + 1 != len(table.columns) or len(numbers) <= len(table.rows):
        return None
    (key,) = table.keys
    names = [row[key] for row in table.rows]
    rows = [(table.columns[i], *(row[i] for row in table.rows)) for i in numbers]
    turned = replace(
        table,
        columns=("", *names),
        rows=rows,
        right=frozenset(range(1, len(names) + 1)),
        sections=frozenset(),
        alarming=frozenset(),
        keys=frozenset({0}),
    )
    return turned if _widths(_columns(turned), width) is not None else None


def _pieces(columns: Sequence[_Column], width: int) -> list[list[_Column]]:
    """As many columns as fit after the keys, again and again; none where there are no numbers, or one does not fit."""
    keys = [column for column in columns if column.key]
    pieces: list[list[_Column]] = []
    if not any(column.right for column in columns):
        return []
    for column in (column for column in columns if not column.key):
        if pieces and _widths([*pieces[-1], column], width) is not None:
            pieces[-1].append(column)
        elif _widths([*keys, column], width) is None:
            return []
        else:
            pieces.append([*keys, column])
    return pieces


def _of_piece(table: Table, piece: Sequence[_Column], *, is_first: bool) -> Table:
    """Without the rows that say nothing in these columns; those that say nothing in any stay in the first piece."""
    own = {column.at for column in piece if not column.key}
    kept = [i for i, row in enumerate(table.rows) if (says := _says(table, row)) & own or (is_first and not says)]
    # A line is drawn below the last row that stayed of each section.
    before = [sum(i <= end for i in kept) for end in table.sections]
    return replace(
        table,
        rows=[table.rows[i] for i in kept],
        sections=frozenset(count - 1 for count in before if count),
        alarming=frozenset(to for to, i in enumerate(kept) if i in table.alarming),
    )


def _says(table: Table, row: Sequence[str]) -> set[int]:
    """The columns, keys aside, in which a row says something."""
    return {at for at, cell in enumerate(row) if at not in table.keys and cell not in ("", "-")}


def _records(table: Table, width: int) -> Iterator[Line]:
    """What says which row it is, and below it a line for each of its other cells."""
    others = [i for i in range(len(table.columns)) if i not in table.keys]
    label = max((width_of(table.columns[i]) for i in others), default=0)
    label = min(label, max(width // 3, 8))
    for nth, row in enumerate(table.rows):
        style = "red" if nth in table.alarming else "bold"
        yield from (Line(text, style) for text in wrap("  ".join(row[i] for i in sorted(table.keys)), width))
        for i in others:
            if row[i] not in ("", "-"):
                yield from _labelled(table.columns[i], row[i], label, width)
    yield Line("")


def _labelled(name: str, text: str, label: int, width: int) -> Iterator[Line]:
    names, texts = wrap(name, label), _whole(text) or wrap(text, width - label - 2 * GAP)
    for i in range(max(len(names), len(texts))):
        left, right = (block[i] if i < len(block) else "" for block in (names, texts))
        yield Line(f"{' ' * GAP}{padded(left, label, right=False)}{' ' * GAP}{right}".rstrip())
