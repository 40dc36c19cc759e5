"""Files that stand in the page itself, as far as there is room."""

from pathlib import Path

MIB = 1 << 20


def read_within(path: Path, room: int) -> bytes | None:
    """A file's bytes; None where it is larger than `room` or cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= room else None
    except OSError:
        return None
