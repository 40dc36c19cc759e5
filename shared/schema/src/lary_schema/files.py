"""What files on a disk are, recognised by their names and their first bytes."""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

ENDS_BYTES = 1 << 16
"""Of each end of a file, to distinguish two states of it."""
_POINTER = b"version https://git-lfs"
"""How the text begins that Git LFS leaves where it did not fetch a file (Git LFS, docs/spec.md)."""
_ZIP_SUFFIXES = {".pt", ".pth", ".ckpt"}
_ZIP_START = b"PK\x03\x04"
_START_BYTES = 64


def is_lfs_pointer(path: Path) -> bool:
    """Whether a regular file is a Git LFS pointer and not the content that it names. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def pointer_fault(path: Path) -> str:
    """What is wrong with a pointer, and what to do."""
    return f"{path}: is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"


def visible_files(root: Path) -> list[Path]:
    """The file `root`, or all files below the folder `root` in order; hidden files and folders are left out.

    Download tools keep times and locks in hidden ones.
    """
    if not root.is_dir():
        return [root]
    inside = (path for path in root.rglob("*") if path.is_file())
    return sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(root).parts))


def unlisted(folder: Path, depth: int) -> list[str]:
    """What is wrong with folders, down to `depth` levels below this one, that may not be listed.

    A glob passes over them without a word. A folder that is not there is no fault.
    """
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.path for entry in entries if depth and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        return [f"{folder}: cannot be read: {error.strerror}"]
    return [message for path in below for message in unlisted(Path(path), depth - 1)]


def damage(file: Path) -> str | None:
    """What can be seen of a broken download without knowing its hash; None where nothing can."""
    try:
        return _damage(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _damage(file: Path) -> str | None:
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(_START_BYTES)
        if not start:
            return "empty"
        if is_lfs_pointer(file):
            return "a git-lfs pointer and not the file (git-lfs was not installed when it was cloned)"
        if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
            return "a web page and not the file (an error page that was saved)"
        if file.suffix == ".safetensors":
            opened.seek(0)
            expected = _safetensors_size(opened, size)
            if expected != size:
                return "not a safetensors file" if expected is None else f"{size} bytes, {expected} by its own header"
    if file.suffix in _ZIP_SUFFIXES and start.startswith(_ZIP_START) and not zipfile.is_zipfile(file):
        return "cut short (its table of contents, at the end, is missing)"
    return None


def _safetensors_size(file: BinaryIO, size: int) -> int | None:
    """Bytes that the file has by its header (8 bytes of length, JSON, tensors); None where that is none."""
    length = int.from_bytes(file.read(8), "little")
    if length > size:
        return None
    try:
        entries = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None
    return 8 + length + max(ends, default=0)


def file_state(path: Path) -> list[str | int]:
    """What another content changes: size, times, inode, and a hash of both ends. Raises OSError.

    A file may be edited with its size kept and its modification time set back. Then its change time, which
    nobody sets, shows it; where a volume has no honest one, the ends show most edits (a header, a last row).
    """
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, _ends_sha256(path)]


def _ends_sha256(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(ENDS_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - ENDS_BYTES))
        return hashlib.sha256(start + file.read(ENDS_BYTES)).hexdigest()
