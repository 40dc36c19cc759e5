"""Metadata CSVs, read strictly: row r of a store is data row r of the file, always."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault

INDICES_SEPARATOR = ","
_DIGITS = 12
"""Of an index: no clip has more frames, and a longer number is no index."""
_SHOWN = 120
"""Characters of a cell in an error."""


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


def read_rows(path: Path, columns: Sequence[str] = (), texts: Sequence[str] = ()) -> Iterator[Row]:
    """The data rows of a UTF-8 CSV (a byte order mark and any line ends are fine), lazily, in order.

    `columns` must be in the header. A row with more or fewer cells than the header fails alone, on access. Raises
    ContractError naming file and line for what makes the whole file doubtful (`docs/csv.md`): one that cannot be read,
    is not UTF-8, has no header, a repeated or missing column or no data row; a quote that is never closed or is
    followed by text; a line break in a cell of `columns`, or one that may have swallowed rows. `texts` must be in the
    header too, and their cells may have several lines.
    """
    table = read_cells(path, columns, texts)
    header = next(table)
    for index, cells in enumerate(table):
        yield Row(index, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None)


def read_cells(path: Path, columns: Sequence[str] = (), texts: Sequence[str] = ()) -> Iterator[list[str]]:
    """The header, then every data row's cells as they are, also of rows of the wrong length; as `read_rows`."""
    try:
        _require_text(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _read(path, _Lines(path, file), columns, texts)
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ContractError(f"{path}: not a UTF-8 CSV: {_undecodable(path)}") from None


class _Lines:
    """The lines of a file, those of the record that is being read kept apart."""

    def __init__(self, path: Path, file: Iterable[str]) -> None:
        self._path = path
        self._file = file
        self.first = 1
        """Number of the record's first line."""
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            if "\0" in line or "\ufeff" in line:
                self._refuse(line)
            self.record.append(line)
            yield line

    def next_record(self) -> None:
        self.first += len(self.record)
        self.record.clear()

    def _refuse(self, line: str) -> None:
        number = self.first + len(self.record)
        if "\0" in line:
            raise ContractError(
                f"{self._path}: line {number} holds NUL bytes: the file is damaged, or not UTF-8; save it as UTF-8"
            )
        raise ContractError(
            f"{self._path}: line {number} holds a byte order mark: two files were joined there; remove it, and the "
            "second header with it"
        )


def _read(path: Path, lines: _Lines, columns: Sequence[str], texts: Sequence[str]) -> Iterator[list[str]]:
    """The records of a CSV that are not blank: the header first."""
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    rows = 0
    while (cells := _record(path, reader, lines)) is not None:
        if header is None:
            if not any(cell.strip() for cell in cells):
                lines.next_record()
                continue
            header = _header(path, cells, [*columns, *texts])
        elif len(lines.record) > 1:
            _refuse_swallowed(path, lines, header, cells, columns, texts)
        lines.next_record()
        if cells:
            rows += 1
            yield cells
    if header is None:
        raise ContractError(f"{path}: is empty; a header line is expected")
    if rows == 1:
        raise ContractError(f"{path}: has a header and no rows")


def _record(path: Path, reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        opened = next((at for at, line in enumerate(lines.record) if line.count('"') % 2), None)
        if "field larger" in str(error) and opened is None and len(lines.record) == 1:
            raise ContractError(
                f"{path}: line {lines.first} holds a cell of more than {csv.field_size_limit()} characters; shorten "
                "it, or leave out the column"
            ) from None
        opened = opened or 0
        what = (
            "opens a quote that is never closed"
            if "unexpected end" in str(error) or "field larger" in str(error)
            else f"has a quote in the wrong place ({error})"
        )
        raise ContractError(
            f"{path}: line {lines.first + opened} {what}; close or remove it. Inside a quoted cell a quote is written "
            'twice: ""'
        ) from None


def _refuse_swallowed(
    path: Path, lines: _Lines, header: list[str], cells: list[str], columns: Sequence[str], texts: Sequence[str]
) -> None:
    """A stray quote makes one cell of several rows, if another one closes it: such a cell has line breaks."""
    several = {name: cell for name, cell in zip(header, cells, strict=False) if "\n" in cell or "\r" in cell}
    broken = {name: cell for name, cell in several.items() if name not in texts or len(cells) != len(header)}
    if several and not broken:
        return
    wanted = [name for name in broken if name in columns]
    # Two rows of the right length that became one have swallowed a comma for every column but one.
    joined = len(header) == 1 or len(cells) != len(header) or any("," in cell for cell in broken.values())
    if wanted or joined:
        name = next(iter(wanted or broken or header))
        raise ContractError(
            f"{path}: lines {lines.first} to {lines.first + len(lines.record) - 1} are one row, with a line break in "
            f"column {name!r}: a quote in line {lines.first} may be one too many. Remove it; where the line break is "
            "meant, write a space instead"
        )


def _undecodable(path: Path) -> str:
    """Where a file stops being UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return "it is UTF-16; save it as UTF-8"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number}; save it as UTF-8"
    return "its last character is cut; save it again"


def _require_text(path: Path) -> None:
    """Raises ContractError for a pipe, which would be waited for, and for a Git LFS pointer. Raises OSError."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ContractError(f"{path}: is no regular file; give a CSV")
    if is_lfs_pointer(path):
        raise ContractError(pointer_fault(path))


def count_rows(path: Path, columns: Sequence[str] = ()) -> int:
    """How many data rows `read_rows` gives, under the same checks of file and header."""
    return sum(1 for _ in read_cells(path, columns)) - 1


def _header(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ContractError(f"{path}: repeated column {', '.join(map(repr, repeated))}; keep one of each")
    if any("\n" in name or "\r" in name for name in header):
        raise ContractError(f"{path}: a column's name holds a line break; is a quote missing in the header?")
    missing = [name for name in columns if name not in header]
    if missing:
        raise ContractError(
            f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header))}. "
            "Rename the column, or name yours in the dataset card (columns:, labels:, actions: or group:)"
        )
    return header


_INDICES = re.compile(r"(?:-?[0-9]+)(?:,-?[0-9]+)*")


def parse_indices(cell: str, frames: int) -> list[int]:
    """The sample indices of a clip: `frames` integers, comma separated, as they are or in one pair of brackets.

    Raises RowError otherwise: `1_0`, `+1`, `1.0` and `np.int64(1)` are no such integers.
    """
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = [part.strip() for part in text.split(INDICES_SEPARATOR)]
    if not _INDICES.fullmatch(INDICES_SEPARATOR.join(parts)) or any(len(part) > _DIGITS for part in parts):
        raise RowError(
            f"sample indices {_short(cell)} are not comma-separated integers; write them as 0,4,8 (of a list of numpy "
            'integers: ",".join(str(int(i)) for i in indices))'
        )
    indices = [int(part) for part in parts]
    if len(indices) != frames:
        raise RowError(f"{len(indices)} sample indices, {frames} expected: {_short(cell)}")
    if min(indices) < 0:
        raise RowError(f"negative sample index in {_short(cell)}")
    return indices


def _short(cell: str) -> str:
    """A cell as an error shows it."""
    return repr(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "...")
