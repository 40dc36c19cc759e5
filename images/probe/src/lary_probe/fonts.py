"""Text in pictures: any characters a label may have, drawn by the fonts that are there, or shown escaped."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib import font_manager, rc_context

BASE = "DejaVu Sans"
"""Comes with matplotlib."""
MORE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans")
"""Taken where they are installed, for characters that the base font does not have."""


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside, text is drawn as it is: a `$` begins no formula, and other fonts help where a glyph is missing."""
    with rc_context({"text.parse_math": False, "text.usetex": False, "font.family": list(_families())}):
        yield


def shown(text: str) -> str:
    """`text` with each character that no font here can draw, or that is not printable, as an escape like `\\u4e2d`."""
    return "".join(c if c == " " or (c.isprintable() and ord(c) in _glyphs()) else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@cache
def _families() -> tuple[str, ...]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (BASE, *(name for name in MORE if name in installed))


@cache
def _glyphs() -> frozenset[int]:
    paths = [font_manager.findfont(name, fallback_to_default=False) for name in _families()]
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
