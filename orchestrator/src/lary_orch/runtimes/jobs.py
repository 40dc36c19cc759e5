"""A job: what it reads, what it writes, what it needs. All that a runtime has to know of it.

Mounts, the order of jobs, which of them is hopeless and what is missing at the end follow from these declarations;
nothing here knows a verb. See `plan.verbs` for who declares what.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lary_schema.base import ContractError, Document
from lary_schema.mounts import Mounts
from lary_schema.presence import SplitSource
from lary_schema.store.layout import Store

from lary_orch.catalog.source import ImageSource

JOB_FILE = "job.json"
"""Name of the job's document in the job mount."""
NAMED_SHARDS = 8
"""How many missing shards a message lists."""

MountName = Literal["data", "weights", "latents", "out"]
"""The job mount is every job's, read-only."""


@dataclass(frozen=True)
class Prepared:
    """An image that is ready to run here."""

    source: ImageSource
    ref: str
    """What results call it: an image reference, or the environment's name."""
    digest: str | None
    """Content address (docker: the image id); None for process environments."""
    identity: str
    """Changes whenever the reply of `describe` could: the key of its cache."""


@dataclass(frozen=True)
class Output:
    """What a job leaves: a store or a part of it, a JSON document with its fingerprint in it, or any other file."""

    mount: MountName
    path: str
    """Below the mount."""
    fingerprint: str
    """Of what determines it, so it is known before it exists: by it other jobs name what they need."""
    shards: tuple[int, ...] = ()
    """Of a store: those that this job writes."""

    def missing(self, mounts: Mounts) -> str | None:
        """What is not there, after the job said that it was done."""
        path: Path = getattr(mounts, self.mount) / self.path
        if self.shards:
            left = sorted(set(self.shards) - Store(path).done())
            named = ", ".join(map(str, left[:NAMED_SHARDS])) + (", ..." if len(left) > NAMED_SHARDS else "")
            return f"the image said that it was done, and shards {named} of {self.path} are missing" if left else None
        if path.exists() and (path.suffix != ".json" or _fingerprint(path) == self.fingerprint):
            return None
        return f"the image said that it was done, and left no {path} of this job"


def _fingerprint(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("fingerprint") if isinstance(content, dict) else None


@dataclass(frozen=True)
class Task:
    """What any host has to know of a job to follow it, also of one that another host has begun."""

    id: str
    verb: str
    """The image's command."""
    title: str
    """For people: what is done to what."""
    mounts: Mounts
    """Host folders."""
    group: str = ""
    """Jobs that do parts of one thing have the same; by default the job's id."""
    needs: tuple[str, ...] = ()
    """Jobs that have to be done before."""
    outputs: tuple[Output, ...] = ()

    def missing(self) -> str | None:
        """What should be there after exit code 0 and is not (an image that breaks the contract)."""
        return next((text for output in self.outputs if (text := output.missing(self.mounts)) is not None), None)

    @property
    def in_parts(self) -> bool:
        """Whether it is one of several that do the same thing together."""
        return self.group not in ("", self.id)


@dataclass(frozen=True, kw_only=True)
class Job(Task):
    """A task that can be started here."""

    image: Prepared
    run: str
    document: Document | None = None
    """What `job.json` holds."""
    files: tuple[SplitSource, ...] = ()
    """The CSVs that belong into the job mount."""
    inputs: tuple[str, ...] = ()
    """Fingerprints of what it reads and another job may have to write first: stores, weights."""
    reads: tuple[MountName, ...] = ()
    """Mounts that it sees besides its own `job`."""
    writes: MountName = "out"
    """The one mount that it may write."""
    slots: int = 1
    """How many it takes at once."""
    stall_timeout_s: float = 600
    memory_bytes: int | None = None
    """None: the runtime's own limit."""
    shm_bytes: int = 1 << 30
    env: Mapping[str, str] = field(default_factory=dict)
    reopen: tuple[int, ...] = ()
    """Shards that lose their done marker before it starts (damaged, or retried)."""
    result: Path | None = None
    """Where an equal job left its result already, in this run or in another one: nothing to do."""

    @property
    def mounted(self) -> tuple[str, ...]:
        """Mounts that it gets, its own folder among them."""
        wanted = {*self.reads, self.writes, "job"}
        return tuple(name for name in ("data", "weights", "job", "latents", "out") if name in wanted)

    @property
    def stores(self) -> tuple[str, ...]:
        """Below the latents volume, the folders that it writes: all it sees of the volume where it reads no others."""
        if self.writes != "latents" or "latents" in self.reads:
            return ()
        return tuple(dict.fromkeys(output.path for output in self.outputs if output.mount == "latents"))

    def make_stores(self) -> None:
        """Make these folders: a container that sees nothing around them cannot. The volume itself has to be there.

        Raises ContractError where they cannot be made.
        """
        try:
            for store in self.stores if self.mounts.latents.is_dir() else ():
                (self.mounts.latents / store).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ContractError(f"{error.filename}: {error.strerror}; make it writable, or use --latents") from None


def link(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, each needing those that write what it reads."""
    writers: dict[str, list[str]] = {}
    for job in jobs:
        for output in job.outputs:
            writers.setdefault(output.fingerprint, []).append(job.id)
    return [
        replace(job, needs=tuple(dict.fromkeys(name for key in job.inputs for name in writers.get(key, ()))))
        for job in jobs
    ]
