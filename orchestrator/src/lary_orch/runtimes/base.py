"""The interface between the scheduler and the place where a job runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lary_schema.cards import ImageCard
from lary_schema.mounts import Mounts

JOB_FILE = "job.json"
"""Name of the job's document in the job mount."""

JOB_ENVIRONMENT = {
    # Containers have no network; a model that would download must fail under every runtime alike.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
}
"""What every command of an image is given, wherever it runs."""

Say = Callable[[str], None]
"""Receives a line for people about something slow (making an environment, building an image)."""


@dataclass(frozen=True)
class ImageSource:
    """An image as the catalog found it: its card, and the folder it is built from (None: by reference)."""

    card: ImageCard
    folder: Path | None


@dataclass(frozen=True)
class Prepared:
    """An image that is ready to run here."""

    source: ImageSource
    ref: str
    """What results call it: an image reference, or the environment's name."""
    digest: str | None
    """Content address (docker: the image id); None for process environments."""
    identity: str
    """Changes whenever the answer of `describe` could: the key of its cache."""


@dataclass(frozen=True)
class Device:
    """What a job may compute on."""

    kind: str = "cpu"
    """`cpu` or `cuda`."""
    uuids: tuple[str, ...] = ()
    """Of the GPUs: one, or several that a probe's processes share."""
    name: str = "cpu"


@dataclass(frozen=True)
class Task:
    """One launch of one job."""

    job_id: str
    run: str
    prepared: Prepared
    verb: str
    """`extract`, `classify` or `regress`."""
    mounts: Mounts
    """Host folders. Only `latents` (extract) and `out` (probes) may be written."""
    device: Device = Device()
    cpus: int | None = None
    memory_bytes: int | None = None
    shm_bytes: int = 1 << 30
    env: dict[str, str] = field(default_factory=dict)


def thread_environment(cpus: int | None) -> dict[str, str]:
    """The variables that keep numerical libraries to a task's share of the processor."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {} if cpus is None else dict.fromkeys(names, str(cpus))


class Running(Protocol):
    """A launched task."""

    def lines(self) -> Iterator[str]:
        """Stdout, line by line, until it closes. Called once, from one thread."""

    def wait(self) -> int:
        """The exit code, after the end; 128 + n for a death by signal n. Releases what was held."""

    def stop(self, grace_s: float = 10) -> None:
        """End it and all it started: politely, then by force. Safe to call twice and from a thread."""


class Runtime(Protocol):
    """A place to run jobs in: what planning needs of it."""

    name: str

    def prepare(self, image: ImageSource, say: Say) -> Prepared:
        """Make the image ready. Raises ContractError with the way out where it cannot be."""

    def ask(self, prepared: Prepared, *arguments: str) -> str:
        """Run a short command of the image (`describe`) without mounts; its stdout.

        Raises ContractError with the end of its stderr where it fails.
        """

    def sweep(self) -> list[str]:
        """Remove what dead orchestrators left running or lying; what was removed, for people."""


class LocalRuntime(Runtime, Protocol):
    """A place on this machine, where each task is started and followed by itself.

    A cluster is given all tasks at once instead, and goes on without us (`slurm.runtime`).
    """

    def start(self, task: Task, stderr: Path) -> Running:
        """Launch a task; its stderr goes to a file."""
