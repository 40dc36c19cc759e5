"""Finished results as one zip file, and back: `results --export` and `--import`.

The file holds folders `RUN/MODEL/DATASET/PROBE` with their `result.json` and what lies beside it, the probe's weights
apart, and `lary-results.json`, which names every file with its size and sha256. What is imported lies in
`results/imported-HASH`, so that no run takes it for its own.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text, replacing
from lary_schema.base import ContractError, Document, file_sha256
from lary_schema.damage import DAMAGED_ARCHIVE
from lary_schema.files import visible_files
from lary_schema.results import ProbeResult

from lary_results.files import IMPORT_FILE, IMPORTED, RESULT_FILE, Import, imported_from, read_results

INDEX = "lary-results.json"
LEFT_OUT = ("probe.safetensors",)
DEPTH = 5
"""Parts of a name: RUN/MODEL/DATASET/PROBE/FILE, or one folder more."""
MAX_INDEX, MAX_FILE, MAX_FILES = 64 << 20, 1 << 30, 1_000_000
CHUNK = 1 << 20


class Entry(Document):
    size: int
    sha256: str
    modified: float
    """Seconds since 1970: of several results for a cell the newest is shown."""


class Index(Document):
    """`lary-results.json`."""

    version: Literal[1] = 1
    files: dict[str, Entry]


class Imported(NamedTuple):
    """What an import came to."""

    folder: Path
    results: int
    is_new: bool


def export(results: Path, run: str, protocol: str | None, file: Path) -> int:
    """Write all finished results of a run or of all (`*`); how many. What was imported is not written again.

    Raises ContractError where there is none, or where `file` exists.
    """
    if file.exists():
        raise ContractError(f"{file}: is there already; name a new file, or remove it")
    chosen = [
        path.parent
        for path, result in read_results(results, run)
        if protocol in (None, result.protocol) and imported_from(path) is None
    ]
    if not chosen:
        raise ContractError(f"{results}: no results to export")
    files = {path.relative_to(results).as_posix(): path for folder in sorted(chosen) for path in _files(folder)}
    index = Index(files={name: _entry(path) for name, path in files.items()})
    with replacing(file) as draft, zipfile.ZipFile(draft, "x", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(INDEX), index.to_json())
        for name, path in files.items():
            archive.write(path, name)
    return len(chosen)


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in visible_files(folder) if path.name not in LEFT_OUT and not path.is_symlink())


def _entry(path: Path) -> Entry:
    stat = path.stat()
    return Entry(size=stat.st_size, sha256=file_sha256(path), modified=stat.st_mtime)


def import_results(file: Path, results: Path) -> Imported:
    """Take a zip file's results. The same content a second time changes nothing.

    Raises ContractError for a file that is damaged, or holds anything that `export` does not write; nothing is left
    behind then.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            index = _checked(archive, file)
            name = f"{IMPORTED}{hashlib.sha256(index.to_json().encode()).hexdigest()[:12]}"
            count = sum(PurePosixPath(one).name == RESULT_FILE for one in index.files)
            if (results / name / IMPORT_FILE).is_file():
                return Imported(results / name, count, is_new=False)
            _unpack(archive, index, file, results / name)
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise ContractError(f"{file}: is no zip file of results, or not whole: {error}") from None
    return Imported(results / name, count, is_new=True)


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
        if not _is_safe(name):
            raise ContractError(f"{file}: {name!r} is no name of a file of results")
        if entries[name].file_size != entry.size or not 0 <= entry.size <= MAX_FILE:
            raise ContractError(f"{file}: {name!r} has another size than the index says, or more than {MAX_FILE} bytes")
    _check_folders(index, file)
    return index


def _check_folders(index: Index, file: Path) -> None:
    folders = {"/".join(name.split("/")[: DEPTH - 1]) for name in index.files}
    if not folders or any(f"{folder}/{RESULT_FILE}" not in index.files for folder in folders):
        raise ContractError(f"{file}: holds no results, or files without their {RESULT_FILE}")


def _is_safe(name: str) -> bool:
    """Whether a name stays where it belongs, on any system."""
    parts = name.split("/")
    plain = name.isprintable() and not set(name) & set('\\:*?"<>|')
    hidden = any(part in ("", ".", "..") or part.startswith(".") or part.endswith((".", " ")) for part in parts)
    return plain and not hidden and DEPTH <= len(parts) <= DEPTH + 1 and not name.endswith(PARTIAL_SUFFIX)


def _unpack(archive: zipfile.ZipFile, index: Index, file: Path, target: Path) -> None:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent.parent, prefix=f".{target.name}.", suffix=PARTIAL_SUFFIX))
    try:
        for name, entry in index.files.items():
            with archive.open(name) as source:
                _write(source, draft / name, entry, f"{file}: {name}")
            if PurePosixPath(name).name == RESULT_FILE:
                _check_result(draft / name, name, file)
        runs = sorted({PurePosixPath(name).parts[0] for name in index.files})
        # A folder of results has one level of runs: here it is the import.
        _flatten(draft, runs)
        document = Import(file=file.name, runs=tuple(runs))
        publish_text(draft / IMPORT_FILE, document.to_json())
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _flatten(draft: Path, runs: Sequence[str]) -> None:
    """RUN/MODEL/DATASET/PROBE becomes MODEL/DATASET/RUN.PROBE."""
    for run in runs:
        for folder in sorted((draft / run).glob("*/*/*")):
            model, dataset, probe = folder.relative_to(draft / run).parts
            to = draft / "flat" / model / dataset / f"{run}.{probe}"
            to.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(to)
        shutil.rmtree(draft / run)
    for folder in (draft / "flat").iterdir():
        folder.rename(draft / folder.name)
    (draft / "flat").rmdir()


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


def _check_result(path: Path, name: str, file: Path) -> None:
    """Raises ContractError where a result is none, or says that it is of another folder."""
    result = ProbeResult.parse(json.loads(path.read_bytes()), f"{file}: {name}")
    if (result.run, result.model, result.dataset) != PurePosixPath(name).parts[:3]:
        raise ContractError(f"{file}: {name}: is of {result.run}/{result.model}/{result.dataset}")
