"""What is expensive to compute and can be computed again: kept as one small JSON file per value."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lary_schema.atomic import publish_text
from lary_schema.base import fingerprint


def remembered(folder: Path, kind: str, key: Any, compute: Callable[[], Any]) -> Any:
    """`compute()`, a JSON value, or what it gave for the same `key` (a JSON value) before.

    Two processes may call it at once. A cache that cannot be written costs time and nothing else.
    """
    path = folder / kind / f"{fingerprint(key)[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["value"]
    except (OSError, ValueError, KeyError, TypeError):
        value = compute()
    with contextlib.suppress(OSError):
        publish_text(path, json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
    return value
