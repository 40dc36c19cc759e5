"""Files that are either whole or absent, also after a power cut."""

import os
import secrets
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


def publish_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` by temporary file, fsync, rename and fsync of the directory.

    A reader sees the old file or the whole new one. The temporary file is removed when writing
    fails (a full disk), and carries `PARTIAL_SUFFIX` so that a killed writer's is swept later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def publish_text(path: Path, text: str) -> None:
    """`publish_bytes` for text, as UTF-8 with the line ends as given."""
    publish_bytes(path, text.encode())
