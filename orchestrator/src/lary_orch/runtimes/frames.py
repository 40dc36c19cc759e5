"""Extractions of one image that read the same rows in the same way share them: each row is decoded once (0042)."""

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lary_schema import kept_frames
from lary_schema.base import fingerprint
from lary_schema.jobs import ExtractJob

from lary_orch.runtimes.jobs import Job

_ITEM_BYTES = {"uint8": 1, "float32": 4, "int64": 8}
_DECODED = ("video", "image")
_PART_OF_FREE = 0.5
"""Of the space that is free on the volume, at most, for the files of all splits together."""


@dataclass(frozen=True)
class SharedRows:
    """The rows of one split, preprocessed in one way, and the jobs that read them."""

    path: Path
    rows: int
    row_bytes: int
    jobs: tuple[Job, ...]

    @property
    def bytes(self) -> int:
        return kept_frames.file_bytes(self.rows, self.row_bytes)

    @property
    def title(self) -> str:
        """For people: whose rows, and who reads them."""
        values = [job.document.values for job in self.jobs if isinstance(job.document, ExtractJob)]
        models = dict.fromkeys(one.model for one in values)
        return f"rows of {values[0].dataset}/{values[0].split} are decoded once for {', '.join(models)}"

    def make(self) -> None:
        """Make the file; where that cannot be, its jobs do without it."""
        with suppress(OSError):
            kept_frames.create(self.path, self.rows, self.row_bytes)

    def remove_if_done(self) -> None:
        """Unless a job is left that a later run can do faster with it."""
        if all(job.missing() is None for job in self.jobs):
            with suppress(OSError):
                self.path.unlink()


def shared_rows(jobs: Iterable[Job], folder: Path) -> list[SharedRows]:
    """What is worth keeping below `folder`: rows that several stores are made of, as far as there is space."""
    left = _free_bytes(folder) * _PART_OF_FREE
    chosen = []
    for one in _candidates(jobs, folder):
        if one.bytes <= left:
            chosen.append(one)
            left -= one.bytes
    return chosen


def _candidates(jobs: Iterable[Job], folder: Path) -> Iterator[SharedRows]:
    groups: dict[str, list[tuple[Job, ExtractJob]]] = {}
    for job in jobs:
        if isinstance(job.document, ExtractJob) and job.document.values.mode in _DECODED:
            groups.setdefault(_key(job, job.document), []).append((job, job.document))
    for key, members in groups.items():
        document = members[0][1]
        if len({one.store.path for _, one in members}) > 1:
            spec = document.values.spec.input
            row_bytes = math.prod(spec.shape) * _ITEM_BYTES[spec.dtype]
            rows = document.source.metadata.rows
            yield SharedRows(folder / f"{key}.rows", rows, row_bytes, tuple(job for job, _ in members))


def _key(job: Job, document: ExtractJob) -> str:
    """Hash of what a preprocessed row depends on; the image's identity changes with any source or library."""
    values, source = document.values, document.source
    return fingerprint(
        {
            "image": [job.image.source.card.name, job.image.identity],
            "preprocessing": values.preprocessing,
            "input": values.spec.input.model_dump(mode="json"),
            "mode": values.mode,
            "decoder": values.decoder,
            "source": source.model_dump(mode="json"),
            "data": str(job.mounts.data),
        }
    )[:16]


def file_of(shared: Sequence[SharedRows], job: Job) -> str:
    """For the variable of a job; empty where it shares none."""
    return next((str(one.path) for one in shared if any(other.id == job.id for other in one.jobs)), "")


def _free_bytes(folder: Path) -> int:
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 0
