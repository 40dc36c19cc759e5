"""MP4, MOV, M4V, 3GP (ISO/IEC 14496-12): boxes that fill the file, and tables that say where each sample lies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lary_worker.media.binary import DamagedError, Reader

_TABLES_MAX = 1 << 30


class Box(NamedTuple):
    """`start` to `stop` is its payload."""

    kind: bytes
    offset: int
    start: int
    stop: int


def check_mp4(file: Reader) -> dict[int, int]:
    """Stream -> number of samples, where the file promises one. Raises DamagedError."""
    boxes = list(_top_level(file))
    moov = _index(boxes)
    fragments = [box for box in boxes if box.kind == b"moof"]
    media = [(box.start, min(box.stop, file.size)) for box in boxes if box.kind == b"mdat"]
    promised = _check_tracks(_Tree(file, moov), moov, media, file.size, is_fragmented=bool(fragments))
    for moof in fragments:
        _check_fragment(file, moof)
    if fragments:
        _require_whole(boxes, file.size)
    return promised


def _index(boxes: list[Box]) -> Box:
    moov = next((box for box in boxes if box.kind == b"moov"), None)
    if moov is None:
        raise DamagedError(0, "has no index (moov box): its recording was not finished, or it is cut")
    if moov.stop - moov.start > _TABLES_MAX:
        raise DamagedError(0, "has an index (moov box) of more than 1 GiB")
    return moov


def _check_tracks(
    tree: "_Tree", moov: Box, media: list[tuple[int, int]], size: int, *, is_fragmented: bool
) -> dict[int, int]:
    """Stream -> number of samples in the index, of video streams that neither fragments nor an edit list change."""
    promised = {}
    tracks = [child for child in tree.children(moov) if child.kind == b"trak"]
    for number, track in enumerate(tracks):
        if tree.handler(track) == b"vide":
            count = _check_track(tree, track, number, media, size)
            if count and not is_fragmented and not tree.is_edited(track):
                promised[number] = count
    return promised


def _top_level(file: Reader) -> Iterator[Box]:
    at, before, kinds = 0, 0, set[bytes]()
    while at < file.size:
        try:
            box = _box(file, at, file.size)
        except DamagedError as error:
            # Whatever follows a complete file (a camera's own data, padding) is no part of it.
            if {b"moov", b"mdat"} <= kinds and b"moof" not in kinds:
                return
            # What destroyed a box's beginning may have begun in the one before.
            raise DamagedError(before, str(error)) from None
        kinds.add(box.kind)
        yield box
        before = at
        at = box.stop


def _box(file: Reader, at: int, limit: int) -> Box:
    if at + 8 > limit:
        raise DamagedError(at, f"has {limit - at} bytes at byte {at} that are no box")
    size, kind, start = file.number(at), file.take(at + 4, 4), at + 8
    if size == 1:
        size, start = file.number(at + 8, 8), at + 16
    elif size == 0:
        size = limit - at
    if size < start - at or not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
        raise DamagedError(at, f"is damaged at byte {at}: no box begins there")
    return Box(kind, at, start, at + size)


def _require_whole(boxes: list[Box], size: int) -> None:
    last = boxes[-1]
    if last.stop > size:
        raise DamagedError(size, f"is cut: its last box ends at byte {last.stop}, it has {size}")


class _Tree:
    """The boxes below `moov`, which are read at once."""

    def __init__(self, file: Reader, moov: Box) -> None:
        if moov.stop > file.size:
            raise DamagedError(0, f"is cut in its index (moov box): byte {moov.stop} is promised, it has {file.size}")
        self._file = file

    def children(self, box: Box) -> Iterator[Box]:
        """Raises DamagedError where they do not fill their box."""
        at = box.start
        while at + 8 <= box.stop:
            if self._file.number(at) == 0:
                # QuickTime ends some lists with a zero.
                return
            child = _box(self._file, at, box.stop)
            if child.stop > box.stop:
                raise DamagedError(0, f"is damaged at byte {at}: box {child.kind!r} is larger than the one around it")
            yield child
            at = child.stop

    def find(self, box: Box, *path: bytes) -> Box | None:
        for kind in path:
            found = next((child for child in self.children(box) if child.kind == kind), None)
            if found is None:
                return None
            box = found
        return box

    def handler(self, track: Box) -> bytes:
        found = self.find(track, b"mdia", b"hdlr")
        return b"" if found is None else self._file.take(found.start + 8, 4)

    def is_edited(self, track: Box) -> bool:
        """Whether an edit list leaves out or repeats samples."""
        found = self.find(track, b"edts", b"elst")
        if found is None:
            return False
        version, count = self._file.number(found.start, 1), self._file.number(found.start + 4)
        wide = 8 if version == 1 else 4
        first = self._file.number(found.start + 8 + wide, wide) if count else 0
        return count != 1 or first != 0

    def table(self, stbl: Box, kind: bytes, columns: int, width: int = 4, skip: int = 0) -> NDArray[np.int64]:
        """A full box's table (rows, columns) behind its number of rows; (0, columns) where there is none."""
        found = self.find(stbl, kind)
        if found is None:
            return np.zeros((0, columns), np.int64)
        count = self._file.number(found.start + 4 + skip)
        start = found.start + 8 + skip
        if start + count * columns * width > found.stop:
            raise DamagedError(0, f"is damaged in its index: table {kind.decode()} is larger than its box")
        values = np.frombuffer(self._file.take(start, count * columns * width), f">u{width}")
        return values.astype(np.int64).reshape(count, columns)

    def sizes(self, stbl: Box) -> NDArray[np.int64]:
        """(samples,) bytes of each."""
        found = self.find(stbl, b"stsz")
        if found is None:
            return self._compact_sizes(stbl)
        fixed, count = self._file.number(found.start + 4), self._file.number(found.start + 8)
        if fixed:
            return np.full(count, fixed, np.int64)
        return self.table(stbl, b"stsz", 1, skip=4)[:, 0]

    def _compact_sizes(self, stbl: Box) -> NDArray[np.int64]:
        found = self.find(stbl, b"stz2")
        if found is None:
            return np.zeros(0, np.int64)
        bits, count = self._file.number(found.start + 7, 1), self._file.number(found.start + 8)
        if bits == 4:
            packed = np.frombuffer(self._file.take(found.start + 12, (count + 1) // 2), np.uint8)
            return np.stack([packed >> 4, packed & 15], -1).reshape(-1)[:count].astype(np.int64)
        return self.table(stbl, b"stz2", 1, width=bits // 8, skip=4)[:, 0]


def _check_track(tree: _Tree, track: Box, number: int, media: list[tuple[int, int]], size: int) -> int:
    """How many samples a track has, which all lie in the file's media."""
    stbl = tree.find(track, b"mdia", b"minf", b"stbl")
    if stbl is None:
        raise DamagedError(0, f"is damaged in its index: stream {number} has no tables")
    sizes = tree.sizes(stbl)
    if not len(sizes):
        return 0
    timed = int(tree.table(stbl, b"stts", 2)[:, 0].sum())
    offsets = np.concatenate([tree.table(stbl, b"stco", 1)[:, 0], tree.table(stbl, b"co64", 1, width=8)[:, 0]])
    counts = _chunk_counts(tree.table(stbl, b"stsc", 3), len(offsets))
    if not timed == len(sizes) == int(counts.sum()):
        raise DamagedError(
            0,
            f"is damaged in its index: stream {number} has {len(sizes)} sizes, {timed} times and "
            f"{int(counts.sum())} positions of samples",
        )
    ends = np.concatenate([[0], np.cumsum(sizes)])[np.concatenate([[0], np.cumsum(counts)])]
    _check_chunks(offsets, offsets + np.diff(ends), number, media, size)
    return len(sizes)


def _chunk_counts(runs: NDArray[np.int64], chunks: int) -> NDArray[np.int64]:
    """Samples of each chunk, from the rows (first chunk, samples, description) of `stsc`."""
    if not len(runs):
        return np.zeros(0, np.int64)
    firsts = np.append(runs[:, 0] - 1, max(chunks, int(runs[-1, 0]) - 1))
    if firsts[0] != 0 or (np.diff(firsts) < 0).any() or firsts[-1] > chunks:
        raise DamagedError(0, "is damaged in its index: table stsc does not count its chunks")
    return np.repeat(runs[:, 1], np.diff(firsts))


def _check_chunks(
    starts: NDArray[np.int64], stops: NDArray[np.int64], number: int, media: list[tuple[int, int]], size: int
) -> None:
    if (stops > size).any():
        raise DamagedError(size, f"is cut: byte {int(stops.max())} is promised, it has {size}")
    inside = np.zeros(len(starts), bool)
    for start, stop in media:
        inside |= (starts >= start) & (stops <= stop)
    order = np.argsort(starts, kind="stable")
    apart = starts[order][1:] >= stops[order][:-1]
    if not inside.all() or not apart.all():
        raise DamagedError(0, f"is damaged in its index: samples of stream {number} lie where no media is")


def _check_fragment(file: Reader, moof: Box) -> None:
    """The samples of a fragment's runs lie in the file."""
    tree = _Tree(file, moof)
    for traf in (child for child in tree.children(moof) if child.kind == b"traf"):
        header = tree.find(traf, b"tfhd")
        if header is None:
            raise DamagedError(moof.offset, f"is damaged at byte {moof.offset}: a fragment without a header")
        flags = file.number(header.start, 4) & 0xFFFFFF
        base = file.number(header.start + 8, 8) if flags & 1 else moof.offset
        at = header.start + 8 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0) + (4 if flags & 8 else 0)
        default = file.number(at) if flags & 0x10 else None
        for run in (child for child in tree.children(traf) if child.kind == b"trun"):
            _check_run(file, moof, run, base, default)


def _check_run(file: Reader, moof: Box, run: Box, base: int, default: int | None) -> None:
    flags, count = file.number(run.start) & 0xFFFFFF, file.number(run.start + 4)
    at = run.start + 8 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    columns = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
    if at + 4 * count * len(columns) > run.stop:
        raise DamagedError(moof.offset, f"is damaged at byte {run.offset}: a run of samples is larger than its box")
    if not flags & 1:
        return
    start = base + int.from_bytes(file.take(run.start + 8, 4), signed=True)
    if 0x200 in columns:
        rows = np.frombuffer(file.take(at, 4 * count * len(columns)), ">u4").reshape(count, len(columns))
        length = int(rows[:, columns.index(0x200)].sum(dtype=np.int64))
    else:
        length = count * (default or 0)
    if start + length > file.size:
        raise DamagedError(file.size, f"is cut: byte {start + length} is promised, it has {file.size}")
