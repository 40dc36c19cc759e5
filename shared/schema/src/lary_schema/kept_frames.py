"""Preprocessed rows that several extractions share, while they run: each row is decoded once (decision 0042).

One file for one split and one preprocessing: a record a row, then the rows. Extractions that want the same row wait for
the one that makes it. A file is a cache: a row counts only where its checksum and its media's size and time of change
fit, and where anything is wrong with it, the row is decoded as if there were no file.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lary_schema.base import fingerprint
from lary_schema.jobs import ExtractJob

VARIABLE = "LARY_FRAMES"
"""Names the file of a job; empty: none."""
_RECORD = struct.Struct("<IBxxxQQQQ")
"""Checksum of what follows and of the row, state, size and times of change of its files (a second one or 0)."""
_MADE, _CLAMPED = 1, 2
_UNSIGNED = (1 << 64) - 1
_PAGE = 4096


def key_of(job: ExtractJob, image: tuple[str, str], data: Path) -> str:
    """Hash of what a preprocessed row depends on; `image` is its name, and what changes with any source or library."""
    values = job.values
    return fingerprint(
        {
            "image": image,
            "preprocessing": values.preprocessing,
            "input": values.spec.input.model_dump(mode="json"),
            "mode": values.mode,
            "decoder": values.decoder,
            "source": job.source.model_dump(mode="json"),
            "data": str(data),
        }
    )[:16]


def file_bytes(rows: int, row_bytes: int) -> int:
    """Of the file of a whole split, at most: rows that are not made take no space."""
    return _first(rows) + rows * row_bytes


def _first(rows: int) -> int:
    return -(-rows * _RECORD.size // _PAGE) * _PAGE


def create(path: Path, rows: int, row_bytes: int) -> None:
    """Make the file, without a row; one that is there and has the right size is taken as it is. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(fd).st_size != file_bytes(rows, row_bytes):
            os.ftruncate(fd, 0)
            os.ftruncate(fd, file_bytes(rows, row_bytes))
    finally:
        os.close(fd)


class KeptFrames:
    """The file as one decode process uses it."""

    def __init__(self, path: Path, rows: int, row_bytes: int) -> None:
        """Raises OSError where it is not there or of another size."""
        self._rows, self._row_bytes = rows, row_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._fd).st_size != file_bytes(rows, row_bytes):
            os.close(self._fd)
            raise OSError(f"{path}: is no file of {rows} rows of {row_bytes} bytes")
        self._compared = self._usable = False
        self._writable = True

    @classmethod
    def open(cls, path: str, rows: int, row_bytes: int) -> Self | None:
        """None where there is none to use."""
        with suppress(OSError):
            return cls(Path(path), rows, row_bytes) if path else None
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def fill(self, row: int, paths: Sequence[str], into: memoryview, make: Callable[[], bool]) -> bool:
        """Put a row into the writable bytes `into`; whether an index of it was clamped.

        `make` does that anew, and is called where the row is not kept; what it raises is raised, and nothing is kept.
        The first kept row is made all the same and compared: where another extraction had other pixels, contrary
        to the name of its preprocessing, this one does without the file.
        """
        try:
            facts = _facts(paths)
        except OSError:
            return make()
        if self._compared and not self._usable:
            return make()
        with self._alone(row):
            state = self._read(row, facts, into)
            if state is None:
                clamped = make()
                self._write(row, facts, into, clamped=clamped)
                return clamped
        clamped = bool(state & _CLAMPED)
        return clamped if self._compared else self._compare(bytes(into), clamped, into, make)

    def _compare(self, kept: bytes, clamped: bool, into: memoryview, make: Callable[[], bool]) -> bool:
        made = make()
        self._compared, self._usable = True, made == clamped and bytes(into) == kept
        return made

    @contextmanager
    def _alone(self, row: int) -> Iterator[None]:
        """Hold a row's lock, which ends with the process; a volume without locks makes rows several times."""
        with suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, row)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, row)

    def _read(self, row: int, facts: bytes, into: memoryview) -> int | None:
        """The row's state, its bytes in `into`; None where it is not there, or of other files."""
        with suppress(OSError):
            record = os.pread(self._fd, _RECORD.size, row * _RECORD.size)
            checksum, state, *_ = _RECORD.unpack(record)
            if state & _MADE and record[8:] == facts:
                count = os.preadv(self._fd, [into], self._offset(row))
                if count == self._row_bytes and checksum == _checksum(state, facts, into):
                    return int(state)
        return None

    def _write(self, row: int, facts: bytes, content: memoryview, *, clamped: bool) -> None:
        if not self._writable:
            return
        state = _MADE | (_CLAMPED if clamped else 0)
        try:
            whole = os.pwrite(self._fd, content, self._offset(row)) == len(content)
            if whole:
                record = struct.pack("<IBxxx", _checksum(state, facts, content), state) + facts
                os.pwrite(self._fd, record, row * _RECORD.size)
        except OSError:
            whole = False
        # The volume is full, say: rows that are kept serve on.
        self._writable = whole

    def _offset(self, row: int) -> int:
        return _first(self._rows) + row * self._row_bytes


def _facts(paths: Sequence[str]) -> bytes:
    """Size and times of change of up to two files.

    An edit that restores the file's time changes the inode's, so the sum differs. Times before 1970 are negative.
    """
    found = [Path(path).stat() for path in paths]
    numbers = [number for one in found for number in (one.st_size, one.st_mtime_ns + one.st_ctime_ns & _UNSIGNED)]
    return struct.pack("<QQQQ", *(numbers + [0] * (4 - len(numbers))))


def _checksum(state: int, facts: bytes, row: memoryview) -> int:
    return zlib.crc32(row, zlib.crc32(facts, state))
