"""What is expensive to compute and can be computed again: kept as one small JSON file per question."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lary_schema.atomic import publish_text
from lary_schema.base import fingerprint

ENDS_BYTES = 1 << 16
"""Of each end of a file."""


def remembered(folder: Path, kind: str, key: Any, compute: Callable[[], Any]) -> Any:
    """`compute()`, a JSON value, or what it gave for the same `key` (a JSON value) before.

    Two processes may ask at once. A cache that cannot be written costs time and nothing else.
    """
    path = folder / kind / f"{fingerprint(key)[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["value"]
    except (OSError, ValueError, KeyError, TypeError):
        value = compute()
    with contextlib.suppress(OSError):
        publish_text(path, json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
    return value


def file_state(path: Path) -> list[str | int]:
    """What another content changes: size, times, inode, and a hash of both ends. Raises OSError.

    A file may be edited with its size kept and its modification time set back. Then its change time, which
    nobody sets, tells; where a volume has no honest one, the ends tell most edits (a header, a last row).
    """
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, _ends_sha256(path)]


def _ends_sha256(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(ENDS_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - ENDS_BYTES))
        return hashlib.sha256(start + file.read(ENDS_BYTES)).hexdigest()
