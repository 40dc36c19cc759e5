"""What no encoder writes: runs of zeros inside a compressed picture, as a lost block of a disk or a download leaves."""

from collections.abc import Callable

from lary_worker.media.binary import DamagedError
from lary_worker.media.still import check_image, check_jpeg

_HOLE = bytes(32)
"""256 zero bits in arithmetic coded data, which looks like noise: no clip is long enough to hold it by chance."""

_NO_ZERO_RUNS = frozenset({"wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "flv1", "h263"})
"""Codes of zeros alone are rare there: flat, still and coarse clips of FFmpeg's encoders have no four zero bytes in a
row. Of VC-1 (WMV3) it is not known."""
Check = Callable[[bytes], None]


def payload_check(codec: str, extradata: bytes | None) -> Check | None:
    """The check of a codec's packets, which raises DamagedError; None where zeros are uninformative.

    `extradata`: the codec's header; H.264 and HEVC units have lengths in front where it begins with 1.
    """
    if codec in ("h264", "hevc") and extradata and extradata[0] == 1 and len(extradata) > 22:
        length = (extradata[4 if codec == "h264" else 21] & 3) + 1
        return lambda data: _check_units(data, length, codec)
    if codec in ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"):
        return _check_start_codes
    if codec in ("vp8", "vp9") or codec in _NO_ZERO_RUNS:
        return _check_noise
    if codec == "av1":
        return _check_obus
    if codec == "mjpeg":
        return lambda data: _check_picture(check_jpeg, data)
    if codec == "png":
        return lambda data: _check_picture(check_image, data)
    return None


def _check_units(data: bytes, width: int, codec: str) -> None:
    """ISO/IEC 14496-15: units behind their lengths fill the packet; three zero bytes never stand in one."""
    at = 0
    while at + width <= len(data):
        start = at + width
        at = start + int.from_bytes(data[at:start])
        if at == start:
            # Some writers pad with zeros.
            if data[start:].strip(b"\0"):
                raise DamagedError(0, "has a picture with zeros in place of its data")
            return
        if at > len(data):
            raise DamagedError(0, "has a picture that is cut or damaged")
        kind = data[start] & 31 if codec == "h264" else data[start] >> 1 & 63
        if kind < (6 if codec == "h264" else 32) and _zeros_inside(data, start, at):
            raise DamagedError(0, "has a picture with zeros in place of its data")


def _zeros_inside(data: bytes, start: int, stop: int) -> bool:
    """Three zero bytes or more, and something else behind them."""
    found = data.find(b"\0\0\0", start, stop)
    return found >= 0 and data[found:stop].strip(b"\0") != b""


def _check_start_codes(data: bytes) -> None:
    """ISO/IEC 13818-2, 14496-2 and 14496-10 annex B: 23 zero bits are a start code's, or padding in front of one."""
    at = data.find(b"\0\0\0")
    while at >= 0:
        end = at + len(data) - at - len(data[at:].lstrip(b"\0"))
        if end < len(data) and data[end] != 1:
            raise DamagedError(0, "has a picture with zeros in place of its data")
        at = data.find(b"\0\0\0", end)


def _check_noise(data: bytes) -> None:
    at = data.find(_HOLE)
    if at >= 0 and data[at:].strip(b"\0"):
        raise DamagedError(0, "has a picture with zeros in place of its data")


def _check_obus(data: bytes) -> None:
    """AV1, 5.3: the same, but for padding."""
    if data.find(_HOLE) < 0:
        return
    at = 0
    while at < len(data):
        kind, has_size = data[at] >> 3 & 15, data[at] & 2
        start = at + 1 + (data[at] >> 2 & 1)
        size, start = _leb128(data, start) if has_size else (len(data) - start, start)
        if kind != 15:
            _check_noise(data[start : start + size])
        at = start + size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        if at + index >= len(data):
            break
        value |= (data[at + index] & 0x7F) << 7 * index
        if not data[at + index] & 0x80:
            return value, at + index + 1
    raise DamagedError(0, "has a picture that is cut or damaged")


def _check_picture(check: Check, data: bytes) -> None:
    try:
        check(data)
    except DamagedError as error:
        raise DamagedError(0, f"has a picture that {error}") from None
