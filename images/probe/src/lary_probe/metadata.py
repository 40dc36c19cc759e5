"""The CSV columns that a probe needs of one split, small enough for millions of rows."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import VideoColumns
from lary_schema.jobs import ProbeSplit
from lary_schema.metadata import Row, RowError, read_cells

from lary_probe.latents import Latents

BLOCK = 2048
"""Rows that are compressed together: paths of one folder are alike."""
SEPARATOR = "\0"
"""Stands in no cell: a CSV with it is refused."""


class SplitMetadata:
    """The rows of a split's CSV, row r of the store at index r."""

    def __init__(self, split: ProbeSplit, job_root: Path, columns: Sequence[str], optional: Iterable[str] = ()) -> None:
        """Keep `columns`, the media's and, where they are there, the `optional` ones.

        Raises ContractError where the file is not the planned one or one of `columns` is missing.
        """
        self.path = job_root / split.source.metadata.path
        self.split = split
        self._columns = _Columns(read_cells(self.path, columns), (*columns, *_media_columns(split), *optional))
        if file_sha256(self.path) != split.source.metadata.sha256:
            raise ContractError(f"{self.path}: changed since the job was planned; plan it again")
        if len(self) != split.source.metadata.rows:
            raise ContractError(f"{self.path}: {len(self)} rows, {split.source.metadata.rows} were planned")

    def __len__(self) -> int:
        return self._columns.count

    def __iter__(self) -> Iterator[Row]:
        return (self.row(row) for row in range(len(self)))

    def row(self, row: int) -> Row:
        return self._columns.row(row)

    def cell(self, row: int, column: str) -> str:
        """A cell that a score depends on. Raises ContractError naming file and row where it is empty."""
        try:
            return self.row(row)[column]
        except RowError as error:
            raise ContractError(
                f"{self.path}: row {row}: {error}; every row with a latent needs its ground truth"
            ) from None

    def media(self, latents: Latents) -> Iterator[str]:
        """The media cell of each row with a latent: the clip, or the pair's first image."""
        column = _media_columns(self.split)[0]
        return (self.row(row).get(column) or "" for row in latents.rows.tolist())


def _media_columns(split: ProbeSplit) -> tuple[str, ...]:
    columns = split.source.columns
    return (columns.video,) if isinstance(columns, VideoColumns) else (columns.source, columns.target)


class _Columns:
    """Some columns of a table, compressed in blocks of rows; reading them in order unpacks each block once."""

    def __init__(self, table: Iterator[list[str]], wanted: Iterable[str]) -> None:
        """`table` is the header, then rows of any length."""
        header = next(table)
        self.names = tuple(name for name in dict.fromkeys(wanted) if name in header)
        self.count = 0
        self._malformed: set[int] = set()
        columns = [header.index(name) for name in self.names]
        kept = (self._kept(row, len(header), columns) for row in table)
        blocks = iter(lambda: [cell for cells in islice(kept, BLOCK) for cell in cells], [])
        self._blocks = [zlib.compress(SEPARATOR.join(block).encode(), level=1) for block in blocks]
        self._unpacked: tuple[int, list[str]] = (-1, [])

    def _kept(self, row: list[str], width: int, columns: list[int]) -> list[str]:
        self.count += 1
        if len(row) == width:
            return [row[column] for column in columns]
        self._malformed.add(self.count - 1)
        return [""] * len(columns)

    def row(self, row: int) -> Row:
        if row in self._malformed:
            return Row(row, None)
        block, at = divmod(row, BLOCK)
        if self._unpacked[0] != block:
            self._unpacked = block, zlib.decompress(self._blocks[block]).decode().split(SEPARATOR)
        start = at * len(self.names)
        cells = self._unpacked[1][start : start + len(self.names)]
        return Row(row, dict(zip(self.names, cells, strict=True)))
