"""Tables for people: drawn on a terminal, aligned plain text elsewhere. Text of others is shown, never acted on."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from lary_schema.printable import printable, printable_lines
from lary_schema.terminal import terminal_of


@dataclass(frozen=True)
class Table:
    """Text cells under headers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[int] = frozenset()
    """Columns of numbers."""
    sections: frozenset[int] = frozenset()
    """Rows after which a line is drawn."""
    notes: tuple[str, ...] = ()
    alarming: frozenset[int] = frozenset()
    """Rows that a terminal shows in red."""


def show(table: Table, out: TextIO) -> None:
    """Print a table in the way that fits `out`."""
    if not out.isatty():
        out.write(plain(table))
        return
    from rich.console import Console

    safe = _safe(table)
    Console(file=terminal_of(out), highlight=False).print(_drawn(safe), *map(_literal, safe.notes), sep="\n")


def plain(table: Table) -> str:
    """Aligned text with a trailing newline."""
    table = _safe(table)
    lines = [table.columns, *table.rows]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(table.columns))]
    rule = "  ".join("-" * width for width in widths)
    texts = [_line(table, line, widths) for line in lines]
    body = [text for i, row in enumerate(texts[1:]) for text in ([row, rule] if i in table.sections else [row])]
    return "\n".join([table.title, "", texts[0], rule, *body, *table.notes]) + "\n"


def _safe(table: Table) -> Table:
    return replace(
        table,
        title=printable(table.title),
        columns=tuple(map(printable, table.columns)),
        rows=[tuple(map(printable, row)) for row in table.rows],
        notes=tuple(map(printable_lines, table.notes)),
    )


def _width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining marks and joiners none."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _line(table: Table, cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - _width(cell))
        aligned.append(space + cell if i in table.right else cell + space)
    return "  ".join(aligned).rstrip()


def _literal(text: str) -> object:
    from rich.text import Text

    return Text(text)


def _drawn(table: Table) -> object:
    from rich.table import Table as Drawing

    drawing = Drawing(title=table.title, title_justify="left")
    for i, name in enumerate(table.columns):
        drawing.add_column(name, justify="right" if i in table.right else "left")
    for i, row in enumerate(table.rows):
        style = "red" if i in table.alarming else None
        drawing.add_row(*map(_literal, row), style=style, end_section=i in table.sections)  # type: ignore[arg-type]
    return drawing


def size_text(count: float) -> str:
    """Bytes in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
