"""Reading a file at positions, for the walkers of containers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_AHEAD = 1 << 16


class DamagedError(ValueError):
    """A file is not what its own container says.

    `at`: the byte from which on nothing is sure. `is_cut`: the file ends there, and all before is as it was.
    """

    def __init__(self, at: int, message: str, *, is_cut: bool = False) -> None:
        super().__init__(message)
        self.at = at
        self.is_cut = is_cut


class Reader:
    """Bytes of a file by position, with a small read-ahead. No memory map: an I/O error must be an exception."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._start, self._block = 0, b""

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    def take(self, at: int, count: int) -> bytes:
        """`count` bytes from `at` on. Raises DamagedError where the file ends before."""
        if at < 0 or at + count > self.size:
            what = f"is cut: byte {at + count} is promised, it has {self.size}"
            raise DamagedError(min(at, self.size), what, is_cut=True)
        offset = at - self._start
        if offset < 0 or offset + count > len(self._block):
            self._start, self._block = at, self._read(at, max(count, min(_AHEAD, self.size - at)))
            offset = 0
        return self._block[offset : offset + count]

    def number(self, at: int, count: int = 4) -> int:
        """A big-endian number."""
        return int.from_bytes(self.take(at, count))

    def _read(self, at: int, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0:
            part = os.pread(self._fd, count, at)
            if not part:
                raise DamagedError(at, f"became shorter while it was read, at byte {at}")
            parts.append(part)
            at, count = at + len(part), count - len(part)
        return b"".join(parts)
