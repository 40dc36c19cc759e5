"""One task as a follower knows it."""

from collections.abc import Iterable
from dataclasses import dataclass

from lary_orch.runtimes.jobs import Task
from lary_schema.base import explain
from lary_schema.events import Failed

from lary_slurm.client import RUNNING, QueueEntry
from lary_slurm.state import Submission
from lary_slurm.tail import Tail

REASONS = {
    "OUT_OF_MEMORY": "out of memory: the task used more than the profile's `memory`",
    "TIMEOUT": "out of time: the task took longer than the profile's `time`",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled in the queue",
}
"""Slurm's word for an end that the task itself cannot report -> ours."""
NO_CODE = "it left no exit code: killed together with its script, or it could not be started"


@dataclass
class Tracked:
    """What a task is in, and what was seen of it."""

    task: Task
    submission: Submission | None = None
    """The newest; None where the task has to be submitted."""
    index: int = 0
    """Its number in that array."""
    entry: QueueEntry | None = None
    """What the queue said last."""
    gone: float | None = None
    """Since when there is nothing to be seen that should be: an end, or what the task wrote."""
    seen: int = 0
    """The newest attempt of the submission that people were informed of."""
    tail: Tail | None = None

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def key(self) -> tuple[int, int] | None:
        """How the queue calls it; None where it is in none, or its id is not known yet."""
        return None if self.submission is None or self.submission.slurm is None else (self.submission.slurm, self.index)

    @property
    def first(self) -> int:
        """The number of the first attempt of its submission."""
        return self.submission.firsts[self.index] if self.submission is not None else 0

    def enter(self, submission: Submission, index: int) -> None:
        """It was submitted."""
        self.submission, self.index, self.entry, self.gone = submission, index, None, None

    def leave(self) -> None:
        """It has to be submitted again."""
        self.submission = self.entry = self.gone = self.tail = None
        self.seen = 0

    def why(self, code: int | None = None) -> str:
        """Why an attempt failed: by the queue where it knows better, by the task's last word, by its code."""
        if self.entry is not None and self.entry.state in REASONS:
            return REASONS[self.entry.state]
        last = self.tail.last if self.tail is not None else None
        if code is None:
            return NO_CODE
        return last.message if isinstance(last, Failed) else explain(code)


def in_queue(entries: Iterable[QueueEntry]) -> str:
    """How many tasks wait, and why; empty where none does, or only for others of the run."""
    found = list(entries)
    waiting = [entry for entry in found if entry.state == "PENDING" and entry.reason != "Dependency"]
    reasons = ", ".join(sorted({entry.reason for entry in waiting}))
    running = sum(entry.state in RUNNING for entry in found)
    return f"in the queue: {len(waiting)} waiting ({reasons}), {running} running" if waiting else ""
