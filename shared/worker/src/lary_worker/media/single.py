"""Images that are no one picture: several in a file, numbers without a white, or turns that OpenCV ignores.

OpenCV reads the first picture, cuts numbers to bytes and shows such an AVIF as it is coded, each without a word.
"""

import struct
from collections.abc import Callable, Iterator

from lary_worker.media.binary import DamagedError

_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
"""Of TIFF's NewSubfileType, a bit each; of SubfileType a value (TIFF 6.0, section 8)."""


def require_one_picture(data: bytes) -> None:
    """Raises DamagedError for an image of which it is not certain what is meant; a cut one is left to its decoder."""
    for is_of_kind, check in _KINDS:
        if is_of_kind(data):
            try:
                check(data)
            except (IndexError, struct.error):
                return


def _require_one(pictures: int) -> None:
    if pictures > 1:
        raise DamagedError(0, f"holds {pictures} pictures, a row names one; write that one to a file of its own")


def _check_gif(data: bytes) -> None:
    """Images among the blocks of a GIF89a."""
    at, images = 13 + _colours(data[10]), 0
    while data[at] in b"!,":
        is_image = data[at] == 0x2C
        images += is_image
        at += 11 + _colours(data[at + 9]) if is_image else 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    _require_one(images)


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_png(data: bytes) -> None:
    """The animation control (PNG 3rd edition, 11.3.4.1) stands in front of the picture."""
    at = 8
    while data[at + 4 : at + 8] not in (b"IDAT", b""):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            _require_one(*struct.unpack_from(">I", data, at + 8))
        at += 12 + length


def _check_webp(data: bytes) -> None:
    at, images = 12, 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        images += kind == b"ANMF"
        at += 8 + length + length % 2
    _require_one(images)


def _check_tiff(data: bytes) -> None:
    """Directories that are no smaller copy and no mask of another one."""
    _require_one(sum(_is_page(tags) for tags in _directories(data)))


def _is_page(tags: dict[int, int]) -> bool:
    return not tags.get(254, 0) & (_REDUCED | _MASK) and tags.get(255) != _OLD_REDUCED


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """The chain of a TIFF's or BigTIFF's directories: tag -> its number, of tags with a single one."""
    order = "<" if data.startswith(b"II") else ">"
    count, entry, link = ("Q", "HHQQ", "Q") if data[2:4] in (b"+\0", b"\0+") else ("H", "HHII", "I")
    (at,), seen = struct.unpack_from(order + link, data, 8 if link == "Q" else 4), set[int]()
    while at and at not in seen:
        seen.add(at)
        (entries,) = struct.unpack_from(order + count, data, at)
        start, size = at + struct.calcsize(order + count), struct.calcsize(order + entry)
        tags = {}
        for number in range(entries):
            tag, kind, values, value = struct.unpack_from(order + entry, data, start + number * size)
            if values == 1:
                short = struct.unpack_from(order + "H", data, start + (number + 1) * size - struct.calcsize(link))
                tags[tag] = short[0] if kind == 3 else value
        yield tags
        (at,) = struct.unpack_from(order + link, data, start + entries * size)


def _check_avif(data: bytes) -> None:
    """A sequence, or properties of the picture (ISO/IEC 23008-12, 6.5): turned, mirrored, cropped."""
    if data[8:12] == b"avis":
        raise DamagedError(0, "holds a sequence of pictures, a row names one; write that one to a file of its own")
    at = data.find(b"meta")
    meta = data[at : at + int.from_bytes(data[max(0, at - 4) : at])]
    turn = meta.find(b"\0\0\0\x09irot")
    if (turn >= 0 and meta[turn + 8] & 3) or b"\0\0\0\x09imir" in meta or b"\0\0\0\x28clap" in meta:
        raise DamagedError(0, "is turned, mirrored or cropped by properties that OpenCV ignores; write it as a PNG")


def _refuse_floats(_: bytes) -> None:
    raise DamagedError(0, "holds floating-point numbers, of which none is white; write it as a PNG")


_Check = Callable[[bytes], None]
_KINDS: tuple[tuple[Callable[[bytes], bool], _Check], ...] = (
    (lambda data: data.startswith(b"GIF8"), _check_gif),
    (lambda data: data.startswith(b"\x89PNG"), _check_png),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _check_webp),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _check_tiff),
    (lambda data: data[4:8] == b"ftyp", _check_avif),
    (lambda data: data[:3] in (b"PF\n", b"Pf\n") or data.startswith(b"#?R"), _refuse_floats),
)
