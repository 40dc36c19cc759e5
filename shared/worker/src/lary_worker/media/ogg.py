"""Ogg: pages with their CRC-32 and their numbers, up to the last one of each stream (RFC 3533, section 6)."""

import zlib

from lary_worker.media.binary import DamagedError, Reader

_CONTINUED, _FIRST, _LAST = 1, 2, 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_ogg(file: Reader) -> dict[int, int]:
    """How many pictures there are is not promised. Raises DamagedError."""
    numbers: dict[int, int] = {}
    ended: set[int] = set()
    at = 0
    while at < file.size:
        flags, stream, number, stop = _page(file, at)
        if flags & _FIRST:
            ended.discard(stream)
        elif numbers.get(stream) != number - 1 & 0xFFFFFFFF:
            raise DamagedError(0, f"is damaged before byte {at}: page {numbers.get(stream)} is followed by {number}")
        numbers[stream] = number
        if flags & _LAST:
            ended.add(stream)
        at = stop
    if numbers.keys() - ended:
        raise DamagedError(file.size, "is cut: a stream in it has no last page", is_cut=True)
    return {}


def _page(file: Reader, at: int) -> tuple[int, int, int, int]:
    """Flags, stream, number and end of a page."""
    head = file.take(at, min(27, file.size - at))
    if not b"OggS\0".startswith(head[:5]):
        raise DamagedError(0, f"is damaged at byte {at}: no page begins there")
    start = at + 27 + file.take(at + 26, 1)[0]
    stop = start + sum(file.take(at + 27, start - at - 27))
    page = file.take(at, stop - at)
    if _crc32(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
        raise DamagedError(0, f"is damaged between byte {at} and {stop}: the CRC-32 there is another")
    return page[5], int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little"), stop


def _crc32(data: bytes) -> int:
    """Ogg's: zlib's polynomial with the highest bit first, from 0 on."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
