"""A cluster of the tests' own making: a queue that does what a test says, and a clock that only waiting moves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lary_orch.runtimes.base import Outcome
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Output, Task
from lary_schema.events import Event
from lary_schema.mounts import Mounts
from lary_schema.runs import RunPaths
from lary_slurm.client import QueueEntry, SlurmAwayError
from lary_slurm.follow import Follower
from lary_slurm.profile import Profile
from lary_slurm.state import GroupEntry, Session, SessionPaths


@dataclass
class Queue:
    """Slurm's replies. `states` holds what a task is in, by job id; what is not there is forgotten."""

    clock: "Clock"
    arrays: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Slurm id -> its jobs."""
    options: dict[int, tuple[str, ...]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    queried: list[float] = field(default_factory=list)
    away: str = ""
    """What every command says instead of a reply."""
    lost_replies: int = 0
    """So many submissions get through, and sbatch says that they timed out."""
    cancelled: list[str] = field(default_factory=list)

    def submit(self, script: Path, options: Sequence[str]) -> int:
        if self.away:
            raise SlurmAwayError(self.away)
        slurm = 100 + len(self.arrays)
        jobs = json.loads(script.with_suffix(".json").read_text())["tasks"]
        self.arrays[slurm], self.options[slurm] = tuple(jobs), tuple(options)
        self.states |= dict.fromkeys(jobs, "PENDING")
        if self.lost_replies:
            self.lost_replies -= 1
            raise SlurmAwayError("sbatch: Socket timed out")
        return slurm

    def queue(self, name: str) -> list[QueueEntry]:
        self.queried.append(self.clock.now)
        if self.away:
            raise SlurmAwayError(self.away)
        return [
            QueueEntry(slurm, index, self.states[job], "Resources", "", self._comment(slurm))
            for slurm, jobs in self.arrays.items()
            for index, job in enumerate(jobs)
            if job in self.states and slurm == self._newest(job)
        ]

    def _newest(self, job: str) -> int:
        return max(slurm for slurm, jobs in self.arrays.items() if job in jobs)

    def _comment(self, slurm: int) -> str:
        return self.options[slurm][-1].removeprefix("--comment=")

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)
        if self.away:
            raise SlurmAwayError(self.away)
        self.states.clear()

    def max_array(self) -> int:
        return 1001


@dataclass
class Clock:
    now: float = 0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Seen:
    """A watch that keeps what is reported to it."""

    reported: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def launched(self, task: Task, slot: Slot, attempt: int) -> None:
        self.reported.append(f"{task.id} {attempt}")

    def event(self, task: Task, event: Event) -> None:
        self.events.append(event)

    def relaunch(self, task: Task, code: int, message: str) -> None:
        self.reported.append(f"{task.id} again: {message}")

    def ended(self, outcome: Outcome) -> None:
        self.reported.append(f"{outcome.task.id} {outcome.state}")

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class FakeTask(Task):
    """A task whose outputs are missing as the rig says."""

    rig: Any = None

    def missing(self) -> str | None:
        return self.rig.absent.get(self.id)  # type: ignore[no-any-return]


class Stepped(Follower):
    """A follower that a test drives."""

    def follow(self) -> bool:
        while not self.poll():
            pass
        return True

    def detach(self) -> bool:
        """True where nothing was left to do."""
        while not self.poll():
            if self.handed_over():
                return False
        return True


@dataclass
class Rig:
    """A session of two extractions and a probe, and a follower that is stepped by hand."""

    root: Path
    attempts: int = 3
    profile: Profile = field(default_factory=lambda: Profile(settle_s=30))
    absent: dict[str, str] = field(default_factory=dict)
    """What a done job has not left (yet)."""

    def __post_init__(self) -> None:
        self.clock, self.seen = Clock(), Seen()
        self.queue = Queue(self.clock)
        self.run = RunPaths(self.root / "runs" / "r", self.root / "results" / "r")
        self.jobs = {"extract.p0": (), "extract.p1": (), "probe": ("extract.p0", "extract.p1")}
        self.session = Session(
            run="r",
            name="lary-r-1",
            attempts=self.attempts,
            max_array=8,
            profile=self.profile,
            groups=tuple(GroupEntry(name=name, command=("true",), options=()) for name in ("extract", "probe")),
            tasks=tuple(
                FakeTask(
                    id=job,
                    verb="extract" if ".p" in job else "classify",
                    title=job,
                    mounts=self.mounts,
                    group=job.partition(".")[0],
                    needs=needs,
                    outputs=(Output("out", "nothing", job),),
                    rig=self,
                )
                for job, needs in self.jobs.items()
            ),
        )
        self.paths = SessionPaths.make(self.run, self.session)
        self.follower = self.follow()

    @property
    def mounts(self) -> Mounts:
        return Mounts(**dict.fromkeys(Mounts.model_fields, self.root))

    def follow(self) -> "Stepped":
        """A new one, that knows nothing but the files."""
        follower = Stepped(self.queue, self.session, self.paths, self.run, clock=self.clock, wait=self.clock.wait)
        follower.submit(self.seen)
        return follower

    def begin(self, job: str, attempt: int = 1) -> None:
        self.paths.task(job, attempt, "start").write_text('{"node": "n1"}')
        self.queue.states[job] = "RUNNING"

    def end(self, job: str, code: int, attempt: int = 1, state: str | None = None) -> None:
        self.paths.task(job, attempt, "end").write_text(json.dumps({"code": code}))
        self.queue.states[job] = state or ("FAILED" if code else "COMPLETED")

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.follower.step()
            self.clock.wait(1)

    def ends(self) -> dict[str, tuple[str, int, int]]:
        return {end.task.id: (end.state, end.code, end.attempts) for end in self.follower.outcomes}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def make_rig(tmp_path: Path) -> Any:
    """`make_rig(attempts=1)`."""
    return lambda **fields: Rig(tmp_path, **fields)
