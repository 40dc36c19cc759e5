"""What a table is, however it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass


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
    keys: frozenset[int] = frozenset({0})
    """Columns that say which row it is: a narrow terminal repeats them, and never wraps them in a table."""
    details: frozenset[int] = frozenset()
    """Columns that a terminal leaves out where not all fit; a note should say where they are found."""
