"""A mount made of files and folders from anywhere on the host: a folder of links, and what a container mounts for it.

A process follows the links. A container cannot, since their targets lie outside: it gets each file for itself,
at the same path (`linked_files`), and nothing else of the folders that hold them. A linked folder may be made later,
as the checkpoint of a training that is planned.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from lary_schema.atomic import discard, making
from lary_schema.base import ContractError, fingerprint

FOLDER = "linked"
"""Name of the folder that holds them: what distinguishes such a mount from any other folder."""


def linked_folder(files: Mapping[str, Path], below: Path) -> Path:
    """A folder below `below` in which every name (a relative path) is a link to its file or folder.

    The same files give the same folder, whoever calls first; for no files there is none, and nothing is mounted.
    Raises ContractError where it cannot be made.
    """
    targets = {name: str(path.resolve()) for name, path in files.items()}
    folder = below / FOLDER / fingerprint(targets)[:16]
    try:
        if _links(folder) != targets:
            _make(folder, targets)
    except OSError as error:
        raise ContractError(f"{folder}: cannot be made: {error.strerror}; choose another --workspace") from None
    return folder


def _make(folder: Path, targets: Mapping[str, str]) -> None:
    try:
        with making(folder, sync=False) as draft:
            for name, target in targets.items():
                link = draft / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
            if folder.is_dir() and _links(folder) != targets:
                discard(folder)  # somebody changed what lay there
    except OSError:
        # Another process was first.
        if _links(folder) != targets:
            raise


def _links(folder: Path) -> dict[str, str]:
    """Name -> target of every file below; nothing for what is no link."""
    found = {}
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        for path in (Path(parent, name) for name in (*names, *linked)):
            found[path.relative_to(folder).as_posix()] = str(path.readlink()) if path.is_symlink() else ""
    return found


def linked_files(folder: Path) -> dict[str, Path] | None:
    """Name -> file or folder of such a mount; None for a folder of any other kind, which is mounted as it is."""
    if folder.parent.name != FOLDER:
        return None
    return {name: Path(target) for name, target in sorted(_links(folder).items())}
