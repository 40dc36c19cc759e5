"""Matroska and WebM (RFC 9559, EBML RFC 8794): elements that fill the file down to every block, and their CRC-32."""

import zlib
from collections import Counter
from typing import NamedTuple

from lary_worker.media.binary import DamagedError, Reader

_EBML, _SEGMENT, _CLUSTER, _TRACKS, _INFO = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0x1549A966
_CRC, _VOID = 0xBF, 0xEC
_TOP = frozenset({0x114D9B74, _INFO, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, _CRC, _VOID})
_BLOCK_GROUP, _BLOCKS = 0xA0, frozenset({0xA3, 0xA1})
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, _BLOCK_GROUP, 0xAF, _CRC, _VOID})
_IN_GROUP = frozenset({0xA1, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, _CRC, _VOID})
_TRACK, _TRACK_NUMBER = 0xAE, 0xD7
_CRC_MAX = 256 << 20


class Element(NamedTuple):
    """`start` to `stop` is its payload; `stop` is None where its size is not known, as in a live stream."""

    id: int
    offset: int
    start: int
    stop: int | None


def check_matroska(file: Reader) -> dict[int, int]:
    """Stream -> number of its frames. Raises DamagedError."""
    at, blocks, tracks = 0, Counter[int](), list[int]()
    while at < file.size:
        element = _element(file, at)
        if element.id == _SEGMENT:
            at = _Segment(file, element, blocks, tracks).walk()
        elif element.id in (_EBML, _VOID) and element.stop is not None:
            at = _inside(file, element, file.size)
        elif blocks:
            # Whatever follows a complete file is no part of it.
            break
        else:
            raise DamagedError(at, f"is damaged at byte {at}: no element begins there")
    if not blocks:
        raise DamagedError(0, "has no frame in it: its recording was not finished, or it is cut")
    return {stream: blocks[number] for stream, number in enumerate(tracks) if blocks[number]}


class _Segment:
    def __init__(self, file: Reader, segment: Element, blocks: Counter[int], tracks: list[int]) -> None:
        self._file = file
        self._segment = segment
        self._blocks = blocks
        self._tracks = tracks
        self._before = segment.offset

    def walk(self) -> int:
        """The segment's end. Raises DamagedError."""
        try:
            return self._walk()
        except DamagedError as error:
            if error.is_cut:
                raise
            # What destroyed an element's beginning may have begun in the one before.
            raise DamagedError(min(error.at, self._before), str(error)) from None

    def _walk(self) -> int:
        file, stop = self._file, self._segment.stop
        limit = file.size if stop is None else min(stop, file.size)
        at = self._segment.start
        while at < limit:
            element = _element(file, at)
            if stop is None and element.id == _EBML:
                # Live streams one after the other.
                return at
            _require(element.id in _TOP, at)
            after = self._level_one(element, limit)
            self._before, at = at, after
        if stop is not None and stop > file.size:
            raise _cut(at, stop, file.size)
        return at

    def _level_one(self, element: Element, limit: int) -> int:
        if element.id == _CLUSTER:
            return self._cluster(element, limit)
        stop = _inside(self._file, element, limit)
        _check_crc(self._file, element.start, stop, element.offset)
        if element.id == _TRACKS and not self._tracks:
            self._tracks += _track_numbers(self._file, element.start, stop)
        return stop

    def _cluster(self, cluster: Element, limit: int) -> int:
        stop = limit if cluster.stop is None else min(cluster.stop, limit)
        after = self._blocks_of(cluster, stop)
        if cluster.stop is not None and cluster.stop > stop:
            raise _cut(after, cluster.stop, self._file.size)
        # Last, since a block that is broken says more about where.
        if cluster.stop is not None:
            _check_crc(self._file, cluster.start, stop, cluster.offset)
        return after

    def _blocks_of(self, cluster: Element, stop: int) -> int:
        at = cluster.start
        while at < stop:
            element = _element(self._file, at)
            if cluster.stop is None and element.id in (_TOP | {_EBML}) - _IN_CLUSTER:
                return at
            _require(element.id in _IN_CLUSTER, at)
            after = _inside(self._file, element, stop)
            if element.id == _BLOCK_GROUP:
                self._group(element.start, after)
            elif element.id in _BLOCKS:
                self._block(element.start, after)
            self._before, at = at, after
        return at

    def _group(self, at: int, stop: int) -> None:
        while at < stop:
            element = _element(self._file, at)
            _require(element.id in _IN_GROUP, at)
            after = _inside(self._file, element, stop)
            if element.id in _BLOCKS:
                self._block(element.start, after)
            at = after

    def _block(self, at: int, stop: int) -> None:
        number, start = _number(self._file, at, keep_marker=False)
        _require(start + 3 <= stop and number is not None and (not self._tracks or number in self._tracks), at)
        flags = self._file.number(start + 2, 1)
        laces = self._file.number(start + 3, 1) + 1 if flags & 0x06 else 1
        self._blocks[number or 0] += laces


def _cut(at: int, stop: int, size: int) -> DamagedError:
    return DamagedError(at, f"is cut: byte {stop} is promised, it has {size}", is_cut=True)


def _require(right: bool, at: int) -> None:
    if not right:
        raise DamagedError(at, f"is damaged at byte {at}: no element that belongs there")


def _inside(file: Reader, element: Element, limit: int) -> int:
    """The element's end, which lies within `limit`."""
    if element.stop is None:
        raise DamagedError(element.offset, f"is damaged at byte {element.offset}: an element without a size")
    if element.stop > limit:
        if limit == file.size:
            raise _cut(element.offset, element.stop, limit)
        raise DamagedError(element.offset, f"is damaged at byte {element.offset}: an element is larger than its parent")
    return element.stop


def _element(file: Reader, at: int) -> Element:
    identity, after = _number(file, at, keep_marker=True)
    size, start = _number(file, after, keep_marker=False)
    _require(identity is not None, at)
    return Element(identity or 0, at, start, None if size is None else start + size)


def _number(file: Reader, at: int, *, keep_marker: bool) -> tuple[int | None, int]:
    """A variable-length number and where it ends; None for the one that stands for `unknown`."""
    try:
        first = file.number(at, 1)
        length = 9 - first.bit_length()
        _require(length <= (4 if keep_marker else 8), at)
        value = file.number(at, length)
    except DamagedError as error:
        # Of a number that is cut in two, the element before it is the last whole one.
        raise DamagedError(at, str(error), is_cut=error.is_cut) from None
    if keep_marker:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def _check_crc(file: Reader, start: int, stop: int, offset: int) -> None:
    """Compare an element's content with its CRC-32, where that is its first child, as the format wants it."""
    if stop - start < 6 or stop - start > _CRC_MAX or file.take(start, 2) != b"\xbf\x84":
        return
    promised = int.from_bytes(file.take(start + 2, 4), "little")
    if zlib.crc32(file.take(start + 6, stop - start - 6)) != promised:
        raise DamagedError(offset, f"is damaged between byte {start} and {stop}: the CRC-32 there is another")


def _track_numbers(file: Reader, at: int, stop: int) -> list[int]:
    """The number of each track, in the order of streams."""
    numbers = []
    while at < stop:
        track = _element(file, at)
        after = _inside(file, track, stop)
        if track.id == _TRACK:
            child = track.start
            while child < after:
                element = _element(file, child)
                child = _inside(file, element, after)
                if element.id == _TRACK_NUMBER:
                    numbers.append(file.number(element.start, child - element.start))
        at = after
    return numbers
