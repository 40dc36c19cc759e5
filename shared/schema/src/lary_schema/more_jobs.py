"""Several jobs in one process, one after the other: what is imported and loaded once serves them all (decision 0035).

Whoever starts a command and sets `LARY_MORE_JOBS` may give it another job. A command that knows of it says `idle` when
a job ended well, and reads a line from stdin: the next job's file and variables. At stdin's end it ends. One that knows
nothing of it, or whose job did not end well, ends after its job, as ever.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from lary_schema.events import Emit, Idle, from_line

VARIABLE = "LARY_MORE_JOBS"


def may_follow() -> bool:
    """Whether whoever started this process may give it another job."""
    return os.environ.get(VARIABLE) == "1"


def next_job(job: str, emit: Emit) -> Path | None:
    """In a command whose job `job` ended well: the file of the next one, its variables set; None where there is none.

    Blocks until then.
    """
    if not may_follow():
        return None
    emit(Idle(job=job))
    line = sys.stdin.readline()
    if not line:
        return None
    message = json.loads(line)
    os.environ.update(message["env"])
    return Path(message["job"])


class Process(Protocol):
    """A started command."""

    def lines(self) -> Iterator[str]:
        """Stdout; may be called again after it was left."""

    def wait(self) -> int:
        """The exit code, after the end."""

    def stop(self, grace_s: float = 10) -> None:
        """End it; safe to call twice."""

    def settle(self) -> None:
        """Wait until all of its stderr so far is in the file."""

    def hand_over(self, message: str, stderr: Path) -> bool:
        """Give it a line while it waits; from now on its stderr goes to the file. False where that cannot be."""

    def dismiss(self) -> None:
        """End it while it waits."""


class Start(NamedTuple):
    """How a job is started."""

    key: Hashable
    """Jobs of equal keys can follow each other in one process."""
    device: frozenset[str]
    """Of accelerators: a waiting process is ended before another one starts there."""
    job: Path
    env: Mapping[str, str]
    """What differs from the job before."""
    stderr: Path
    spawn: Callable[[], Process]
    is_light: bool = False
    """Waiting, it holds little memory, so it may wait beside as many busy ones as there may be."""


@dataclass
class _Waiting:
    process: Process
    start: Start


class OneAfterTheOther:
    """Processes that do jobs or wait for one: `most` at any time, both together. Any thread may call it.

    Light ones do not count while they wait; of them too at most `most` do.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy = 0
        self._waiting: list[_Waiting] = []
        self._resting = False
        self._lock = threading.Lock()

    def start(self, start: Start) -> "OneJob":
        """In a process that waits for a job of its kind, or in a new one. Raises what `spawn` raises."""
        with self._lock:
            found = next((one for one in self._waiting if one.start.key == start.key), None)
            if found is not None:
                self._waiting.remove(found)
            self._busy += 1
            ended = self._make_room(start)
        for one in ended:
            one.process.dismiss()
        message = json.dumps({"job": str(start.job), "env": dict(start.env)}) + "\n"
        if found is not None and found.process.hand_over(message, start.stderr):
            return OneJob(self, found.process, start)
        if found is not None:
            found.process.dismiss()
        try:
            return OneJob(self, start.spawn(), start)
        except BaseException:
            self._done(None)
            raise

    def _make_room(self, start: Start) -> list[_Waiting]:
        """Those that wait no longer when this starts: on the same device, and the longest waiting of too many."""
        near = [one for one in self._waiting if one.start.device & start.device]
        heavy = [one for one in self._waiting if one not in near and not one.start.is_light]
        ended = near + heavy[: max(0, len(heavy) - (self._most - self._busy))]
        self._waiting = [one for one in self._waiting if one not in ended]
        return ended

    def rest(self) -> None:
        """Nothing more comes: end what waits, now and when it would begin to wait."""
        with self._lock:
            self._resting, waiting, self._waiting = True, self._waiting, []
        for one in waiting:
            one.process.dismiss()

    def _done(self, waiting: _Waiting | None) -> None:
        """Count a job as ended, and keep its process, if there is one, for the next."""
        with self._lock:
            self._busy -= 1
            if waiting is None:
                return
            self._waiting.append(waiting)
            light = [one for one in self._waiting if one.start.is_light]
            # The one that waits longest makes room. Once nothing more comes, none waits.
            ended = list(self._waiting) if self._resting else light[: -self._most]
            self._waiting = [one for one in self._waiting if one not in ended]
        for one in ended:
            one.process.dismiss()


class OneJob:
    """One job of a process that may do more of them: its end is the process's, or that it waits."""

    def __init__(self, owner: OneAfterTheOther, process: Process, start: Start) -> None:
        self._owner, self._process, self._start = owner, process, start
        self._lock = threading.Lock()
        self._idle = self._over = False

    @property
    def process(self) -> Process:
        """What does it."""
        return self._process

    def lines(self) -> Iterator[str]:
        """Stdout up to the job's end."""
        for line in self._process.lines():
            if isinstance(from_line(line), Idle):
                self._idle = True
                return
            yield line

    def wait(self) -> int:
        """The job's exit code; its process is free for another one from then on."""
        if not self._idle:
            code = self._process.wait()
            self._release(None)
            return code
        self._process.settle()
        self._release(_Waiting(self._process, self._start))
        return 0

    def stop(self, grace_s: float = 10) -> None:
        """End it where it is not over."""
        with self._lock:
            over = self._over
        if not over:
            self._process.stop(grace_s)
            self._release(None)

    def _release(self, waiting: _Waiting | None) -> None:
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._owner._done(waiting)
