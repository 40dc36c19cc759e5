"""Still images: a JPEG's markers up to its end, a PNG's chunks and their CRC-32."""

import re
import struct
import zlib
from collections.abc import Iterator

from lary_worker.media.binary import DamagedError
from lary_worker.media.single import require_one_picture

_PNG = b"\x89PNG\r\n\x1a\n"
_HOLE = bytes(32)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length: TEM, RST0 to RST7."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""What ends a scan: in its data 0xFF has a 0 or a restart number behind it."""


def check_image(data: bytes) -> None:
    """Raises DamagedError for a JPEG or PNG that is not whole, and for an image that is no one picture.

    Whether images of other kinds are whole is left to their decoder.
    """
    require_one_picture(data)
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)


def check_jpeg(data: bytes) -> None:
    """ITU T.81, annex B: segments with their lengths, scans that end at a marker, and the end of the image (EOI).

    Bytes behind that are no part of it (cameras put previews there). Raises DamagedError.
    """
    tables: dict[int, int] = {}
    zeros_mean_nothing, scans = True, 0
    for marker, start, stop in _segments(data):
        if marker == 0xC4:
            tables |= dict(_first_symbols(data, start, stop))
        elif marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            # In progressive and arithmetic scans long runs of zero bits are usual.
            zeros_mean_nothing = marker in (0xC0, 0xC1)
        elif marker == 0xDA:
            scans += 1
            _check_scan(data, start, tables, zeros_mean_nothing)
    if not scans:
        raise DamagedError(0, "is damaged: a JPEG without a picture")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, and where its content is; of a scan (0xDA) the header. Ends at EOI."""
    at = 2
    while True:
        if at + 2 > len(data):
            raise DamagedError(at, "is cut: a JPEG without its end")
        if data[at] != 0xFF:
            raise DamagedError(at, f"is damaged at byte {at}: no part of a JPEG begins there")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return
        if marker in _STANDALONE:
            at += 2
            continue
        if at + 4 > len(data):
            raise DamagedError(at, "is cut: a JPEG without its end")
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0 or stop < at + 4 or stop > len(data):
            raise DamagedError(at, f"is damaged or cut at byte {at}: a part of a JPEG goes beyond its end")
        yield marker, at + 4, stop
        at = _scan_end(data, stop) if marker == 0xDA else stop


def _scan_end(data: bytes, at: int) -> int:
    """Where the first marker behind a scan's data is."""
    found = _MARKER.search(data, at)
    if found is None:
        raise DamagedError(len(data), "is cut: a JPEG without its end", is_cut=True)
    return found.start()


def _first_symbols(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int]]:
    """Class and number of each Huffman table, and the symbol whose code is all zero bits."""
    while at + 17 <= stop:
        count = sum(data[at + 1 : at + 17])
        if count and at + 17 < stop:
            yield data[at], data[at + 17]
        at += 17 + count


def _check_scan(data: bytes, start: int, tables: dict[int, int], zeros_mean_nothing: bool) -> None:
    """A run of zero bytes is damage where zero bits cannot be a long row of equal blocks."""
    pairs = data[start + 2 : start + 1 + 2 * data[start] : 2]
    # With these tables zero bits say `as the block before, and flat`.
    flat = all(tables.get(pair >> 4, 1) == 0 and tables.get(0x10 | pair & 15, 1) == 0 for pair in pairs)
    stop = _scan_end(data, start)
    if zeros_mean_nothing and not flat and (at := data.find(_HOLE, start, stop)) >= 0:
        raise DamagedError(at, f"is damaged at byte {at}: zeros in place of the picture")


def _check_png(data: bytes) -> None:
    at = len(_PNG)
    while True:
        if at + 12 > len(data):
            raise DamagedError(at, "is cut: a PNG without its end")
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + length
        if stop > len(data):
            raise DamagedError(at, f"is cut: byte {stop} is promised, it has {len(data)}")
        if zlib.crc32(data[at + 4 : stop - 4]) != int.from_bytes(data[stop - 4 : stop]):
            raise DamagedError(at, f"is damaged between byte {at} and {stop}: the CRC-32 there is another")
        if kind == b"IEND":
            return
        at = stop
