"""Of an H.264 clip, decode only what the wanted frames depend on: the same frames for less work.

Left out are pictures that nobody wants and nothing is predicted from (B pictures that are no reference), and runs from
one IDR picture to the next in which nothing is wanted. Which picture is which frame is then not counted but read from
times: only in containers whose structure promises every picture, at a constant rate, where every step of the rate has
exactly one packet and frames come out in that order. Whatever else is found, and any complaint, is `UnfitError`: then
the clip is decoded from its beginning, all of it, and that decides. So nothing here refuses a clip.
"""

from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import NamedTuple

import av

from lary_worker.media.binary import DamagedError
from lary_worker.media.strict import decode
from lary_worker.media.whole import Ledger, Promise

_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""libavformat's names of those where a missing packet is seen without a decoder (`docs/media.md`)."""
_SLICE, _IDR, _MESSAGE = 1, 5, 6
_NO_STATE = frozenset({_SLICE, _IDR, _MESSAGE, 9, 12})
"""Unit types (ITU-T H.264, table 7-1) that leave nothing behind for later pictures but the picture itself: slices,
messages, delimiters, filler. Parameter sets do, and messages that turn pictures."""
_TURNS = 47
"""The message type of a display orientation, which holds until the next one (H.264, annex D)."""
_REORDER_MAX = 16
"""Pictures that may be decoded before one that is shown earlier (H.264, A.3.1)."""
_HELD_BYTES = 32 << 20
"""Packets of a run that are kept until it is known whether something of it is wanted."""


class UnfitError(Exception):
    """This clip has to be decoded as a whole."""


class _Picture(NamedTuple):
    packet: av.Packet
    position: int
    is_idr: bool
    leaves_state: bool
    is_disposable: bool
    """No other picture is predicted from it."""


def may_leave_out(container: av.container.InputContainer, stream: av.VideoStream, promise: Promise, last: int) -> bool:
    """Whether a clip is of the kind that this module reads; `last` is the last wanted index."""
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata
    return (
        codec == "h264"
        and container.format.name in _CONTAINERS
        and promise.damage is None
        and extradata is not None
        and len(extradata) > 6
        and extradata[0] == 1
        and bool(stream.base_rate and stream.time_base)
        # Where an index is clamped, all is read. What the header says is a hint here, and is not relied on.
        and (stream.frames == 0 or last < stream.frames)
    )


def needed_frames(
    stream: av.VideoStream, ledger: Ledger, wanted: frozenset[int]
) -> Generator[tuple[int, av.VideoFrame], None, None]:
    """Position and frame, in order: the wanted ones and those that they depend on. Raises UnfitError."""
    last = max(wanted)
    pictures, frames = _Pictures(stream, ledger, last), _Frames()
    last_one: list[tuple[int, av.VideoFrame]] = []
    try:
        for come in _decoded(stream, _chosen(pictures, wanted), pictures, frames):
            if come[0] < last:
                yield come
            elif come[0] == last:
                last_one.append(come)
    except (DamagedError, av.FFmpegError, ValueError) as error:
        raise UnfitError(str(error)) from None
    if not frames.due.isdisjoint(wanted):
        raise UnfitError("a wanted frame did not come")
    # Only now it is known that every step of the rate before it has one picture, and no picture a step of its own.
    yield from last_one


def _decoded(
    stream: av.VideoStream, chosen: Iterator[_Picture], pictures: "_Pictures", frames: "_Frames"
) -> Iterator[tuple[int, av.VideoFrame]]:
    for picture in chosen:
        frames.due.add(picture.position)
        yield from frames.ordered(pictures, decode(picture.packet, "h264"))
    yield from frames.ordered(pictures, stream.codec_context.decode(None))


def _chosen(pictures: "_Pictures", wanted: frozenset[int]) -> Iterator[_Picture]:
    """The packets to decode."""
    run: list[_Picture] = []
    held, is_held = 0, True
    for picture in pictures:
        if picture.is_idr:
            # Whatever is held of the run before is left out.
            run, held, is_held = [], 0, True
        run.append(picture)
        held += picture.packet.size
        if picture.position in wanted or picture.leaves_state or held > _HELD_BYTES:
            is_held = False
        if not is_held:
            yield from (one for one in run if one.position in wanted or not one.is_disposable)
            run = []


class _Frames:
    def __init__(self) -> None:
        self.due = set[int]()
        """Positions that the decoder was given and has not given back."""
        self._shown = -1

    def ordered(self, pictures: "_Pictures", frames: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        for frame in frames:
            if frame.pts is None or frame.is_corrupt or frame.interlaced_frame:
                raise UnfitError("a frame without a time, corrupt, or of two fields")
            position = pictures.position(frame.pts)
            if position != min(self.due, default=-1) or position <= self._shown:
                raise UnfitError("frames do not come in the order of their times")
            self.due.remove(position)
            self._shown = position
            yield position, frame


class _Pictures:
    """The packets of a clip with their positions, up to when all that are not behind `last` were among them.

    Further ones are looked at, until none can follow that is shown earlier: a time that stands twice is found there.
    """

    def __init__(self, stream: av.VideoStream, ledger: Ledger, last: int) -> None:
        assert stream.base_rate is not None
        assert stream.time_base is not None
        assert stream.container is not None
        self._packets = stream.container.demux(stream)
        self._codec = stream.codec_context
        self._ledger, self._last = ledger, last
        step: Fraction = 1 / (Fraction(stream.base_rate) * stream.time_base)
        self._step, self._unit = step.numerator, step.denominator
        """Ticks from one frame to the next, as a fraction."""
        self._slack = self._unit if step >= 4 else 0
        """Times are rounded to ticks."""
        self._length_bytes = ((self._codec.extradata or bytes(5))[4] & 3) + 1
        self._start: int | None = None
        self._seen = set[int]()
        self._highest = self._run = -1

    def __iter__(self) -> Iterator[_Picture]:
        left = self._last + 1
        for packet in self._packets:
            if packet.size == 0:
                break
            picture = self._picture(packet)
            self._place(picture)
            if left:
                yield picture
            left -= picture.position <= self._last
            if left == 0 and self._is_past_last(picture):
                return
        if left:
            raise UnfitError("the clip ends before its last wanted frame, or pictures are missing")

    def _is_past_last(self, picture: _Picture) -> bool:
        """Whether no later packet can be shown before or with the last wanted frame."""
        behind = len(self._seen) - (self._last + 1)
        return behind > self._codec.reorder_depth or (picture.is_idr and picture.position > self._last)

    def position(self, pts: int) -> int:
        """Which step of the rate a time is. Raises UnfitError for a time between two of them."""
        assert self._start is not None
        ticks = (pts - self._start) * self._unit
        position = (2 * ticks + self._step) // (2 * self._step)
        if position < 0 or abs(ticks - position * self._step) > self._slack:
            raise UnfitError("its rate is not constant")
        return position

    def _picture(self, packet: av.Packet) -> _Picture:
        data = self._ledger.inspect(packet)
        if packet.pts is None or packet.is_discard or packet.has_sidedata("new_extradata"):
            raise UnfitError("a packet without a time, hidden, or with other headers")
        units = [data[start:stop] for start, stop in _units(data, self._length_bytes)]
        leaves_state = any(map(_leaves_state, units))
        if self._start is None:
            self._start = packet.pts
        return _Picture(
            packet,
            self.position(packet.pts),
            is_idr=any(unit[0] & 31 == _IDR for unit in units),
            leaves_state=leaves_state,
            is_disposable=not leaves_state and _is_disposable(units),
        )

    def _place(self, picture: _Picture) -> None:
        """Raises UnfitError where a packet's time contradicts that positions are times."""
        position, seen = picture.position, self._seen
        if picture.is_idr:
            if self._highest >= position or len(seen) != position:
                raise UnfitError("a run of pictures before an IDR picture is not complete")
            self._run = position
        if self._run < 0 or position < self._run or position in seen or position > len(seen) + _REORDER_MAX:
            raise UnfitError("times that are no steps of one rate, or no IDR picture at first")
        later = sum(other in seen for other in range(position + 1, self._highest + 1))
        if later > self._codec.reorder_depth:
            raise UnfitError("more pictures are reordered than the decoder expects")
        seen.add(position)
        self._highest = max(self._highest, position)


def _units(data: bytes, length_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and end of the units of a packet whose structure was checked (ISO/IEC 14496-15)."""
    at = 0
    while at + length_bytes < len(data):
        start = at + length_bytes
        at = start + int.from_bytes(data[at:start])
        if at == start:
            return
        yield start, at


def _leaves_state(unit: bytes) -> bool:
    kind = unit[0] & 31
    return kind not in _NO_STATE or (kind == _MESSAGE and _TURNS in _messages(unit[1:]))


def _is_disposable(units: list[bytes]) -> bool:
    """Whether nal_ref_idc is 0 in all slices, and the first begins with first_mb_in_slice 0 and slice_type 1 or 6.

    7.3.1 and 7.3.3; the two are Exp-Golomb codes. One flipped bit does not make a reference such a picture.
    """
    slices = [unit[:2] for unit in units if unit[0] & 31 in (_SLICE, _IDR)]
    if not slices or len(slices[0]) < 2 or any(unit[0] & 31 == _IDR or unit[0] & 0x60 for unit in slices):
        return False
    return slices[0][1] & 0xF0 == 0xA0 or slices[0][1] & 0xFC == 0x9C


def _messages(unit: bytes) -> set[int]:
    """Types of the messages in a unit (7.3.2.3.1)."""
    data, at, kinds = unit.replace(b"\0\0\3", b"\0\0"), 0, set[int]()
    while at + 2 < len(data):
        kind, at = _summed(data, at)
        size, at = _summed(data, at)
        kinds.add(kind)
        at += size
    return kinds


def _summed(data: bytes, at: int) -> tuple[int, int]:
    total = 0
    while at < len(data) and data[at] == 0xFF:
        total, at = total + 255, at + 1
    return total + (data[at] if at < len(data) else 0), at + 1
