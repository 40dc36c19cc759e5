"""How much room text takes on a terminal, and how it is wrapped."""

import unicodedata
from collections.abc import Iterable, Iterator


def width_of(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining marks and joiners none."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def longest_word(texts: Iterable[str]) -> int:
    """Width of the longest word; 0 where there is none."""
    return max((width_of(word) for text in texts for word in text.split()), default=0)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words; a longer word is broken where it has to be.

    Every character but the spaces at the breaks is kept. At least one line; `width` is at least 2 (a wide character).
    """
    lines = [""]
    for word in _pieces(text, max(width, 2)):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def _pieces(text: str, width: int) -> Iterator[str]:
    """The words, those that are too long in pieces."""
    for word in text.split():
        piece = ""
        for character in word:
            if piece and width_of(piece + character) > width:
                yield piece
                piece = ""
            piece += character
        yield piece


def padded(text: str, width: int, *, right: bool) -> str:
    """`text` in `width` columns."""
    space = " " * (width - width_of(text))
    return space + text if right else text + space
