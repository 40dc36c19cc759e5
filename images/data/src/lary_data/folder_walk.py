"""Every file below a folder of clips: it is a clip, or it is left out for a reason that can be said."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lary_schema.printable import printable

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""Of clips, in upper or lower case."""
HIDDEN = "hidden"
LOOSE = "not in a folder of a class"
NO_CLIP = f"no name of a clip ({', '.join(SUFFIXES)})"
NOT_REGULAR = "neither a file nor a folder"
LOOP = "a link to a folder around it"


class LeftOut(NamedTuple):
    """A file, or a folder with all that is in it, that gives no clip."""

    name: str
    """Below the root; for people."""
    reason: str


class Found(NamedTuple):
    """What is below a root."""

    clips: tuple[str, ...]
    """Sorted; relative to the root, in the file system's own characters (`os.fsdecode`)."""
    left_out: tuple[LeftOut, ...]
    folders: tuple[str, ...]
    """Visible folders right below the root."""


def walk(root: Path, out: Path) -> Found:
    """Every file below `root`, linked folders included; the folder `out`, which is ours, is not looked into.

    A link that leads nowhere counts as what its name says.
    """
    clips: list[str] = []
    left_out: list[LeftOut] = []
    for name, reason in _entries(root, "", {_identity(root)}, out.resolve()):
        if reason is None:
            clips.append(name)
        else:
            left_out.append(LeftOut(shown(name), reason))
    folders = sorted(entry.name for entry in os.scandir(root) if _is_class(entry))
    return Found(tuple(sorted(clips)), tuple(sorted(left_out)), tuple(folders))


def shown(name: str) -> str:
    """A file's name as one line of UTF-8: bytes that are none, and control characters, as their codes."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace"))


def name_fault(name: str) -> str | None:
    """Why a name of the file system cannot be a cell of a CSV; None where it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    return "the name has a line break" if "\n" in name or "\r" in name else None


def _is_class(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _entries(root: Path, below: str, around: set[tuple[int, int]], out: Path) -> Iterator[tuple[str, str | None]]:
    """Names with why they are left out, or with None for a clip; `around` are the folders that lead here."""
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        yield below or ".", f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        try:
            if entry.is_dir():
                yield from _folder(root, name, around, out)
            else:
                yield name, _reason(entry, below)
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"


def _folder(root: Path, name: str, around: set[tuple[int, int]], out: Path) -> Iterator[tuple[str, str | None]]:
    path = root / name
    identity = _identity(path)
    if identity in around:
        yield name, LOOP
    elif path.resolve() != out:
        yield from _entries(root, name, around | {identity}, out)


def _reason(entry: "os.DirEntry[str]", below: str) -> str | None:
    parts = [*below.split("/"), entry.name] if below else [entry.name]
    if any(part.startswith(".") for part in parts):
        return HIDDEN
    if not (entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())):
        return NOT_REGULAR
    if not entry.name.lower().endswith(SUFFIXES):
        return NO_CLIP
    return None if below else LOOSE
