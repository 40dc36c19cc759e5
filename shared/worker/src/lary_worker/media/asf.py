"""ASF (WMV): objects with their sizes, the number and size of data packets, and payloads that fill each packet.

Source: Microsoft, Advanced Systems Format (ASF) Specification, revision 01.20.03, sections 2, 3.2 and 5.2.
"""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from lary_worker.media.binary import DamagedError, Reader

_HEADER = UUID("75b22630-668e-11cf-a6d9-00aa0062ce6c").bytes_le
_DATA = UUID("75b22636-668e-11cf-a6d9-00aa0062ce6c").bytes_le
_FILE_PROPERTIES = UUID("8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le
_STREAM_PROPERTIES = UUID("b7dc0791-a9b7-11cf-8ee6-00c00c205365").bytes_le
_INDICES = frozenset(
    UUID(name).bytes_le
    for name in ("33000890-e5b1-11cf-89f4-00a0c90349cb", "d6e229d3-35da-11d1-9034-00a0c90349be")
)  # fmt: skip
_WIDTHS = (0, 1, 2, 4)
"""Bytes of a number, by the two bits that say its type."""


class _Object(NamedTuple):
    """`start` to `stop` is its content, behind GUID and size."""

    kind: bytes
    start: int
    stop: int


class _Properties(NamedTuple):
    live: bool
    """Written where nobody could go back to the beginning: numbers and sizes there mean nothing."""
    packets: int
    packet_bytes: int


def check_asf(file: Reader) -> dict[int, int]:
    """How many pictures there are is not promised. Raises DamagedError."""
    header = _object(file, 0, file.size)
    if header.kind != _HEADER:
        raise DamagedError(0, "is damaged: it does not begin with an ASF's header")
    properties = _check_header(file, header)
    data = _object(file, header.stop, None if properties.live else file.size)
    if data.kind != _DATA:
        raise DamagedError(0, f"is damaged at byte {header.stop}: its packets are to begin there")
    stop = _data_end(file, data, properties)
    if stop > file.size:
        raise DamagedError(0, f"is cut: byte {stop} is promised, it has {file.size}", is_cut=True)
    _check_packets(file, data.start + 26, stop, properties.packet_bytes)
    while stop < file.size and not properties.live:
        stop = _object(file, stop, file.size).stop
    return {}


def _object(file: Reader, at: int, limit: int | None) -> _Object:
    size = _little(file, at + 16, 8)
    if size < 24 or (limit is not None and at + size > limit):
        raise DamagedError(0, f"is cut or damaged: the part at byte {at} is {size} bytes long, the file {file.size}")
    return _Object(file.take(at, 16), at + 24, at + size)


def _check_header(file: Reader, header: _Object) -> _Properties:
    """Parts that fill the header, as many as it says, those that no file goes without among them."""
    at, count, found = header.start + 6, _little(file, header.start, 4), dict[bytes, _Object]()
    for _ in range(count):
        part = _object(file, at, header.stop)
        found[part.kind], at = part, part.stop
    if at != header.stop or not {_FILE_PROPERTIES, _STREAM_PROPERTIES} <= found.keys():
        raise DamagedError(0, f"is damaged: its {count} headers do not fill the {header.stop} bytes that they have")
    start = found[_FILE_PROPERTIES].start
    smallest, largest = _little(file, start + 68, 4), _little(file, start + 72, 4)
    if smallest != largest or not smallest:
        raise DamagedError(0, f"is damaged: its packets are {smallest} to {largest} bytes long, which must be equal")
    return _Properties(bool(_little(file, start + 64, 4) & 1), _little(file, start + 32, 8), smallest)


def _data_end(file: Reader, data: _Object, properties: _Properties) -> int:
    start = data.start + 26
    if properties.live and data.stop <= start:
        return _live_end(file, start, properties.packet_bytes)
    packets = _little(file, data.start + 16, 8)
    stop = start + packets * properties.packet_bytes
    if stop != data.stop or not (properties.live or packets == properties.packets):
        what = f"{properties.packets} and {packets} packets of {properties.packet_bytes} bytes"
        raise DamagedError(0, f"is damaged: its headers say {what}, in a part of {data.stop - start} bytes")
    return stop


def _live_end(file: Reader, at: int, packet_bytes: int) -> int:
    """Packets up to an index, or up to the file's end."""
    while at < file.size and file.take(at, min(16, file.size - at)) not in _INDICES:
        at += packet_bytes
    if at > file.size:
        raise DamagedError(0, f"is cut: byte {at} is promised, it has {file.size}", is_cut=True)
    return at


class _Piece(NamedTuple):
    """A part of a media object (a picture, a piece of sound) in a packet."""

    stream: int
    number: int
    offset: int
    object_bytes: int
    size: int


def _check_packets(file: Reader, at: int, stop: int, packet_bytes: int) -> None:
    """Pieces fill each packet and follow each other within their media object."""
    waiting: dict[int, _Piece] = {}
    for start in range(at, stop, packet_bytes):
        for piece in _Packet(file.take(start, packet_bytes), start).pieces():
            before = waiting.pop(piece.stream, None)
            due = 0 if before is None else before.offset + before.size
            if piece.offset != due or (before is not None and piece.number != before.number):
                raise DamagedError(0, f"is damaged at byte {start}: a part of a picture is missing before it")
            if due + piece.size > piece.object_bytes:
                raise DamagedError(0, f"is damaged at byte {start}: a picture is longer than it says")
            if due + piece.size < piece.object_bytes:
                waiting[piece.stream] = piece
    if waiting:
        raise DamagedError(0, "is cut or damaged: the end of its last picture is missing")


class _Packet:
    """One data packet, read from its beginning on. Raises DamagedError where its lengths do not fit it."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start, self._at = data, start, 0

    def pieces(self) -> Iterator[_Piece]:
        if self._data[0] & 0x80:
            self._at = 1 + (self._data[0] & 15)
        types, properties = self._number(1), self._number(1)
        length = self._number(_WIDTHS[types >> 5 & 3]) or len(self._data)
        self._number(_WIDTHS[types >> 1 & 3])
        stop = length - self._number(_WIDTHS[types >> 3 & 3])
        self._at += 6
        several = self._number(1) if types & 1 else 0
        for left in range(several & 63 if types & 1 else 1, 0, -1):
            yield from self._piece(properties, _WIDTHS[several >> 6] if types & 1 else 0, stop, left == 1)
        if self._at != stop or length > len(self._data):
            self._damaged()

    def _piece(self, properties: int, width: int, stop: int, is_last: bool) -> Iterator[_Piece]:
        stream = self._number(1) & 127
        number, offset, known = (self._number(_WIDTHS[properties >> shift & 3]) for shift in (4, 2, 0))
        size_of = self._number(4) if known >= 8 else 0
        self._at += known - 4 if known >= 8 else known
        size = self._number(width) if width else stop - self._at
        self._at += size
        if size < 0 or self._at > stop or (is_last and self._at != stop):
            self._damaged()
        if known >= 8:
            yield _Piece(stream, number, offset, size_of, size)

    def _number(self, width: int) -> int:
        at, self._at = self._at, self._at + width
        if self._at > len(self._data):
            self._damaged()
        return int.from_bytes(self._data[at : self._at], "little")

    def _damaged(self) -> None:
        raise DamagedError(0, f"is damaged between byte {self._start} and {self._start + len(self._data)}: no packet")


def _little(file: Reader, at: int, count: int) -> int:
    return int.from_bytes(file.take(at, count), "little")
