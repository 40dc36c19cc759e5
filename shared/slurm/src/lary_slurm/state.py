"""What is known of a run on the cluster: files of one writer each, on the shared volume.

    runs/RUN/slurm/0001/              a session: what one call of `run` submitted, and all that followed of it
      session.json                    written once, before anything is submitted
      submissions/0001.json  .sh      one call of sbatch, written before it (no id) and after it
      tasks/JOB.ATTEMPT.start  .end   written by the task itself
      output/                         what the batch scripts say
      cancelled.json                  written by `cancel`
      closed.json                     written by whoever saw the last task end

Any login node reads the whole state from here. Whoever holds the run's lock writes submissions.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from lary_orch.runtimes.jobs import Task
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, Document, read_json
from lary_schema.cards import Key
from lary_schema.runs import RunPaths

from lary_slurm.profile import Profile

FOLDER = "slurm"


class GroupEntry(Document):
    """What the tasks of one array job have in common."""

    name: str
    command: tuple[str, ...]
    """With `script.JOB` for the job's id."""
    options: tuple[str, ...]
    """Of sbatch."""
    setup: tuple[str, ...] = ()
    spread: bool = False


class Session(Document):
    """What is submitted, and how it is looked after."""

    run: Key
    name: str
    """Of every Slurm job of it."""
    attempts: int
    max_array: int
    profile: Profile
    groups: tuple[GroupEntry, ...]
    tasks: tuple[Task, ...]
    """With nothing of them that only the host knows which planned them."""


class Submission(Document):
    """One call of sbatch."""

    number: int
    group: str
    tasks: tuple[Key, ...]
    """By array index."""
    firsts: tuple[int, ...]
    """Number of each task's first attempt in it."""
    slurm: int | None = None
    """The job id; None until sbatch has replied."""

    def attempts(self, index: int, restarts: int = 0) -> int:
        """The attempt that a task of it makes after that many restarts by Slurm itself."""
        return self.firsts[index] + restarts


@dataclass(frozen=True)
class Marks:
    """What the tasks' own files say of one job."""

    started: int = 0
    """The newest attempt that began; 0: none."""
    ended: int = 0
    """The newest attempt that left its exit code."""


@dataclass(frozen=True)
class SessionPaths:
    """The folder of a session."""

    root: Path

    @property
    def document(self) -> Path:
        return self.root / "session.json"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def cancelled(self) -> Path:
        return self.root / "cancelled.json"

    @property
    def closed(self) -> Path:
        return self.root / "closed.json"

    def submission(self, number: int) -> Path:
        return self.submissions / f"{number:04}.json"

    def script(self, number: int) -> Path:
        return self.submissions / f"{number:04}.sh"

    def task(self, job: str, attempt: int, kind: Literal["start", "end"]) -> Path:
        return self.tasks / f"{job}.{attempt}.{kind}"

    @classmethod
    def newest(cls, run: RunPaths) -> Self | None:
        """The last session of a run that was written whole."""
        found = sorted((run.root / FOLDER).glob("*/session.json"))
        return cls(found[-1].parent) if found else None

    @classmethod
    def make(cls, run: RunPaths, session: Session) -> Self:
        """A new session's folder."""
        folder = run.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        last = max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0)
        paths = cls(folder / f"{last + 1:04}")
        for made in (paths.submissions, paths.tasks, paths.output, run.logs):
            made.mkdir(parents=True, exist_ok=True)
        publish_text(paths.document, session.to_json())
        return paths

    def read_submissions(self) -> Iterator[Submission]:
        """All of them, oldest first."""
        for path in sorted(self.submissions.glob("*.json")):
            yield Submission.read(path)

    def marks(self) -> dict[str, Marks]:
        """Job id -> what its own files say. One listing of one folder."""
        newest: dict[str, dict[str, int]] = {}
        for path in self.tasks.iterdir():
            job, _, rest = path.stem.rpartition(".")
            if path.suffix in (".start", ".end") and rest.isdigit():
                kinds = newest.setdefault(job, {})
                kinds[path.suffix] = max(kinds.get(path.suffix, 0), int(rest))
        return {job: Marks(kinds.get(".start", 0), kinds.get(".end", 0)) for job, kinds in newest.items()}

    def node(self, job: str, attempt: int) -> str:
        """Where an attempt runs; `?` where its mark cannot be read now."""
        return str(_fact(self.task(job, attempt, "start"), "node") or "?")

    def code(self, job: str, attempt: int) -> int | None:
        """The exit code of an attempt that ended; None where its mark cannot be read now."""
        code = _fact(self.task(job, attempt, "end"), "code")
        return int(code) if isinstance(code, int) else None

    def note(self, path: Path, **facts: object) -> None:
        """Write `cancelled` or `closed`."""
        publish_text(path, json.dumps({"time": time.time(), **facts}) + "\n")


def _fact(path: Path, name: str) -> object:
    """A file that is listed may not be readable yet on a slow volume: the next look has it."""
    try:
        return read_json(path).get(name)
    except ContractError:
        return None
