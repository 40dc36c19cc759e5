"""Finished work as one zip file, and back: `results --export` and `--import`.

The file holds what `parts` lists, and `lary-results.json`, which names every file with its size and sha256. What is
imported lies in `results/imported-HASH`, so that no run takes it for its own.
"""

import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Literal, NamedTuple

from lary_schema.atomic import discard, making, publish_text, replacing
from lary_schema.base import ContractError, Document, file_sha256
from lary_schema.damage import DAMAGED_ARCHIVE

from lary_results.files import IMPORT_FILE, IMPORTED, Import, nothing_found
from lary_results.parts import RESULT, Kind, check_document, counted, document_of, finished, landing, run_of

INDEX = "lary-results.json"
MAX_INDEX, MAX_FILE, MAX_FILES = 64 << 20, 1 << 30, 1_000_000
CHUNK = 1 << 20


class Entry(Document):
    size: int
    sha256: str
    modified: float
    """Seconds since 1970: of several results for a cell the newest is shown."""


class Index(Document):
    """`lary-results.json`."""

    version: Literal[1, 2] = 1
    """2 where there is more than results of probes: versions of the bench that know those alone refuse the number."""
    files: dict[str, Entry]


class Imported(NamedTuple):
    """What an import came to."""

    folder: Path
    counts: Mapping[Kind, int]
    is_new: bool

    @property
    def text(self) -> str:
        return f"{counted(self.counts)} in {self.folder}"


# --- out --------------------------------------------------------------------------------------


def export(results: Path, run: str, protocol: str | None, file: Path) -> Mapping[Kind, int]:
    """Write all finished work of a workspace, whose `results` these are, or of one run; how much of each kind.

    A protocol's are results of probes alone. What was imported is not written again. Raises ContractError where there
    is nothing, where `file` exists, and for a file of ours that an import would refuse.
    """
    if file.exists():
        raise ContractError(f"{file}: is there already; name a new file, or remove it")
    parts = list(finished(results, run, protocol))
    if not parts:
        raise ContractError(f"{nothing_found(results, run, protocol)}: there is nothing to export")
    files = dict(sorted((name, path) for part in parts for name, path in part.files.items()))
    if odd := [path for name, path in files.items() if document_of(name) is None]:
        raise ContractError(f"{odd[0]}: is no file that an import would take; remove it, and export again")
    others = any(part.kind is not RESULT for part in parts)
    index = Index(version=2 if others else 1, files={name: _entry(path) for name, path in files.items()})
    # Times before 1980, which a zip file cannot hold, stand in the index.
    with (
        replacing(file) as draft,
        zipfile.ZipFile(draft, "x", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        archive.writestr(zipfile.ZipInfo(INDEX), index.to_json())
        for name, path in files.items():
            archive.write(path, name)
    return Counter(part.kind for part in parts)


def _entry(path: Path) -> Entry:
    stat = path.stat()
    return Entry(size=stat.st_size, sha256=file_sha256(path), modified=stat.st_mtime)


# --- in ---------------------------------------------------------------------------------------


def import_results(file: Path, results: Path) -> Imported:
    """Take a zip file's results, whole or not at all. The same content a second time changes nothing.

    Where some of it was removed since, all of it is put there anew. Raises ContractError for a file that is damaged, or
    holds anything that `export` does not write, and where the disk refuses; nothing is left behind then.
    """
    if not file.is_file():
        raise ContractError(f"{file}: is no zip file of results: there is no such file")
    try:
        with zipfile.ZipFile(file) as archive:
            index = _checked(archive, file)
            name = f"{IMPORTED}{hashlib.sha256(index.to_json().encode()).hexdigest()[:12]}"
            is_new = _unpack(archive, index, file, results / name)
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise ContractError(f"{file}: is no zip file of results, or not whole: {error}") from None
    return Imported(results / name, _counts(index.files), is_new)


def _checked(archive: zipfile.ZipFile, file: Path) -> Index:
    """The index, which names exactly what the file holds."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if INDEX not in entries or entries[INDEX].file_size > MAX_INDEX:
        raise ContractError(f"{file}: has no {INDEX}; `results --export` writes such files")
    if len(entries) != len(archive.infolist()) or len(entries) > MAX_FILES:
        raise ContractError(f"{file}: holds a name twice, or more than {MAX_FILES:,} files")
    index = Index.parse(json.loads(archive.read(INDEX)), f"{file}: {INDEX}")
    if odd := sorted(set(index.files) ^ (set(entries) - {INDEX})):
        raise ContractError(f"{file}: {odd[0]!r} is in the index or in the file alone")
    for name, entry in index.files.items():
        if (belongs := document_of(name)) is None:
            raise ContractError(f"{file}: {name!r} is no name of a file of results")
        if belongs[1] not in index.files:
            raise ContractError(f"{file}: holds no results, or files without their document: {belongs[1]} is missing")
        if entries[name].file_size != entry.size or not 0 <= entry.size <= MAX_FILE:
            raise ContractError(f"{file}: {name!r} has another size than the index says, or more than {MAX_FILE} bytes")
    if not index.files:
        raise ContractError(f"{file}: holds no results")
    return index


def _counts(names: Iterable[str]) -> Counter[Kind]:
    """Documents by kind."""
    belongs = {name: document_of(name) for name in names}
    return Counter(found[0] for name, found in belongs.items() if found is not None and found[1] == name)


def _is_whole(folder: Path, index: Index) -> bool:
    """Whether all that an import put there is there still: `clean --results MODEL` takes a part of it."""
    sizes = {folder / landing(name): entry.size for name, entry in index.files.items()}
    there = all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
    return there and (folder / IMPORT_FILE).is_file()


def _unpack(archive: zipfile.ZipFile, index: Index, file: Path, target: Path) -> bool:
    """Whole or not at all; False: it is there. What is left of an earlier import goes first."""
    try:
        if _is_whole(target, index):
            return False
        with making(target) as draft:
            for name, entry in index.files.items():
                with archive.open(name) as source:
                    _write(source, draft / landing(name), entry, f"{file}: {name}")
                _check(name, draft / landing(name), f"{file}: {name}")
            runs = tuple(sorted({run for name in index.files if (run := run_of(name)) is not None}))
            publish_text(draft / IMPORT_FILE, Import(file=file.name, runs=runs).to_json())
            if target.exists():
                discard(target)
    except OSError as error:
        raise ContractError(
            f"{target}: cannot be written: {error.strerror}; make room there or choose another --workspace, and import "
            "again"
        ) from None
    return True


def _write(source: IO[bytes], path: Path, entry: Entry, what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        for chunk in iter(lambda: source.read(CHUNK), b""):
            size += len(chunk)
            digest.update(chunk)
            target.write(chunk)
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        raise ContractError(f"{what}: its bytes are not those that the index names; get the file again")
    os.utime(path, (entry.modified, entry.modified))


def _check(name: str, path: Path, what: str) -> None:
    belongs = document_of(name)
    if belongs is not None and belongs[1] == name:
        check_document(belongs[0], name, path.read_bytes(), what)
