"""MPEG transport streams (ISO/IEC 13818-1, 2.4): packets of one size, counted modulo 16 for each of their streams."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lary_worker.media.binary import DamagedError, Reader

_SYNC = 0x47
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
"""Size of a packet and where in it the 188 bytes begin: plain, M2TS with times, with parity."""
_BLOCK = 1 << 14
_NULL = 0x1FFF
_TABLES = range(0x20)
"""Streams of tables, which say what the others are."""


def transport_layout(beginning: bytes) -> tuple[int, int] | None:
    """The layout of a transport stream, or None for another file."""
    for size, offset in _LAYOUTS:
        if len(beginning) >= offset + 1 and all(byte == _SYNC for byte in beginning[offset::size][:5]):
            return size, offset
    return None


def check_transport(file: Reader) -> bool:
    """Whether it is several streams one after the other; it promises no number of frames.

    Raises DamagedError, always at its first byte: pictures are spread over packets, and where one ends is known by
    the next alone, so that no part of a damaged stream is sure.
    """
    layout = transport_layout(file.take(0, min(file.size, 1024)))
    if layout is None:
        raise DamagedError(0, "is damaged at its beginning: no packet of a transport stream")
    if file.size % layout[0]:
        raise DamagedError(0, f"is cut: {file.size} bytes are no whole number of packets of {layout[0]}")
    last: dict[int, _Seen] = {}
    tables = -1
    """Packet at which the program's tables were counted anew: a stream that was appended begins there."""
    joined = False
    for first, block in _blocks(file, *layout):
        _check_marks(block, first, layout[0])
        for at, row in enumerate(_headers(block), first):
            before = last.get(row.pid)
            if before is not None and not _follows(row, before):
                if row.pid in _TABLES:
                    tables = at
                elif row.starts and tables > before.at:
                    joined = True
                else:
                    raise DamagedError(0, f"is damaged: packets are missing before byte {at * layout[0]}")
            last[row.pid] = _Seen(row.counter, row.payload, at)
    return joined


class _Header(NamedTuple):
    pid: int
    counter: int
    payload: bool
    starts: bool
    """Whether a new unit of the stream begins in this packet."""
    free: bool
    """Whether the packet says itself that counting begins anew."""


class _Seen(NamedTuple):
    counter: int
    payload: bool
    at: int


def _follows(row: _Header, before: _Seen) -> bool:
    if row.free or row.pid == _NULL:
        return True
    # A packet may be sent twice; one without payload is not counted.
    return row.counter in (((before.counter + 1) % 16, before.counter) if row.payload else (before.counter,))


def _blocks(file: Reader, size: int, offset: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number of the first packet, and (packets, 188)."""
    for first in range(0, file.size // size, _BLOCK):
        count = min(_BLOCK, file.size // size - first)
        packets = np.frombuffer(file.take(first * size, count * size), np.uint8).reshape(count, size)
        yield first, packets[:, offset : offset + 188]


def _check_marks(block: NDArray[np.uint8], first: int, size: int) -> None:
    wrong = (block[:, 0] != _SYNC) | (block[:, 1] >= 0x80) | ((block[:, 3] & 0x30) == 0)
    if wrong.any():
        at = first + int(wrong.argmax())
        raise DamagedError(0, f"is damaged at byte {at * size}: no whole packet begins there")


def _headers(block: NDArray[np.uint8]) -> Iterator[_Header]:
    """The packets whose count says something: the first of the block for each stream, and those that break it."""
    pids = ((block[:, 1].astype(np.int64) & 0x1F) << 8) | block[:, 2]
    counters, payload = block[:, 3] & 0x0F, (block[:, 3] & 0x10) != 0
    starts = (block[:, 1] & 0x40) != 0
    free = ((block[:, 3] & 0x20) != 0) & (block[:, 4] > 0) & ((block[:, 5] & 0x80) != 0)
    for values in zip(pids.tolist(), counters.tolist(), payload.tolist(), starts.tolist(), free.tolist(), strict=True):
        yield _Header(*values)
