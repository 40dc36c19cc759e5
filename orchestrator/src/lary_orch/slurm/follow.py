"""Follows a session to its end: submits, looks at what tasks write, asks the controller now and then, relaunches.

What a task's own files say comes first, since looking at them costs the controller nothing. The queue is
asked for what files cannot tell: whether a task without an end is still to come. Nothing here is lost when the
follower dies; another one, on any login node, reads the same files and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lary_schema.base import ExitCode
from lary_schema.events import Failed

from lary_orch.devices import Slot
from lary_orch.runtimes.base import Device
from lary_orch.scheduler import FINAL, UNKNOWN_FAULT, Outcome, Watch, Work, explain
from lary_orch.slurm.client import RUNNING, Client, Pace, QueueEntry, SlurmAwayError
from lary_orch.slurm.script import script
from lary_orch.slurm.state import Marks, Session, SessionPaths, Submission
from lary_orch.slurm.submit import batch, comment, cut, submit
from lary_orch.slurm.tail import Tail
from lary_orch.workspace import RunPaths

LOOK_S = 1.0
"""Between two looks at the tasks' files."""
REASONS = {
    "OUT_OF_MEMORY": "out of memory: the task used more than the profile's `memory`",
    "TIMEOUT": "out of time: the task took longer than the profile's `time`",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled in the queue",
}
"""Slurm's word for an end that the task itself cannot tell -> ours."""
NO_CODE = "it left no exit code: killed together with its script, or it could not be started"


@dataclass
class _Task:
    work: Work
    group: str
    submission: Submission | None = None
    index: int = 0
    entry: QueueEntry | None = None
    """What the queue said last."""
    gone: float | None = None
    """Since when there is nothing to be seen that should be: an end, or what the task wrote."""
    seen: int = 0
    """The newest attempt that people were told of."""
    tail: Tail | None = None
    used: int = 0
    """Attempts that are used up."""

    @property
    def key(self) -> tuple[int, int] | None:
        return None if self.submission is None or self.submission.slurm is None else (self.submission.slurm, self.index)


class Follower:
    """Looks after one session."""

    def __init__(
        self,
        client: Client,
        session: Session,
        paths: SessionPaths,
        run: RunPaths,
        works: Mapping[str, Work],
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._client = client
        self._session = session
        self._paths = paths
        self._run = run
        self._watch = watch
        self._clock = clock
        self._leave = threading.Event()
        self._wait = wait or self._leave.wait
        self._pace = Pace(session.profile.poll_s, clock=clock)
        self._again = Pace(session.profile.poll_s, clock=clock)
        """When sbatch may be tried again after it was refused."""
        self._tasks = {entry.id: _Task(works[entry.id], entry.group) for entry in session.tasks}
        self._outcomes: dict[str, Outcome] = {}
        self._numbers = 0
        self._said = ""
        for submission in paths.read_submissions():
            self._adopt(submission)

    # --- the loop -------------------------------------------------------------------------------

    def leave(self) -> None:
        """End `follow` soon. May be called from a signal handler."""
        self._leave.set()

    def follow(self) -> bool:
        """Until every task has an outcome (True), or somebody wants to leave (False)."""
        while not self._leave.is_set():
            self.step()
            if len(self._outcomes) == len(self._tasks):
                self._paths.note(self._paths.closed)
                return True
            self._wait(LOOK_S)
        self._leave.clear()
        return False

    def detach(self) -> bool:
        """Only submit what is in no queue yet; True where nothing was left to do.

        Where the controller is away, until it is back or somebody wants to leave.
        """
        while not self._leave.is_set():
            self.step()
            if all(task.key is not None for _, task in self._open()):
                return not self._open()
            self._wait(LOOK_S)
        return False

    @property
    def outcomes(self) -> list[Outcome]:
        """In the session's order; what has not ended is `stopped`."""
        return [
            self._outcomes.get(job) or Outcome(task.work, "stopped", message="left on the cluster")
            for job, task in self._tasks.items()
        ]

    def step(self) -> None:
        """Look once, and do what there is to do."""
        if self._paths.cancelled.exists():
            self._cancel()
            return
        marks = self._paths.marks()
        for job, task in self._open():
            self._look(task, marks.get(job, Marks()))
        if self._pace.due and self._open():
            self._ask(marks)
        self._skip_hopeless()
        if self._again.due:
            self.submit_ready()

    def _open(self) -> list[tuple[str, _Task]]:
        return [(job, task) for job, task in self._tasks.items() if job not in self._outcomes]

    # --- what tasks write -----------------------------------------------------------------------

    def _look(self, task: _Task, marks: Marks) -> None:
        if task.submission is None or marks.started < task.submission.firsts[task.index]:
            return
        if marks.started > task.seen:
            self._launched(task, marks.started)
        if task.tail is not None:
            for event in task.tail.events():
                self._watch.event(task.work, event)
        if marks.ended == marks.started:
            self._ended(task, marks.ended)

    def _launched(self, task: _Task, attempt: int) -> None:
        if task.seen:
            self._watch.relaunch(task.work, UNKNOWN_FAULT, "its node failed, or it was preempted")
        task.seen, task.used, task.gone = attempt, attempt, None
        task.tail = Tail(self._run.events(task.work.id, attempt))
        node = self._paths.node(task.work.id, attempt)
        kind = "cuda" if self._session.profile.has_gpu else "cpu"
        self._watch.launched(task.work, Slot(Device(kind, name=f"node {node}"), 1), attempt)

    def _ended(self, task: _Task, attempt: int) -> None:
        code = self._paths.code(task.work.id, attempt)
        if code is None:
            return
        if code == ExitCode.DONE:
            missing = task.work.lacks()
            if missing is None:
                self._finish(task, "done")
            elif self._settled(task):
                self._fault(task, UNKNOWN_FAULT, missing)
        elif code in FINAL:
            self._finish(task, "failed", code, self._message(task, code))
        elif task.gone is None:
            # Only the controller knows whether it starts the task again by itself.
            task.gone = self._clock()
            self._pace.hurry()

    def _message(self, task: _Task, code: int) -> str:
        last = task.tail.last if task.tail is not None else None
        return last.message if isinstance(last, Failed) else explain(code)

    def _settled(self, task: _Task) -> bool:
        """Whether a slow volume had its time to show what must be there."""
        if task.gone is None:
            task.gone = self._clock()
        return self._clock() - task.gone >= self._session.profile.settle_s

    # --- what the queue says --------------------------------------------------------------------

    def _ask(self, marks: Mapping[str, Marks]) -> None:
        try:
            entries = self._client.queue(self._session.name)
        except SlurmAwayError as error:
            self._say(f"{error}; asking again")
            self._pace.asked(changed=False)
            return
        found = {(entry.slurm, entry.index): entry for entry in entries}
        comments = {entry.comment: entry.slurm for entry in entries}
        before = [task.entry for _, task in self._open()]
        for job, task in self._open():
            self._resolve(task, comments)
            task.entry = found.get(task.key) if task.key is not None else None
            if task.submission is not None and not (task.entry and task.entry.live):
                self._left_queue(task, marks.get(job, Marks()))
        self._pace.asked(changed=before != [task.entry for _, task in self._open()])
        self._say_waiting()

    def _resolve(self, task: _Task, comments: Mapping[str, int]) -> None:
        """A submission without an id is the queue's by its comment, or was never made."""
        if task.submission is None or task.submission.slurm is not None:
            return
        slurm = comments.get(comment(self._paths, task.submission.number))
        task.submission = None if slurm is None else task.submission.model_copy(update={"slurm": slurm})

    def _left_queue(self, task: _Task, marks: Marks) -> None:
        """It is not in the queue any more: what its files do not say will not come, given a little time."""
        assert task.submission is not None
        began = marks.started >= task.submission.firsts[task.index]
        if not began and self._waits(task):
            # Slurm took it off because what it needs failed: that was no attempt.
            task.submission = task.gone = None
        elif began and marks.ended == marks.started and task.gone is not None:
            code = self._paths.code(task.work.id, marks.ended)
            if code is not None and code != ExitCode.DONE:
                self._fault(task, code, self._reason(task) or self._message(task, code))
        elif self._settled(task):
            task.used = max(task.used, task.submission.firsts[task.index])
            self._fault(task, UNKNOWN_FAULT, self._reason(task) or NO_CODE)

    def _waits(self, task: _Task) -> bool:
        return any(need not in self._outcomes for need in task.work.needs)

    def _reason(self, task: _Task) -> str:
        state = "" if task.entry is None else task.entry.state
        return REASONS.get(state, "")

    def _fault(self, task: _Task, code: int, message: str) -> None:
        if task.used < self._session.attempts:
            self._watch.relaunch(task.work, code, message)
            task.submission = task.entry = task.gone = task.tail = None
            task.seen = 0
        else:
            self._finish(task, "failed", code, message)

    # --- ends -----------------------------------------------------------------------------------

    def _finish(self, task: _Task, state: str, code: int = 0, message: str = "") -> None:
        attempts = max(task.used, 1)
        outcome = Outcome(
            task.work,
            "done" if state == "done" else "failed",
            int(code),
            message,
            attempts,
            self._run.stderr(task.work.id, attempts),
        )
        self._outcomes[task.work.id] = outcome
        self._watch.ended(outcome)

    def _skip_hopeless(self) -> None:
        for job, task in self._open():
            lost = [n for n in task.work.needs if n in self._outcomes and self._outcomes[n].state != "done"]
            if lost:
                self._outcomes[job] = Outcome(task.work, "skipped", message=f"needs {', '.join(lost)}")
                self._watch.ended(self._outcomes[job])

    def _cancel(self) -> None:
        for job, task in self._open():
            self._outcomes[job] = Outcome(task.work, "stopped", message="cancelled")
            self._watch.ended(self._outcomes[job])

    # --- submitting -----------------------------------------------------------------------------

    def submit_ready(self) -> None:
        """Put into the queue what is in none and could run, now or after what it needs. Raises SlurmError."""
        for group in self._session.groups:
            ready = {
                job: task.used + 1
                for job, task in self._open()
                if task.group == group.name and task.submission is None and self._ready(task)
            }
            for submission in cut(self._session, group, ready, self._numbers + 1):
                needs = self._needs(submission.tasks)
                text = script(batch(self._session, group, submission, self._paths, self._run.logs))
                self._numbers = submission.number
                try:
                    self._adopt(submit(self._client, self._paths, submission, text, needs))
                except SlurmAwayError as error:
                    # It may have got through: the queue will tell by the comment, before it is tried again.
                    self._adopt(submission)
                    self._say(f"{error}; trying again")
                    self._again.asked(changed=False)
                    self._pace.hurry()
                    return
        self._again.hurry()

    def _ready(self, task: _Task) -> bool:
        return all(
            need in self._outcomes or (self._tasks[need].submission is not None and self._tasks[need].key is not None)
            for need in task.work.needs
        )

    def _needs(self, jobs: Sequence[str]) -> list[int]:
        """The array jobs that some tasks wait for."""
        waited = {need for job in jobs for need in self._tasks[job].work.needs if need not in self._outcomes}
        return [key[0] for need in waited if (key := self._tasks[need].key) is not None]

    def _adopt(self, submission: Submission) -> None:
        self._numbers = max(self._numbers, submission.number)
        for index, job in enumerate(submission.tasks):
            task = self._tasks[job]
            task.submission, task.index, task.entry, task.gone = submission, index, None, None
            task.used = max(task.used, submission.firsts[index] - 1)

    # --- words ----------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._watch.note(text)

    def _say_waiting(self) -> None:
        """Once per change: how many tasks wait in the queue, and why."""
        entries = [task.entry for _, task in self._open() if task.entry is not None]
        waiting = [entry for entry in entries if entry.state == "PENDING" and entry.reason != "Dependency"]
        if waiting:
            running = sum(entry.state in RUNNING for entry in entries)
            reasons = ", ".join(sorted({entry.reason for entry in waiting}))
            self._say(f"in the queue: {len(waiting)} waiting ({reasons}), {running} running")
