"""AVI (RIFF, OpenDML): chunks that fill the file, the number of frames in its headers, and its index."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from lary_worker.media.binary import DamagedError, Reader

_UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFFFFF)
"""Sizes and counts of a file that was written where nobody could go back to its beginning."""


class Chunk(NamedTuple):
    """`start` to `stop` is its payload, without the kind of a list."""

    kind: bytes
    offset: int
    start: int
    stop: int


def check_avi(file: Reader) -> dict[int, int]:
    """Stream -> number of its chunks with content. Raises DamagedError."""
    walk = _Walk(file)
    at = 0
    while at + 12 <= file.size and file.take(at, 4) == b"RIFF":
        at = walk.riff(at)
    if not walk.chunks:
        raise DamagedError(0, "has no frame in it: its recording was not finished, or it is cut")
    walk.compare()
    return dict(walk.filled)


class _Walk:
    def __init__(self, file: Reader) -> None:
        self._file = file
        self.chunks = Counter[int]()
        self.filled = Counter[int]()
        self._promised: dict[int, int] = {}
        self._streams = 0
        self._index: Chunk | None = None
        self._complete = True
        self._first_riff: list[int] = []
        self._before = 0

    def riff(self, at: int) -> int:
        """The end of one RIFF, with all that is in it."""
        size = _little(self._file, at + 4)
        open_end = size in _UNKNOWN
        stop = self._file.size if open_end else at + 8 + size
        self._complete = self._complete and not open_end
        self._children(at + 12, min(stop, self._file.size))
        if stop > self._file.size:
            raise _cut(self._file.size, stop, self._file.size)
        self._first_riff = self._first_riff or [self.chunks[s] for s in range(self._streams)]
        return stop + stop % 2

    def compare(self) -> None:
        """Headers and index against the chunks."""
        if not self._complete:
            return
        for stream, promised in self._promised.items():
            if promised > self.chunks[stream]:
                raise DamagedError(0, f"is damaged: {promised} frames are promised, it has {self.chunks[stream]}")
        if self._index is None:
            return
        length = (self._index.stop - self._index.start) // 16
        table = np.frombuffer(self._file.take(self._index.start, length * 16), "<u4").reshape(length, 4)
        listed = Counter(_stream(kind.tobytes()) for kind in table[:, 0].astype("<u4"))
        for stream, count in enumerate(self._first_riff):
            if listed[stream] != count:
                raise DamagedError(0, f"is damaged: its index lists {listed[stream]} frames, it has {count}")

    def _children(self, at: int, stop: int, in_movi: bool = False) -> None:
        while at + 8 <= stop:
            chunk = self._chunk(at, stop)
            if chunk.kind == b"LIST":
                self._list(chunk, in_movi, stop)
            elif chunk.stop > stop:
                self._too_large(chunk, stop)
            elif in_movi:
                self._media(chunk)
            elif chunk.kind == b"idx1":
                self._index = chunk
            elif chunk.kind == b"strh":
                self._header(chunk)
            self._before = at
            at = chunk.stop + chunk.stop % 2

    def _chunk(self, at: int, limit: int) -> Chunk:
        kind, size = self._file.take(at, 4), _little(self._file, at + 4)
        if not all(32 <= byte < 127 for byte in kind):
            # What destroyed a chunk's beginning may have begun in the one before.
            raise DamagedError(self._before, f"is damaged at byte {at}: no chunk begins there")
        open_end = kind == b"LIST" and size in _UNKNOWN
        return Chunk(kind, at, at + 8, limit if open_end else at + 8 + size)

    def _too_large(self, chunk: Chunk, limit: int) -> None:
        if limit == self._file.size:
            raise _cut(chunk.offset, chunk.stop, limit)
        raise DamagedError(self._before, f"is damaged at byte {chunk.offset}: a chunk is larger than the one around")

    def _list(self, chunk: Chunk, in_movi: bool, limit: int) -> None:
        kind, stop = self._file.take(chunk.start, 4), min(chunk.stop, limit)
        if kind in (b"hdrl", b"strl", b"odml", b"INFO"):
            self._children(chunk.start + 4, stop)
        elif kind == b"movi" or (in_movi and kind == b"rec "):
            self._children(chunk.start + 4, stop, in_movi=True)
        elif in_movi:
            raise DamagedError(self._before, f"is damaged at byte {chunk.offset}: no chunk that belongs there")
        if chunk.stop > limit:
            self._too_large(chunk._replace(offset=limit), limit)

    def _media(self, chunk: Chunk) -> None:
        if chunk.kind.startswith(b"ix") or chunk.kind in (b"JUNK", b"idx1"):
            return
        stream = _stream(chunk.kind)
        if not 0 <= stream < self._streams:
            raise DamagedError(self._before, f"is damaged at byte {chunk.offset}: no chunk that belongs there")
        self.chunks[stream] += 1
        self.filled[stream] += chunk.stop > chunk.start

    def _header(self, chunk: Chunk) -> None:
        length = _little(self._file, chunk.start + 32)
        if self._file.take(chunk.start, 4) == b"vids" and length not in _UNKNOWN:
            self._promised[self._streams] = length
        self._streams += 1


def _stream(kind: bytes) -> int:
    """The stream of a chunk of media (`00dc`, `01wb`), or -1."""
    return int(kind[:2]) if kind[:2].isdigit() and kind[2:].isalnum() else -1


def _little(file: Reader, at: int) -> int:
    return int.from_bytes(file.take(at, 4), "little")


def _cut(at: int, promised: int, size: int) -> DamagedError:
    return DamagedError(at, f"is cut: byte {promised} is promised, it has {size}", is_cut=True)
