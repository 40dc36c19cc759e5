"""Follows a session to its end: submits, looks at what tasks write, queries the controller now and then.

What a task's own files say comes first, since looking at them costs the controller nothing. The queue is
queried for what files do not show: whether a task without an end is still to come. What follows of it (another attempt,
the end, what is hopeless then) is decided by `lary_orch.run.attempts`. Nothing here is lost when the follower dies;
another one, on any login node, reads the same files and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lary_orch.plan.verbs import VERBS
from lary_orch.run.attempts import (
    FINAL,
    OVER,
    UNKNOWN_FAULT,
    Again,
    Attempts,
    Begun,
    Counted,
    Ended,
    Happened,
    Stopping,
)
from lary_orch.runtimes.base import Notify, Observer, Outcome
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import JOB_FILE, Output, Task
from lary_schema.base import ExitCode
from lary_schema.runs import PlanFile, RunPaths

from lary_slurm.client import Client, Pace, SlurmAwayError
from lary_slurm.script import script
from lary_slurm.state import GroupEntry, Marks, Session, SessionPaths, Submission
from lary_slurm.stop import cancel
from lary_slurm.submit import batch, comment, cut, submit
from lary_slurm.tail import Tail
from lary_slurm.tracked import Tracked, in_queue

LOOK_S = 1.0
"""Between two looks at the tasks' files."""
LOOK_MOST_S = 5.0
"""Of thousands of tasks: the listing is a load on the volume."""


def join(client: Client, run: RunPaths) -> tuple[Session, SessionPaths] | None:
    """The run's newest session, where tasks of it are still in the queue."""
    paths = SessionPaths.newest(run)
    if paths is None or paths.closed.exists() or paths.cancelled.exists():
        return None
    session = Session.read(paths.document)
    return (session, paths) if any(entry.live for entry in client.queue(session.name)) else None


class Follower:
    """An execution (`lary_orch.runtimes.base`) of one session."""

    detachable = True

    def __init__(
        self,
        client: Client,
        session: Session,
        paths: SessionPaths,
        run: RunPaths,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._client = client
        self._session = session
        self._paths = paths
        self._run = run
        self._watch: Observer
        self._clock = clock
        self._awake = threading.Event()
        self._wait = wait or self._awake.wait
        self._look_s = min(LOOK_MOST_S, LOOK_S + len(session.tasks) / 250)
        self._pace = Pace(session.profile.poll_s, clock=clock)
        # Whoever made this follower has just queried the controller, or has nothing there yet.
        self._pace.queried(changed=True)
        self._again = Pace(session.profile.poll_s, clock=clock)
        """When sbatch may be tried again after it was refused."""
        self._tasks = {task.id: Tracked(task) for task in session.tasks}
        self._attempts = Attempts({task.id: task.needs for task in session.tasks}, session.attempts)
        self._outcomes: dict[str, Outcome] = {}
        self._numbers = 0
        self._said = ""
        for submission in paths.read_submissions():
            self._adopt(submission)

    # --- an execution ---------------------------------------------------------------------------

    @property
    def tasks(self) -> Sequence[Task]:
        return self._session.tasks

    @property
    def outcomes(self) -> list[Outcome]:
        """In the session's order; what has not ended is `stopped`."""
        return [
            self._outcomes.get(task.id) or Outcome(task, "stopped", message="left on the cluster")
            for task in self.tasks
        ]

    @property
    def cancelled(self) -> bool:
        return self._paths.cancelled.exists()

    def submit(self, watch: Observer) -> None:
        self._watch = watch

    def poll(self) -> bool:
        self.step()
        if self._attempts.is_over:
            self._paths.note(self._paths.closed)
            return True
        self._wait(self._look_s)
        self._awake.clear()
        return False

    def handed_over(self) -> bool:
        """Where the controller is away, it takes what is left when it is back."""
        return all(task.key is not None for task in self._open())

    def wake(self) -> None:
        self._awake.set()

    def cancel(self, notify: Notify, *, force: bool = False) -> None:
        cancel(self._client, self._session, self._paths, notify)

    def logs(self, task: str, attempt: int) -> tuple[Path, Path]:
        return self._run.events(task, attempt), self._run.stderr(task, attempt)

    def step(self) -> None:
        """Look once, and do what there is to do."""
        if self.cancelled:
            self._handle(Stopping("cancelled", now=True))
            return
        marks = self._paths.marks()
        for task in self._open():
            self._look(task, marks.get(task.id, Marks()))
        if self._pace.due and self._open():
            self._query(marks)
        if self._again.due:
            self._submit_ready()

    def _open(self) -> list[Tracked]:
        return [self._tasks[name] for name in self._attempts.open()]

    # --- what tasks write -----------------------------------------------------------------------

    def _look(self, task: Tracked, marks: Marks) -> None:
        # What ended with another one, as hopeless, is looked at no more.
        if task.submission is None or marks.started < task.first or self._is_over(task.id):
            return
        if marks.started > task.seen:
            self._launched(task, marks.started)
        if task.tail is not None:
            for event in task.tail.events():
                self._watch.event(task.task, event)
        if marks.ended == marks.started:
            self._ended(task, marks.ended)

    def _launched(self, task: Tracked, attempt: int) -> None:
        if task.seen:
            self._watch.relaunch(task.task, UNKNOWN_FAULT, "its node failed, or it was preempted")
        self._handle(Begun(task.id, attempt))
        events, _ = self.logs(task.id, attempt)
        task.seen, task.gone, task.tail = attempt, None, Tail(events)
        node = self._paths.node(task.id, attempt)
        kind = "cuda" if self._session.profile.has_gpu else "cpu"
        self._watch.launched(task.task, Slot(Device(kind, name=f"node {node}"), 1), attempt)

    def _ended(self, task: Tracked, attempt: int) -> None:
        code = self._paths.code(task.id, attempt)
        if code is None:
            return
        if code == ExitCode.DONE:
            missing = self._missing(task.task)
            if missing is None or self._settled(task):
                self._end(task, code, missing=missing)
        elif code in FINAL:
            self._end(task, code, task.why(code))
        elif task.gone is None:
            # Only the controller knows whether it starts the task again by itself.
            task.gone = self._clock()
            self._pace.hurry()

    def _missing(self, task: Task) -> str | None:
        """What a task that said that it was done has not left."""
        if not task.outputs:
            task = replace(task, outputs=self._old_outputs(task))
        return task.missing()

    def _old_outputs(self, task: Task) -> tuple[Output, ...]:
        """Of a task that an older version began, which declares nothing itself: by its document, and by the
        fingerprint that the plan of then gave its result.
        """
        results = {probe.id: probe.fingerprint for probe in PlanFile.read(self._run.plan).probes}
        outputs = VERBS[task.verb].read_outputs(task.mounts.job / JOB_FILE)
        return tuple(replace(out, fingerprint=results.get(task.id, out.fingerprint)) for out in outputs)

    def _settled(self, task: Tracked) -> bool:
        """Whether a slow volume had its time to show what must be there."""
        if task.gone is None:
            task.gone = self._clock()
        return self._clock() - task.gone >= self._session.profile.settle_s

    # --- what the queue says --------------------------------------------------------------------

    def _query(self, marks: Mapping[str, Marks]) -> None:
        try:
            entries = self._client.queue(self._session.name)
        except SlurmAwayError as error:
            self._notify(f"{error}; querying again")
            self._pace.queried(changed=False)
            return
        found = {(entry.slurm, entry.index): entry for entry in entries}
        comments = {entry.comment: entry.slurm for entry in entries}
        before = [task.entry for task in self._open()]
        for task in self._open():
            self._resolve(task, comments)
            task.entry = found.get(task.key) if task.key is not None else None
            if task.submission is not None and not (task.entry and task.entry.live):
                self._left_queue(task, marks.get(task.id, Marks()))
        self._pace.queried(changed=before != [task.entry for task in self._open()])
        if text := in_queue(task.entry for task in self._open() if task.entry is not None):
            self._notify(text)

    def _resolve(self, task: Tracked, comments: Mapping[str, int]) -> None:
        """A submission without an id is the queue's by its comment, or was never made."""
        if task.submission is None or task.submission.slurm is not None:
            return
        slurm = comments.get(comment(self._paths, task.submission.number))
        task.submission = None if slurm is None else task.submission.model_copy(update={"slurm": slurm})

    def _left_queue(self, task: Tracked, marks: Marks) -> None:
        """It is not in the queue any more: what its files do not say will not come, given a little time."""
        if self._is_over(task.id):
            return
        began = marks.started >= task.first
        if not began and any(not self._is_over(need) for need in task.task.needs):
            # Slurm took it off because what it needs failed: that was no attempt.
            task.leave()
        elif began and marks.ended == marks.started and task.gone is not None:
            code = self._paths.code(task.id, marks.ended)
            if code is not None and code != ExitCode.DONE:
                self._end(task, code, task.why(code))
        elif self._settled(task):
            self._handle(Counted(task.id, task.first))
            self._end(task, UNKNOWN_FAULT, task.why())

    # --- what follows ---------------------------------------------------------------------------

    def _is_over(self, task: str) -> bool:
        return self._attempts.state(task) in OVER

    def _end(self, task: Tracked, code: int, message: str = "", missing: str | None = None) -> None:
        self._handle(Ended(task.id, code, message, missing))

    def _handle(self, event: Happened) -> None:
        """Let the state machine decide, and show what it decided."""
        for action in self._attempts.handle(event):
            task = self._tasks[action.job]
            if isinstance(action, Again):
                self._retry(task, action)
                continue
            _, stderr = self.logs(task.id, action.attempts)
            log = stderr if action.attempts else None
            outcome = Outcome(task.task, action.state, action.code, action.message, action.attempts, log)
            self._outcomes[task.id] = outcome
            self._watch.ended(outcome)

    def _retry(self, task: Tracked, action: Again) -> None:
        if task.seen:
            self._watch.relaunch(task.task, action.code, action.message)
        else:
            self._watch.note(f"{task.task.verb} {task.task.title}: {action.message}; submitting it again")
        task.leave()

    # --- submitting -----------------------------------------------------------------------------

    def _submit_ready(self) -> None:
        """Put into the queue what is in none and could run, now or after what it needs. Raises SlurmError."""
        waiting: dict[str, list[Tracked]] = {}
        for task in self._open():
            if task.submission is None:
                waiting.setdefault(task.task.group, []).append(task)
        # In the session's order: a probe may be ready once what it needs is in the queue.
        for group in self._session.groups:
            ready = [task.id for task in waiting.get(group.name, []) if self._ready(task)]
            firsts = {name: self._attempts.attempts(name) + 1 for name in ready}
            for submission in cut(self._session, group, firsts, self._numbers + 1):
                if not self._submit(group, submission):
                    return

    def _submit(self, group: GroupEntry, submission: Submission) -> bool:
        """False where nobody responds now."""
        text = script(batch(self._session, group, submission, self._paths, self._run.logs))
        try:
            submission = submit(self._client, self._paths, submission, text, self._needs(submission.tasks))
        except SlurmAwayError as error:
            # It may have got through: the queue will show it by the comment, before it is tried again.
            self._notify(f"{error}; trying again")
            self._again.queried(changed=False)
            self._pace.hurry()
        else:
            self._again.hurry()
        self._adopt(submission)
        return submission.slurm is not None

    def _ready(self, task: Tracked) -> bool:
        return all(self._is_over(need) or self._tasks[need].key is not None for need in task.task.needs)

    def _needs(self, jobs: Sequence[str]) -> list[str]:
        """What some tasks wait for: whole arrays, or those of an array's tasks that are not submitted again."""
        waited = {need for job in jobs for need in self._tasks[job].task.needs if not self._is_over(need)}
        found: list[str] = []
        for need in sorted(waited):
            task = self._tasks[need]
            if task.submission is not None and task.key is not None:
                slurm, index = task.key
                whole = all(self._is_in(job, task.submission) for job in task.submission.tasks)
                found.append(str(slurm) if whole else f"{slurm}_{index}")
        return found

    def _is_in(self, job: str, submission: Submission) -> bool:
        newest = self._tasks[job].submission
        return newest is not None and newest.number == submission.number

    def _adopt(self, submission: Submission) -> None:
        self._numbers = max(self._numbers, submission.number)
        for index, job in enumerate(submission.tasks):
            self._tasks[job].enter(submission, index)
            self._handle(Counted(job, submission.firsts[index] - 1))

    # --- words ----------------------------------------------------------------------------------

    def _notify(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._watch.note(text)
