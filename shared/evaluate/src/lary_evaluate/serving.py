"""Policies that serve one task after the other: what a process or a container has loaded, it keeps (decision 0039)."""

import itertools
import queue
import shutil
import threading
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from lary_orch.run.attempts import UNKNOWN_FAULT
from lary_orch.runtimes.base import Running, Start
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import JOB_FILE, Job
from lary_schema import more_jobs
from lary_schema.more_jobs import OneAfterTheOther, OneJob


class Policies:
    """Policies that act, and policies that have heard good-bye and wait: `most` at any time, both together.

    Each has a folder of its own for its socket, so that a simulator can meet none but its own.
    """

    def __init__(self, start: Start, most: int, sockets: Path) -> None:
        """`sockets` is emptied: whoever holds the run's lock has no others."""
        shutil.rmtree(sockets, ignore_errors=True)
        self._start, self._sockets = start, sockets
        self._one_after_the_other = OneAfterTheOther(most)
        self._numbers = itertools.count()

    def start(self, job: Job, slot: Slot, stderr: Path) -> tuple[OneJob, Path]:
        """The policy of a job, one that waits or a new one, and its socket's folder. Raises ContractError."""
        spawn = partial(self._spawn, job, slot, stderr)
        start = more_jobs.Start(
            _kind(job, slot), frozenset(slot.device.uuids), job.mounts.job / JOB_FILE, {}, stderr, spawn
        )
        one = self._one_after_the_other.start(start)
        assert isinstance(one.process, Serving)
        return one, one.process.folder

    def rest(self) -> None:
        """Nothing more comes: end those that wait."""
        self._one_after_the_other.rest()

    def _spawn(self, job: Job, slot: Slot, stderr: Path) -> "Serving":
        folder = self._sockets / str(next(self._numbers))
        folder.mkdir(parents=True)
        running = self._start(replace(job, mounts=job.mounts.model_copy(update={"out": folder})), slot, stderr)
        return Serving(running, folder, stderr)


def _kind(job: Job, slot: Slot) -> Hashable:
    """Jobs of equal kinds differ in their name alone."""
    assert job.document is not None
    return job.image, job.document.model_copy(update={"id": "act"}).to_json(), job.mounts.weights, slot


class Serving:
    """A started policy (`lary_schema.more_jobs.Process`). It says `idle` on stdout when it waits for another task."""

    def __init__(self, running: Running, folder: Path, stderr: Path) -> None:
        self.folder = folder
        self._running, self._stderr = running, stderr
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._code: int | None = None
        threading.Thread(target=self._read, name=f"policy-{folder.name}", daemon=True).start()

    def _read(self) -> None:
        """So that its end is known while it waits, too."""
        code = UNKNOWN_FAULT
        try:
            for line in self._running.lines():
                self._lines.put(line)
            code = self._running.wait()
        finally:
            self._code = code
            shutil.rmtree(self.folder, ignore_errors=True)
            self._ended.set()
            self._lines.put(None)

    def lines(self) -> Iterator[str]:
        yield from iter(self._lines.get, None)

    def wait(self) -> int:
        self._ended.wait()
        assert self._code is not None
        return self._code

    def stop(self, grace_s: float = 10) -> None:
        self._running.stop(grace_s)

    def settle(self) -> None:
        """Its log stays the one of its first task."""

    def hand_over(self, message: str, stderr: Path) -> bool:
        """There is nothing to say: the next simulator comes to the same socket. False where it has ended meanwhile."""
        del message
        if self._code is not None:
            return False
        with suppress(OSError):
            stderr.write_text(f"this policy was started for an earlier task: see {self._stderr}\n", encoding="utf-8")
        return True

    def dismiss(self) -> None:
        self.stop(grace_s=1)
        self._ended.wait()
