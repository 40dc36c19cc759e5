"""What files on a disk are, told by their names and their first bytes."""

from pathlib import Path

_POINTER = b"version https://git-lfs"
"""How the text begins that Git LFS leaves where it did not fetch a file (Git LFS, docs/spec.md)."""


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
