"""MPEG program streams: packs and packets that follow each other to the end (ISO/IEC 13818-1, 2.5.3; 11172-1, 2.4)."""

from lary_worker.media.binary import DamagedError, Reader

_PACK, _END = 0x1BA, 0x1B9
_FIRST, _LAST = 0x1BB, 0x1FF
"""Codes of everything with a length behind it."""
_WITHOUT_FLAGS = frozenset({0x1BB, 0x1BC, 0x1BE, 0x1BF, 0x1F0, 0x1F1, 0x1F2, 0x1F8, 0x1FF})
"""Packets whose content begins right behind the length."""
_PADDING = 276
"""Zeros that may stand between packets: a Video CD's sectors of 2,324 bytes may hold packs of 2,048."""


def check_program(file: Reader) -> dict[int, int]:
    """How many pictures there are is not promised. Raises DamagedError."""
    at, second = 0, False
    while at < file.size:
        code = file.number(at) if at + 4 <= file.size else -1
        if code == _PACK:
            second, at = _pack(file, at)
        elif code == _END:
            at += 4
        elif _FIRST <= code <= _LAST and at:
            at = _packet(file, at, code, second)
        else:
            at = _behind_padding(file, at)
    return {}


def _pack(file: Reader, at: int) -> tuple[bool, int]:
    """Whether it is MPEG-2's, and its end."""
    first = file.number(at + 4, 1)
    if first >> 6 == 1:
        return True, at + 14 + (file.number(at + 13, 1) & 7)
    if first >> 4 == 2:
        return False, at + 12
    raise DamagedError(0, f"is damaged at byte {at}: no whole pack begins there")


def _packet(file: Reader, at: int, code: int, second: bool) -> int:
    length = file.number(at + 4, 2)
    if second and code not in _WITHOUT_FLAGS and (length < 3 or file.number(at + 6, 1) >> 6 != 2):
        raise DamagedError(0, f"is damaged at byte {at}: no whole packet begins there")
    stop = at + 6 + length
    if stop > file.size:
        raise DamagedError(0, f"is cut: byte {stop} is promised, it has {file.size}", is_cut=True)
    return stop


def _behind_padding(file: Reader, at: int) -> int:
    """Where the zeros end, if they are few and something begins behind them."""
    data = file.take(at, min(_PADDING + 4, file.size - at))
    zeros = len(data) - len(data.lstrip(b"\0"))
    # A code begins with two zeros.
    padding = zeros - 2 if zeros < len(data) else zeros
    if not at or not 0 < padding <= _PADDING:
        raise DamagedError(0, f"is damaged at byte {at}: no pack and no packet begins there")
    return at + padding
