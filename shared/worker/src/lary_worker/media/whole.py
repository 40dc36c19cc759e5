"""A clip's wholeness: its container before the first frame, and packets and frames while they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av

from lary_worker.media.asf import check_asf
from lary_worker.media.binary import DamagedError, Reader
from lary_worker.media.matroska import check_matroska
from lary_worker.media.mp4 import check_mp4
from lary_worker.media.mpegps import check_program
from lary_worker.media.mpegts import check_transport, transport_layout
from lary_worker.media.ogg import check_ogg
from lary_worker.media.payload import payload_check
from lary_worker.media.riff import check_avi
from lary_worker.media.small import check_flv, check_gif

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
_BY_MARK: tuple[tuple[bytes, tuple[str, ...], Callable[[Reader], dict[int, int]]], ...] = (
    (b"\x1a\x45\xdf\xa3", ("matroska,webm",), check_matroska),
    (b"GIF8", ("gif",), check_gif),
    (b"FLV", ("flv",), check_flv),
    (b"\x30\x26\xb2\x75", ("asf", "asf_o"), check_asf),
    (b"OggS", ("ogg",), check_ogg),
    (b"\0\0\1\xba", ("mpeg",), check_program),
)
"""A file's first bytes, libavformat's names, and the walker."""
_ONE_PACKET_ONE_PICTURE = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "ffv1"}
)  # fmt: skip
_ONLY_PACKETS_TIMED = frozenset({"avi", "asf", "mxf", "mxf_opatom"})
"""No times of pictures, or not of all codecs' pictures: there they are counted at the end."""
_PLACEHOLDER = 20
"""Bytes of a packet in an AVI that stands for a picture which came with the packet before (packed B-frames)."""


class Promise(NamedTuple):
    """What a container says of itself."""

    packets: dict[int, int]
    """Stream -> packets with content, where that is promised."""
    damage: DamagedError | None = None
    """What is wrong with it, and from which byte on."""
    joined: bool = False
    """Whether it is several streams one after the other, where the demuxer takes each joint for damage."""


def check_container(path: Path, kind: str = "") -> Promise:
    """Walk a container's structure. `kind`: libavformat's name for it, which counts where the beginning is damaged.

    A container that is not known here promises nothing. Raises OSError.
    """
    with Reader.open(path) as file:
        try:
            return _promise(file, kind)
        except DamagedError as error:
            return Promise({}, error)


def _promise(file: Reader, kind: str) -> Promise:
    beginning = file.take(0, min(file.size, 1024))
    if beginning[4:8] in _BOXES or kind.startswith("mov,mp4"):
        return Promise(check_mp4(file))
    if (beginning.startswith(b"RIFF") and beginning[8:12] == b"AVI ") or kind == "avi":
        return Promise(check_avi(file))
    for mark, names, check in _BY_MARK:
        if beginning.startswith(mark) or kind in names:
            return Promise(check(file))
    if transport_layout(beginning) is not None or kind == "mpegts":
        return Promise({}, joined=check_transport(file))
    return Promise({})


def require_readable(path: Path) -> None:
    """Read a file to its end. Raises OSError.

    To distinguish a volume's error from the decoder's: libavformat says EIO of damaged files, too.
    """
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


class Ledger:
    """Compares what is read with what was promised: every packet has to give its picture."""

    def __init__(self, promise: Promise, stream: av.VideoStream) -> None:
        context = stream.codec_context
        self._promised = promise.packets.get(stream.index)
        self._damage, self._joined = promise.damage, promise.joined
        self._codec = context.codec.canonical_name
        self._check = payload_check(self._codec, context.extradata)
        self._packets = 0
        self._waiting: set[int] = set()
        """Times of pictures that were read and not yet shown."""
        self._shown: int | None = None
        self._dts: int | None = None
        self._timed = stream.container is not None and stream.container.format.name not in _ONLY_PACKETS_TIMED
        self._counts = self._codec in _ONE_PACKET_ONE_PICTURE
        self._due = self._came = 0

    def packet(self, packet: av.Packet) -> None:
        """Take note of a packet before it is decoded. Raises DamagedError."""
        data = self.inspect(packet)
        if not packet.is_discard and not _hidden(self._codec, data):
            self._due += 1
            if self._timed and packet.pts is not None:
                self._waiting.add(packet.pts)

    def inspect(self, packet: av.Packet) -> bytes:
        """The bytes of a packet that was read, decoded or not. Raises DamagedError for what they show by themselves."""
        if self._damage is not None and (packet.pos is None or packet.pos + packet.size > self._damage.at):
            raise self._damage
        if packet.is_corrupt and not self._joined:
            raise self._damage or DamagedError(0, f"packet {self._packets} is cut or damaged")
        self._packets += 1
        data = bytes(packet)
        if self._check is not None:
            self._check(data)
        if packet.dts is not None:
            if self._dts is not None and packet.dts < self._dts:
                # Streams one after the other: times begin anew.
                self._counts = False
            self._dts = packet.dts
        return data

    def frame(self, frame: av.VideoFrame) -> None:
        """Take note of a picture. Raises DamagedError where one that was due before it did not come."""
        if frame.interlaced_frame:
            # Two packets, one a field, may make one picture.
            self._counts = False
        self._came += 1
        if not self._counts or not self._timed or frame.pts is None:
            return
        if self._shown is not None:
            lost = [pts for pts in self._waiting if self._shown < pts < frame.pts]
            if lost:
                raise DamagedError(0, f"{len(lost)} pictures before {frame.time:.3f} s cannot be decoded")
        self._waiting.discard(frame.pts)
        self._shown = frame.pts

    def end(self) -> None:
        """The file ended. Raises DamagedError where something promised did not come."""
        if self._damage is not None:
            raise self._damage
        if self._promised is not None and self._packets < self._promised:
            raise DamagedError(0, f"is damaged: {self._promised} frames are promised, {self._packets} can be read")
        if not self._counts:
            return
        if not self._timed and self._came < self._due:
            raise DamagedError(0, f"{self._due - self._came} of its {self._due} pictures cannot be decoded")
        lost = [pts for pts in self._waiting if self._shown is None or pts > self._shown]
        if lost:
            raise DamagedError(0, f"its last {len(lost)} pictures cannot be decoded")


def _hidden(codec: str, data: bytes) -> bool:
    """Whether a packet gives no picture of its own by what it says itself."""
    if codec == "vp8":
        return not data[0] & 0x10
    if codec == "vp9":
        superframe = data[-1] & 0xE0 == 0xC0
        existing, shown = (0x04, 0x01) if data[0] & 0x30 == 0x30 else (0x08, 0x02)
        return not superframe and not data[0] & existing and not data[0] & shown
    return codec == "mpeg4" and len(data) < _PLACEHOLDER
