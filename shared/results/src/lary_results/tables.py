"""Tables for people: drawn on a terminal, aligned plain text elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO


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


def show(table: Table, out: TextIO) -> None:
    """Print a table in the way that fits `out`."""
    if not out.isatty():
        out.write(plain(table))
        return
    from rich.console import Console

    Console(file=out, highlight=False).print(_drawn(table), *map(_literal, table.notes), sep="\n")


def plain(table: Table) -> str:
    """Aligned text with a trailing newline."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    rule = "  ".join("-" * width for width in widths)
    texts = [_line(table, line, widths) for line in lines]
    body = [text for i, row in enumerate(texts[1:]) for text in ([row, rule] if i in table.sections else [row])]
    return "\n".join([table.title, "", texts[0], rule, *body, *table.notes]) + "\n"


def _line(table: Table, cells: tuple[str, ...], widths: list[int]) -> str:
    placed = [
        c.rjust(w) if i in table.right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()


def _literal(text: str) -> object:
    from rich.text import Text

    return Text(text)


def _drawn(table: Table) -> object:
    from rich.table import Table as Drawing

    drawing = Drawing(title=table.title, title_justify="left")
    for i, name in enumerate(table.columns):
        drawing.add_column(name, justify="right" if i in table.right else "left")
    for i, row in enumerate(table.rows):
        drawing.add_row(*map(_literal, row), end_section=i in table.sections)  # type: ignore[arg-type]
    return drawing


def size_text(count: float) -> str:
    """Bytes in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
