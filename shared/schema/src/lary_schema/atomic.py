"""Files that are either whole or absent, also after a power cut: the one way in which the bench writes a file."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""What an unpublished file's name ends in, ours and zarr's alike, so that one sweep finds both."""


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


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A free name in the folder of `path`: what the block writes there becomes `path` when it ends well.

    A reader sees the old file or the whole new one. The draft is removed when the block fails (a full disk), and
    its name ends in `PARTIAL_SUFFIX`, so that a killed writer's is swept later. `sync=False` leaves the fsync of
    file and folder to the caller, who writes thousands and syncs once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        yield draft
        if sync:
            sync_file(draft)
        draft.replace(path)
    finally:
        # Also after success: renaming one of two names of one file over the other does nothing.
        draft.unlink(missing_ok=True)
    if sync:
        sync_dir(path.parent)


def publish_bytes(path: Path, data: bytes) -> None:
    """Write a small file by `replacing`."""
    with replacing(path) as draft, draft.open("xb") as file:
        file.write(data)


def publish_text(path: Path, text: str) -> None:
    """`publish_bytes` for text, as UTF-8 with the line ends as given."""
    publish_bytes(path, text.encode())
