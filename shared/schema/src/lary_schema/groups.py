"""Groups: rows that are not independent of each other, such as those of one episode or one video."""

import re
from pathlib import Path
from typing import Any

from pydantic import field_validator

from lary_schema.base import ContractError, Document
from lary_schema.metadata import Row, RowError, read_cells

PART = "group"
"""Name of the part of a pattern that is the group: `(?P<group>...)`."""


class Grouping(Document):
    """Which rows belong together. In a card: `group: COLUMN`, or `group: {column: COLUMN, pattern: REGEX}`."""

    column: str
    """CSV column whose cell is the group, or contains it."""
    pattern: str | None = None
    """Regular expression that is searched in the cell; its part `(?P<group>...)` is the group."""

    @field_validator("column")
    @classmethod
    def _names_a_column(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("group names no column; write `group: COLUMN`, or leave it out")
        return value

    @field_validator("pattern")
    @classmethod
    def _has_its_part(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            names = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        if PART not in names:
            raise ValueError(f"{value!r} has no part (?P<{PART}>...); it says which characters are the group")
        return value


def grouping_of(value: Any) -> Any:
    """A card's short form `group: COLUMN` written out; anything else as it is."""
    return {"column": value} if isinstance(value, str) else value


def group_of(row: Row, grouping: Grouping, where: str = "metadata") -> str:
    """The group of a CSV row, without surrounding white space; `where` (the file) opens the error message.

    Raises ContractError with the row's number where the cell is empty, the row malformed, or the pattern not found.
    """
    try:
        cell = row[grouping.column]
    except RowError as error:
        raise ContractError(f"{where}: row {row.index}: no group: {error}; {_REMEDY}") from None
    if grouping.pattern is None:
        return cell.strip()
    found = re.search(grouping.pattern, cell)
    group = (found.group(PART) or "").strip() if found else ""
    if not group:
        raise ContractError(
            f"{where}: row {row.index}: no group: column {grouping.column!r} has {cell!r}, in which the pattern "
            f"{grouping.pattern!r} finds none; {_REMEDY}"
        )
    return group


def count_groups(csv: Path, grouping: Grouping) -> int:
    """How many groups a CSV's rows have. A row of the wrong length fails alone, elsewhere.

    Raises ContractError naming file and row of a row without a group.
    """
    table = read_cells(csv, [grouping.column])
    header = next(table)
    whole = ((row, cells) for row, cells in enumerate(table) if len(cells) == len(header))
    rows = (Row(row, dict(zip(header, cells, strict=True))) for row, cells in whole)
    return len({group_of(row, grouping, str(csv)) for row in rows})


_REMEDY = "fill in the cell, or correct group: in the dataset card"
