"""Files and folders that are either whole or absent, also after a power cut: how the bench writes them."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""What an unpublished file's name ends in, ours and zarr's alike, so that one sweep finds both."""
_KEPT_BYTES = 200
"""Of a name in its draft's: with what is added to it that stays below the 255 bytes that file systems take."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write says where there is no more room: on the disk, in a quota, or below a limit for files."""


def refused(error: OSError, path: Path | None = None) -> str:
    """What the system refused, of which file, and what to do where a disk is full; for one line to the user.

    `path` is named where the error names none, as that of a write does.
    """
    given = (error.filename, error.filename2) if error.filename is not None or path is None else (str(path),)
    names = [os.fsdecode(name) for name in given if isinstance(name, str | bytes)]
    todo = "; make room, and run the same command again" if error.errno in FULL_DISK else ""
    return f"{' -> '.join(names)}{': ' if names else ''}{error.strerror or error}{todo}"


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    """Force a directory's entries (a rename in it) to the disk."""
    sync_file(path)


def draft_path(path: Path) -> Path:
    """A free name for what will be `path`, next to it, that ends in `PARTIAL_SUFFIX`."""
    name = os.fsencode(path.name)[:_KEPT_BYTES].decode(errors="ignore")
    return path.with_name(f"{name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A free name in the folder of `path`: what the block writes there becomes `path` when it ends well.

    A reader sees the old file or the whole new one. The draft is removed when the block fails (a full disk), and
    its name ends in `PARTIAL_SUFFIX`, so that a killed writer's is swept later. `sync=False` leaves the fsync of
    file and folder to the caller, who writes thousands and syncs once. A full disk's error names `path`.
    """
    _have(path.parent)
    draft = draft_path(path)
    try:
        with _naming(path, draft):
            yield draft
            if sync:
                sync_file(draft)
            draft.replace(path)
    finally:
        # Also after success: renaming one of two names of one file over the other does nothing.
        draft.unlink(missing_ok=True)
    if sync:
        sync_dir(path.parent)


@contextmanager
def _naming(path: Path, draft: Path) -> Iterator[None]:
    """A full disk's error names what is being made: that of a write knows no name, and the draft's says nothing."""
    try:
        yield
    except OSError as error:
        named = str(draft) if error.filename is None else str(error.filename)
        if error.errno in FULL_DISK and named.startswith(str(draft)):
            whole = f"{path}{named.removeprefix(str(draft))}"
            # Not changed in place: PyAV's errors cannot be given a name.
            raise OSError(error.errno, error.strerror or str(error), whole) from error
        raise


@contextmanager
def making(folder: Path, *, sync: bool = True) -> Iterator[Path]:
    """`replacing` for a folder that is not there yet: the block fills a draft, which becomes `folder` at its end.

    Raises OSError where something is at `folder` by then, which stays; an empty folder is taken.
    """
    _have(folder.parent)
    draft = draft_path(folder)
    draft.mkdir()
    try:
        with _naming(folder, draft):
            yield draft
            if sync:
                _sync_tree(draft)
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if sync:
        sync_dir(folder.parent)


def _have(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # "File exists", says the system of a file in the place of a folder.
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if not path.is_symlink():
                sync_file(path)
        sync_dir(Path(root))


def discard(folder: Path) -> None:
    """Remove a folder so that nobody sees a half of it, whenever this is interrupted. Raises OSError."""
    aside = draft_path(folder)
    folder.rename(aside)
    shutil.rmtree(aside)


def is_unused(folder: Path) -> bool:
    """Whether there is no such folder, or nothing in it but what a stopped writer left."""
    return not folder.is_dir() or all(path.name.endswith(PARTIAL_SUFFIX) for path in folder.iterdir())


def publish_bytes(path: Path, data: bytes) -> None:
    """Write a small file by `replacing`."""
    with replacing(path) as draft, draft.open("xb") as file:
        file.write(data)


def publish_text(path: Path, text: str) -> None:
    """`publish_bytes` for text, as UTF-8 with the line ends as given."""
    publish_bytes(path, text.encode())
