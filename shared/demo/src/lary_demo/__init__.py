"""The demo world: small procedural datasets with known actions, the same for a seed everywhere.

`ensure` makes one at its first use. `python -m lary_demo KEY FOLDER --seed 1 --distractor 80`
makes another world, to be named by a dataset card of its own.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from lary_schema.atomic import discard, making
from lary_schema.base import ContractError

from lary_demo.settings import DISTRACTOR, VERSION, Settings

__all__ = ["KEYS", "VERSION", "Settings", "ensure", "is_complete"]

TABLES = 2
"""Of the CSVs' columns: bump it when one is added. The media and their names stay."""
KEYS = tuple(DISTRACTOR)
MARKER = "demo.json"


def ensure(key: str, folder: Path, notify: Callable[[str], object] = str, settings: Settings | None = None) -> None:
    """Have `folder`/`key` hold the demo set, whole: at once where it does, in seconds where not.

    What lies there in part, or by other settings, is replaced. Safe against kills and against two
    processes at once. Raises ContractError for an unknown key or a folder that cannot be written.
    """
    settings = settings or Settings.of(key)
    target = folder / key
    if is_complete(target, settings):
        return
    notify(f"making {key} in {target}")
    begun = time.monotonic()
    try:
        _replace(key, target, settings)
    except OSError as error:
        raise ContractError(
            f"{target}: the demo set cannot be written: {error.strerror}; free the disk, or give a folder "
            "you may write to by --workspace or LARY_HOME"
        ) from None
    notify(f"made {key} in {time.monotonic() - begun:.1f} s")


def is_complete(target: Path, settings: Settings | None = None) -> bool:
    """Whether a folder, named after its set, holds it by these settings, and no file of it is missing or cut."""
    settings = settings or Settings.of(target.name)
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(marker == _marker(target, settings))


def _marker(target: Path, settings: Settings) -> dict[str, int]:
    files = (entry for entry in _files(target) if entry.name != MARKER)
    sizes = [entry.stat().st_size for entry in files]
    return {**asdict(settings), "tables": TABLES, "files": len(sizes), "bytes": sum(sizes)}


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files below a folder. The long sets have tens of thousands, which are looked at before each run."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield entry


def _replace(key: str, target: Path, settings: Settings) -> None:
    from lary_demo.generate import WRITERS

    try:
        # Not forced to the disk: the marker knows how many bytes there have to be.
        with making(target, sync=False) as draft:
            WRITERS[key](draft, settings)
            (draft / MARKER).write_text(json.dumps(_marker(draft, settings)) + "\n", encoding="utf-8")
            if target.exists() and not is_complete(target, settings):
                discard(target)
    except OSError:
        # Another process was as good and faster.
        if not is_complete(target, settings):
            raise
