"""What jobs of a run share: rows that several extractions decode alike (0042), action files (0043)."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lary_schema import kept_actions, kept_frames
from lary_schema.jobs import ExtractJob, ProbeJob

from lary_orch.runtimes.jobs import Job

_ITEM_BYTES = {"uint8": 1, "float32": 4, "int64": 8}
_DECODED = ("video", "image")
_PART_OF_FREE = 0.5
"""Of the space that is free on the volume, at most, for the files of all splits together."""


@dataclass(frozen=True)
class Shared:
    """A file that several jobs of a run use, while they run."""

    variable: str
    """Names it to them."""
    path: Path
    bytes: int
    """At most."""
    jobs: tuple[Job, ...]
    title: str = ""
    """For people: whose rows, and who reads them; empty: not worth a word."""
    create: Callable[[], None] = lambda: None
    """Of a file that is there before its jobs. Raises OSError."""

    def make(self) -> None:
        """Make it; where that cannot be, its jobs do without it."""
        with suppress(OSError):
            self.create()

    def remove_if_done(self) -> None:
        """Unless a job is left that a later run can do faster with it."""
        if all(job.missing() is None for job in self.jobs):
            with suppress(OSError):
                self.path.unlink()


def shared_files(jobs: Sequence[Job], folder: Path) -> list[Shared]:
    """What is worth keeping below `folder`: what several jobs read or make alike, as far as there is space."""
    left = _free_bytes(folder) * _PART_OF_FREE
    chosen: list[Shared] = []
    for one in (*_rows(jobs, folder), *_actions(jobs, folder)):
        if one.bytes <= left:
            chosen.append(one)
            left -= one.bytes
    return chosen


def _rows(jobs: Iterable[Job], folder: Path) -> Iterator[Shared]:
    groups: dict[str, list[tuple[Job, ExtractJob]]] = {}
    for job in jobs:
        if isinstance(job.document, ExtractJob) and job.document.values.mode in _DECODED:
            # The image's identity changes with any source or library.
            image = (job.image.source.card.name, job.image.identity)
            groups.setdefault(kept_frames.key_of(job.document, image, job.mounts.data), []).append((job, job.document))
    for key, members in groups.items():
        values, path = members[0][1].values, folder / f"{key}.rows"
        if len({one.store.path for _, one in members}) > 1:
            spec = values.spec.input
            size = members[0][1].source.metadata.rows, math.prod(spec.shape) * _ITEM_BYTES[spec.dtype]
            models = ", ".join(dict.fromkeys(one.values.model for _, one in members))
            title = f"rows of {values.dataset}/{values.split} are decoded once for {models}"
            create = partial(kept_frames.create, path, *size)
            using = tuple(job for job, _ in members)
            yield Shared(kept_frames.VARIABLE, path, kept_frames.file_bytes(*size), using, title, create)


def _actions(jobs: Iterable[Job], folder: Path) -> Iterator[Shared]:
    """The first probe of several makes the file."""
    groups: dict[str, list[tuple[Job, ProbeJob]]] = {}
    for job in jobs:
        if isinstance(job.document, ProbeJob) and (key := kept_actions.key_of(job.document, job.mounts.data)):
            groups.setdefault(key, []).append((job, job.document))
    for key, members in groups.items():
        if len(members) > 1:
            size, using = kept_actions.most_bytes(members[0][1]), tuple(job for job, _ in members)
            yield Shared(kept_actions.VARIABLE, folder / f"{key}.actions", size, using)


def files_of(shared: Sequence[Shared], job: Job) -> dict[str, str]:
    """The variables of a job; empty where it shares none."""
    found = {one.variable: str(one.path) for one in shared if any(other.id == job.id for other in one.jobs)}
    return {kept_frames.VARIABLE: "", kept_actions.VARIABLE: ""} | found


def _free_bytes(folder: Path) -> int:
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 0
