"""Metadata CSVs, read strictly: row r of a store is data row r of the file, always."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault

INDICES_SEPARATOR = ","


class RowError(Exception):
    """One row cannot be used; the others can. The message says what is wrong with which cell."""


class Row:
    """One data row: cells by column, checked on access."""

    __slots__ = ("_cells", "index")

    def __init__(self, index: int, cells: dict[str, str] | None) -> None:
        self.index = index
        self._cells = cells

    def __getitem__(self, column: str) -> str:
        """A cell, not empty. Raises RowError for an empty one or a row of the wrong length."""
        if self._cells is None:
            raise RowError("the row has more or fewer cells than the header")
        value = self._cells[column]
        if not value.strip():
            raise RowError(f"column {column!r} is empty")
        return value

    def get(self, column: str) -> str | None:
        """A cell, or None where it is empty, the row is malformed or the file lacks the column."""
        value = self._cells.get(column) if self._cells is not None else None
        return value if value is not None and value.strip() else None


def read_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The data rows of a UTF-8 CSV (a byte order mark and any line ends are fine), lazily, in order.

    `columns` must be in the header. Raises ContractError naming the file for one that cannot be
    read, is not UTF-8, has no header, a repeated or missing column, or no data row.
    """
    table = read_cells(path, columns)
    header = next(table)
    for index, cells in enumerate(table):
        yield Row(index, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None)


def read_cells(path: Path, columns: Sequence[str] = ()) -> Iterator[list[str]]:
    """The header, then every data row's cells as they are, also of rows of the wrong length; as `read_rows`."""
    try:
        _require_text(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            yield _header(path, reader, columns)
            empty = True
            for cells in filter(None, reader):
                empty = False
                yield cells
            if empty:
                raise ContractError(f"{path}: has a header and no rows")
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"{path}: not a UTF-8 CSV: {error}") from None


def _require_text(path: Path) -> None:
    """Raises ContractError for a pipe, which would be waited for, and for a Git LFS pointer. Raises OSError."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ContractError(f"{path}: is no regular file; give a CSV")
    if is_lfs_pointer(path):
        raise ContractError(pointer_fault(path))


def count_rows(path: Path, columns: Sequence[str] = ()) -> int:
    """How many data rows `read_rows` gives, under the same checks of file and header."""
    return sum(1 for _ in read_rows(path, columns))


def _header(path: Path, reader: Iterable[list[str]], columns: Sequence[str]) -> list[str]:
    header = next(iter(reader), None)
    if not header:
        raise ContractError(f"{path}: is empty; a header line is expected")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ContractError(f"{path}: repeated column {', '.join(map(repr, repeated))}; keep one of each")
    missing = [name for name in columns if name not in header]
    if missing:
        raise ContractError(
            f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header))}. "
            "Rename the column, or name yours in the dataset card (columns:, labels:, actions: or group:)"
        )
    return header


def parse_indices(cell: str, frames: int) -> list[int]:
    """The sample indices of a clip: `frames` integers, comma separated. Raises RowError otherwise."""
    try:
        indices = [int(part) for part in cell.strip().strip("[]").split(INDICES_SEPARATOR)]
    except ValueError:
        raise RowError(f"sample indices {cell!r} are not comma-separated integers") from None
    if len(indices) != frames:
        raise RowError(f"{len(indices)} sample indices, {frames} expected: {cell!r}")
    if min(indices) < 0:
        raise RowError(f"negative sample index in {cell!r}")
    return indices
