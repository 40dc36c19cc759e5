"""GIF and FLV: blocks that follow each other to the end."""

from lary_worker.media.binary import DamagedError, Reader

_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = 0x3B, 0x21, 0x2C
_FLV_KINDS = frozenset({8, 9, 18})
"""Sound, picture, script."""


def check_gif(file: Reader) -> dict[int, int]:
    """GIF89a: extensions and images, each a chain of blocks that names its length, and the trailer.

    Stream -> number of its images. Raises DamagedError.
    """
    before, images, at = 0, 0, 13 + _colours(file.number(10, 1))
    while (kind := file.number(at, 1)) != _GIF_TRAILER:
        if kind == _GIF_EXTENSION:
            start = at + 2
        elif kind == _GIF_IMAGE:
            images += 1
            start = at + 11 + _colours(file.number(at + 9, 1))
        else:
            raise DamagedError(before, f"is damaged at byte {at}: no block begins there")
        before, at = at, _chain_end(file, start)
    return {0: images}


def _colours(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _chain_end(file: Reader, at: int) -> int:
    while length := file.number(at, 1):
        at += 1 + length
    return at + 1


def check_flv(file: Reader) -> dict[int, int]:
    """FLV: tags, each followed by its own length. How many there are is not promised. Raises DamagedError."""
    at = file.number(5) + 4
    before = 0
    while at < file.size:
        try:
            kind, size = file.number(at, 1) & 0x1F, file.number(at + 1, 3)
            right = kind in _FLV_KINDS and file.number(at + 11 + size) in (11 + size, 0)
        except DamagedError as error:
            raise DamagedError(at, str(error), is_cut=True) from None
        if not right:
            raise DamagedError(before, f"is damaged at byte {at}: no whole tag is there")
        before, at = at, at + 15 + size
    return {}
