"""Copies of metadata CSVs as they were when a run was planned: nobody edits them under it."""

import hashlib
from pathlib import Path

from lary_schema.atomic import replacing
from lary_schema.base import ContractError
from lary_schema.presence import SplitSource

COPY_BYTES = 1 << 20


def snapshot(split: SplitSource, cache: Path) -> Path:
    """A read-only copy of a split's CSV as it was planned, made once and shared by all jobs.

    Raises ContractError where the CSV has changed meanwhile.
    """
    target = cache / "snapshots" / f"{split.sha256}.csv"
    if target.is_file():
        return target
    with replacing(target) as draft:
        if _copy(split.csv, draft) != split.sha256:
            raise ContractError(f"{split.csv}: changed while the run was planned; start it again")
        draft.chmod(0o444)
    return target


def link_copy(source: Path, target: Path) -> None:
    """Have `target` be `source`: by a hard link, or a copy where the file system has none."""
    with replacing(target) as draft:
        try:
            draft.hardlink_to(source)
        except OSError:
            _copy(source, draft)


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the sha256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(COPY_BYTES):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()
