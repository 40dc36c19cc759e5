"""A job's two output streams: whole lines for the scheduler, a log file that cannot fill the disk."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

LINE_BYTES = 1 << 20
"""A longer line is handed on in pieces: no event is that long, and memory is not to fill up with one."""
LOG_BYTES = 32 << 20


class Lines:
    """Cuts a stream of bytes, which arrives in pieces of any length, into lines of text."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._rest = b""
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now, each with its line end."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        yield from (_text(line + b"\n") for line in whole)
        if len(self._rest) > self._limit:
            yield from self.end()

    def end(self) -> Iterator[str]:
        """What came after the last line end."""
        if self._rest:
            yield _text(self._rest + b"\n")
        self._rest = b""


def _text(line: bytes) -> str:
    return line.decode(errors="replace")


class BoundedLog:
    """A file that keeps the last `limit` to `2 * limit` bytes written: the older half is in a second file, `.1`."""

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self._path = path
        self._limit = limit
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > self._limit and self._file.tell():
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("wb", buffering=0)
        self._file.write(data)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
