"""The interface between a run and the runtime that its jobs run in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from lary_schema.events import Event
from lary_schema.runs import RunPaths

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job, Prepared, Task

JOB_ENVIRONMENT = {
    # Containers have no network; a model that would download must fail under every runtime alike.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    # A random.py in the caller's folder, or a package of the user's own, is no input. Children inherit it.
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
}
"""What every command of an image is given, wherever it runs."""
QUERY_TIMEOUT_S = 300.0
"""For `describe`: a first import of a large library from a slow network disk takes minutes."""

Notify = Callable[[str], None]
"""Receives a line for people about something slow (making an environment, building an image)."""
State = Literal["done", "failed", "skipped", "stopped"]


def thread_environment(cpus: int | None) -> dict[str, str]:
    """The variables that keep numerical libraries to a job's share of the processor."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {} if cpus is None else dict.fromkeys(names, str(cpus))


@dataclass(frozen=True)
class Folder:
    """A file or folder of the host that a command sees which is no job."""

    source: Path
    target: str
    """Its path in the container."""
    read_only: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a job ended, all attempts together."""

    task: Task
    state: State
    code: int = 0
    message: str = ""
    attempts: int = 0
    stderr: Path | None = None
    """Log of the last attempt."""


class Observer(Protocol):
    """Shows people or programs what happens. Called from one thread alone."""

    def launched(self, task: Task, slot: Slot, attempt: int) -> None:
        """A job was started."""

    def event(self, task: Task, event: Event) -> None:
        """A job said something."""

    def relaunch(self, task: Task, code: int, message: str) -> None:
        """An attempt died; the next one follows."""

    def ended(self, outcome: Outcome) -> None:
        """A job will not be started again."""

    def note(self, text: str) -> None:
        """Something about the run as a whole."""


class Execution(Protocol):
    """The jobs of one run in the hands of a runtime."""

    detachable: bool
    """Whether jobs go on when nobody follows them."""

    @property
    def tasks(self) -> Sequence[Task]:
        """All of them, in order; those of a run that is under way may have been begun by another host."""

    @property
    def outcomes(self) -> list[Outcome]:
        """In the order of `tasks`; what has not ended is `stopped`."""

    def submit(self, watch: Observer) -> None:
        """Begin; `poll` hands over what is ready. From here on `watch` hears what happens."""

    def poll(self) -> bool:
        """Wait a moment, look what happened, hand over what became ready. True once every job has its outcome."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody ended it before its time."""

    def handed_over(self) -> bool:
        """Whether nothing is left that somebody would have to submit later."""

    def wake(self) -> None:
        """End the waiting of `poll`. May be called from a signal handler."""

    def cancel(self, notify: Notify, *, force: bool = False) -> None:
        """End all jobs; `poll` reports when they have ended."""

    def logs(self, task: str, attempt: int) -> tuple[Path, Path]:
        """Files of an attempt: its events, its stderr."""


class Running(Protocol):
    """One started job, of a runtime that starts them one by one."""

    def lines(self) -> Iterator[str]:
        """Stdout, line by line, until it closes. Called once, from one thread."""

    def wait(self) -> int:
        """The exit code, after the end; 128 + n for a death by signal n. Releases what was held."""

    def stop(self, grace_s: float = 10) -> None:
        """End it and all it started: politely, then by force. Safe to call twice and from a thread."""


Start = Callable[[Job, Slot, Path], Running]
"""Starts a job on a slot; its stderr goes to the file. Raises ContractError where it cannot be started."""


@dataclass(frozen=True)
class Opening:
    """What a runtime gets to carry out a run."""

    paths: RunPaths
    attempts: int
    slots: Sequence[Slot]
    make_jobs: Callable[[], list[Job]]
    """Writes the jobs' folders. Not called where the run is under way already."""
    notify: Notify
    one_by_one: Callable[..., Execution]
    """The local scheduler, for a runtime that starts jobs one by one: `one_by_one(opening, start)`. A third argument is
    called without arguments when nothing more will be started."""


class Runtime(Protocol):
    """Where jobs run."""

    name: str
    isolates: bool
    """Whether a job sees nothing but its mounts, and no network."""

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        """Make the image ready. Raises ContractError, with what to do, where it cannot be."""

    def query(
        self, prepared: Prepared, *arguments: str, folders: Sequence[Folder] = (), limit_s: float = QUERY_TIMEOUT_S
    ) -> str:
        """Run a short command of the image (`describe`) without mounts; its stdout.

        Where the runtime isolates, the command sees `folders` and nothing else. Raises ContractError with the end
        of its stderr where it fails.
        """

    def slots(self) -> list[Slot] | None:
        """How many jobs of which kind are planned for at once; None: this machine's."""
        return None

    def sweep(self) -> list[str]:
        """Remove what dead orchestrators left running or lying; what was removed, for people."""
        return []

    def unfit(self, images: Iterable[ImageSource], *, gpu: bool) -> str | None:
        """Why jobs of these images cannot run here; None where they can."""
        return None

    def preview(self, paths: RunPaths, jobs: Sequence[Job], notify: Notify) -> list[dict[str, Any]] | None:
        """What would be submitted, each with `command` and `script`; None for a runtime that shows no such thing."""
        return None

    def remarks(self, jobs: Sequence[Job]) -> list[str]:
        """What people should know of how these jobs are carried out here; a line each."""
        return []

    def open(self, opening: Opening) -> Execution:
        """A run's execution: the one that is under way, or one of its own jobs."""


class LocalRuntime(Runtime, Protocol):
    """A runtime that starts each job by itself; the local scheduler does the rest."""

    def start(self, job: Job, slot: Slot, stderr: Path) -> Running:
        """See `Start`."""

    def adopt(self, ref: str) -> Prepared:
        """A third-party image by its reference alone: its card is its own. Raises ContractError as `query` does."""

    def as_user(self, uid: int, gid: int) -> Self | None:
        """The same runtime with jobs run as somebody else; None where it cannot."""
        return None

    def open(self, opening: Opening) -> Execution:
        return opening.one_by_one(opening, self.start)
