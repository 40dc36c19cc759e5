"""Tables for people: drawn to a terminal's width, plain text elsewhere. Text of others is shown, never acted on."""

from dataclasses import replace
from typing import TextIO

from lary_schema.printable import printable, printable_lines
from lary_schema.terminal import terminal_of

from lary_terminal.table import Table as Table
from lary_terminal.widths import padded, width_of


def show(table: Table, out: TextIO) -> None:
    """Print a table in the way that fits `out`: a terminal's width, or all columns as aligned text."""
    if not out.isatty():
        out.write(plain(table))
        return
    from rich.console import Console
    from rich.text import Text

    from lary_terminal.fitting import fitted

    console = Console(file=terminal_of(out), highlight=False)
    for line in fitted(_safe(table), console.width):
        console.print(Text(line.text, line.style), soft_wrap=True)


def plain(table: Table) -> str:
    """Aligned text with a trailing newline."""
    table = _safe(table)
    lines = [table.columns, *table.rows]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(table.columns))]
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


def _line(table: Table, cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = (padded(cell, widths[i], right=i in table.right) for i, cell in enumerate(cells))
    return "  ".join(aligned).rstrip()


def size_text(count: float) -> str:
    """Bytes in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
