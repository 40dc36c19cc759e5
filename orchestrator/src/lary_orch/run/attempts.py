"""What becomes of jobs: a state machine without clock, process or file. Events go in, the next actions come out.

A job waits until what it needs is done. An attempt at it begins, and ends with an exit code; an end that another
attempt may change makes it wait again, as often as attempts are allowed. What it ends with for good decides the jobs
that need it: one that did not end well makes them hopeless. The local scheduler drives this with processes and
containers, the runtime of a cluster with files and a queue.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lary_schema.base import ExitCode, explain

FINAL = {ExitCode.DONE, ExitCode.BAD_JOB, ExitCode.TOO_MANY_FAILED, ExitCode.WEIGHTS, ExitCode.OUT_OF_MEMORY}
"""Exit codes that another attempt would not change."""
UNKNOWN_FAULT = 1
ATTEMPTS = 3

End = Literal["done", "failed", "skipped", "stopped"]
State = Literal["waiting", "running"] | End
OVER: frozenset[State] = frozenset({"done", "failed", "skipped", "stopped"})


@dataclass(frozen=True)
class Begun:
    """Event: an attempt runs."""

    job: str
    number: int | None = None
    """Of the attempt, where somebody else counts (a cluster starts tasks again by itself); None: the next one."""


@dataclass(frozen=True)
class Counted:
    """Event: so many attempts were made, as somebody else has written down."""

    job: str
    number: int


@dataclass(frozen=True)
class Ended:
    """Event: an attempt ended."""

    job: str
    code: int
    message: str = ""
    """Of the job itself, or of whoever knows better; empty: the exit code in words."""
    missing: str | None = None
    """What is not there although the exit code is 0."""
    stalled: bool = False
    """Whether it was stopped because nothing was heard of it for too long."""


@dataclass(frozen=True)
class Refused:
    """Event: a job cannot be started, now or later."""

    job: str
    code: int
    message: str


@dataclass(frozen=True)
class Stopping:
    """Event: the run is being stopped; nothing begins any more. What runs ends by itself, or `now`."""

    message: str
    now: bool = False


Happened = Begun | Counted | Ended | Refused | Stopping


@dataclass(frozen=True)
class Again:
    """Action: the job waits for another attempt."""

    job: str
    code: int
    message: str


@dataclass(frozen=True)
class Over:
    """Action: the job will not be started again."""

    job: str
    state: End
    code: int = 0
    message: str = ""
    attempts: int = 0


Action = Again | Over


@dataclass
class _Job:
    needs: tuple[str, ...]
    state: State = "waiting"
    attempts: int = 0


class Attempts:
    """All jobs of a run.

    Raises ValueError for a need that is no job, and for jobs that need each other: they would wait without end.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]], limit: int = ATTEMPTS) -> None:
        self._jobs = {job: _Job(tuple(wanted)) for job, wanted in needs.items()}
        self._limit = limit
        self._stopping = False
        self._again: list[str] = []
        unknown = {need for wanted in needs.values() for need in wanted} - set(needs)
        if unknown:
            raise ValueError(f"jobs need {sorted(unknown)}, which are not in the plan")
        self._depths: dict[str, int] = {}
        for job in needs:
            self._depth(job)

    # --- what it knows -------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return all(job.state in OVER for job in self._jobs.values())

    def state(self, job: str) -> State:
        return self._jobs[job].state

    def attempts(self, job: str) -> int:
        """How many have begun."""
        return self._jobs[job].attempts

    def unmet(self, job: str) -> tuple[str, ...]:
        """What the job still waits for."""
        return tuple(need for need in self._jobs[job].needs if self._jobs[need].state != "done")

    def open(self) -> list[str]:
        """Jobs that have not ended for good."""
        return [name for name, job in self._jobs.items() if job.state not in OVER]

    def ready(self) -> list[str]:
        """Waiting jobs whose every need is done, the next one first.

        A job at the end of a chain of needs goes first: its result is kept whatever happens to the rest. Then one
        that is tried again.
        """
        if self._stopping:
            return []
        waiting = [name for name, job in self._jobs.items() if job.state == "waiting" and not self.unmet(name)]
        return sorted(waiting, key=lambda name: (-self._depth(name), self._turn(name)))

    def _depth(self, job: str) -> int:
        """How many jobs stand one above the other below it. Raises ValueError for a circle."""
        if job not in self._depths:
            self._depths[job] = -1
            self._depths[job] = max((self._depth(need) + 1 for need in self._jobs[job].needs), default=0)
        elif self._depths[job] < 0:
            raise ValueError(f"job {job} needs itself, by way of others")
        return self._depths[job]

    def _turn(self, job: str) -> int:
        """The last that died is tried again first."""
        return -self._again.index(job) - 1 if job in self._again else 0

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Happened) -> list[Action]:
        """What follows of an event, in the order in which it should be shown."""
        if isinstance(event, Begun | Counted):
            return self._begun(event)
        if isinstance(event, Ended):
            return self._ended(event)
        if isinstance(event, Refused):
            return self._over(event.job, "failed", event.code, event.message)
        return self._stop(event)

    def _begun(self, event: Begun | Counted) -> list[Action]:
        job = self._jobs[event.job]
        job.attempts = job.attempts + 1 if event.number is None else max(job.attempts, event.number)
        job.state = "running" if isinstance(event, Begun) else job.state
        return []

    def _ended(self, event: Ended) -> list[Action]:
        code = ExitCode.STALLED if event.stalled else UNKNOWN_FAULT if event.missing else event.code
        if code == ExitCode.DONE:
            return self._over(event.job, "done")
        message = event.missing or event.message or explain(code)
        if code not in FINAL and not self._stopping and self._jobs[event.job].attempts < self._limit:
            self._jobs[event.job].state = "waiting"
            self._again = [*(job for job in self._again if job != event.job), event.job]
            return [Again(event.job, int(code), message)]
        if self._stopping:
            return self._over(event.job, "stopped", int(code), "stopped")
        return self._over(event.job, "failed", int(code), message)

    def _stop(self, event: Stopping) -> list[Action]:
        self._stopping = True
        ends = OVER if event.now else OVER | {"running"}
        left = [name for name, job in self._jobs.items() if job.state not in ends]
        return [self._end(name, "stopped", 0, event.message) for name in left]

    def _over(self, job: str, state: End, code: int = 0, message: str = "") -> list[Action]:
        return [self._end(job, state, code, message), *([] if state == "done" else self._skip_hopeless())]

    def _end(self, job: str, state: End, code: int, message: str) -> Over:
        self._jobs[job].state = state
        return Over(job, state, int(code), message, self._jobs[job].attempts)

    def _skip_hopeless(self) -> list[Action]:
        """Give up the jobs whose needs cannot be met any more, and those that need them in turn."""
        skipped: list[Action] = []
        while True:
            lost = {name: self._lost(job) for name, job in self._jobs.items() if job.state == "waiting"}
            hopeless = {name: needs for name, needs in lost.items() if needs}
            if not hopeless:
                return skipped
            skipped += [self._end(name, "skipped", 0, f"needs {some(needs)}") for name, needs in hopeless.items()]

    def _lost(self, job: _Job) -> list[str]:
        return [need for need in job.needs if self._jobs[need].state in OVER - {"done"}]


def some(jobs: Iterable[str], most: int = 4) -> str:
    """The first few: a store may have a thousand jobs."""
    names = list(jobs)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
