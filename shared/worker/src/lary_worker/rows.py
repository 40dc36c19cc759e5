"""From CSV rows to what a decode process needs to know, and no more."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import VideoColumns
from lary_schema.jobs import ExtractJob
from lary_schema.metadata import Row, RowError, count_rows, parse_indices, read_rows
from lary_schema.mounts import Mounts, resolve_media
from lary_schema.store.layout import Failure

from lary_worker.faults import RowFaultError


class Task(NamedTuple):
    """One row to decode."""

    row: int
    names: tuple[str, ...]
    """The CSV's own text of each file: what errors may say."""
    paths: tuple[str, ...]
    indices: tuple[int, ...]
    """Of a clip; empty for a pair."""


class Metadata:
    """The metadata CSV of a job: the planned bytes, or a ContractError."""

    def __init__(self, job: ExtractJob, mounts: Mounts) -> None:
        source = job.source
        self._planned = source.metadata
        self._path = mounts.job / source.metadata.path
        self._data = mounts.data
        self._media = mounts.data / source.media
        self._host_data = source.host_data
        self._frames = source.frames
        self._implied_folder = source.columns.implied_folder
        columns = source.columns
        self._is_clip = isinstance(columns, VideoColumns)
        self._columns = (
            (columns.video, columns.indices) if isinstance(columns, VideoColumns) else (columns.source, columns.target)
        )

    def verify(self) -> None:
        """Compare the file with the plan. Raises ContractError saying what differs."""
        try:
            found = file_sha256(self._path)
        except OSError as error:
            raise ContractError(f"{self._path}: cannot be read: {error.strerror}") from None
        if found != self._planned.sha256:
            raise ContractError(
                f"{self._path}: changed since it was planned (sha256 {found[:16]}, "
                f"planned {self._planned.sha256[:16]}); plan the job again"
            )
        rows = count_rows(self._path, self._columns)
        if rows != self._planned.rows:
            raise ContractError(f"{self._path}: has {rows} rows, planned were {self._planned.rows}; plan the job again")

    def require_media(self) -> None:
        """Refuse to fail row after row where the whole folder is not there. Raises ContractError."""
        if not self._media.is_dir():
            raise ContractError(f"{self._media}: the folder of the media is missing; mount it, or give --data")

    def tasks(self, ranges: Iterable[range]) -> Iterator[Task | Failure]:
        """The rows of ascending, disjoint `ranges`, in order, without holding the file in memory."""
        rows = read_rows(self._path, self._columns)
        for wanted in ranges:
            for row in rows:
                if row.index in wanted:
                    yield self._task(row)
                if row.index + 1 == wanted.stop:
                    break

    def _task(self, row: Row) -> Task | Failure:
        try:
            return self._clip(row) if self._is_clip else self._pair(row)
        except RowFaultError as fault:
            return Failure(row=row.index, reason=fault.reason, detail=fault.detail)

    def _clip(self, row: Row) -> Task:
        name, cell = self._cells(row)
        try:
            indices = parse_indices(cell, self._frames)
        except RowError as error:
            raise RowFaultError("bad_indices", str(error)) from None
        return Task(row.index, (name,), (self._file(name),), tuple(indices))

    def _pair(self, row: Row) -> Task:
        names = self._cells(row)
        return Task(row.index, names, tuple(self._file(name) for name in names), ())

    def _cells(self, row: Row) -> tuple[str, ...]:
        try:
            return tuple(row[column] for column in self._columns)
        except RowError as error:
            raise RowFaultError("bad_row", str(error)) from None

    def _file(self, name: str) -> str:
        try:
            return str(resolve_media(name, self._media, self._data, self._host_data, self._implied_folder))
        except ContractError as error:
            raise RowFaultError("bad_path", str(error)) from None
