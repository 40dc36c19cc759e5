"""Follows a session to its end: submits, looks at what tasks write, asks the controller now and then, relaunches.

What a task's own files say comes first, since looking at them costs the controller nothing. The queue is
asked for what files cannot tell: whether a task without an end is still to come. Nothing here is lost when the
follower dies; another one, on any login node, reads the same files and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from lary_orch.run.scheduler import FINAL, UNKNOWN_FAULT, Outcome, State, Watch, Work
from lary_orch.runtimes.base import Device
from lary_orch.runtimes.devices import Slot
from lary_schema.base import ExitCode
from lary_schema.runs import RunPaths

from lary_slurm.client import Client, Pace, SlurmAwayError
from lary_slurm.script import script
from lary_slurm.state import GroupEntry, Marks, Session, SessionPaths, Submission
from lary_slurm.submit import batch, comment, cut, submit
from lary_slurm.tail import Tail
from lary_slurm.tracked import Tracked, in_queue, some

LOOK_S = 1.0
"""Between two looks at the tasks' files."""
LOOK_MOST_S = 5.0
"""Of thousands of tasks: the listing is a load on the volume."""


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
        self._look_s = min(LOOK_MOST_S, LOOK_S + len(session.tasks) / 250)
        self._pace = Pace(session.profile.poll_s, clock=clock)
        # Whoever made this follower has just asked the controller, or has nothing there yet.
        self._pace.asked(changed=True)
        self._again = Pace(session.profile.poll_s, clock=clock)
        """When sbatch may be tried again after it was refused."""
        self._tasks = {entry.id: Tracked(works[entry.id], entry.group) for entry in session.tasks}
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
            self._wait(self._look_s)
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
            self._wait(self._look_s)
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
            self._submit_ready()

    def _open(self) -> list[tuple[str, Tracked]]:
        return [(job, task) for job, task in self._tasks.items() if job not in self._outcomes]

    # --- what tasks write -----------------------------------------------------------------------

    def _look(self, task: Tracked, marks: Marks) -> None:
        if task.submission is None or marks.started < task.first:
            return
        if marks.started > task.seen:
            self._launched(task, marks.started)
        if task.tail is not None:
            for event in task.tail.events():
                self._watch.event(task.work, event)
        if marks.ended == marks.started:
            self._ended(task, marks.ended)

    def _launched(self, task: Tracked, attempt: int) -> None:
        if task.seen:
            self._watch.relaunch(task.work, UNKNOWN_FAULT, "its node failed, or it was preempted")
        task.seen, task.used, task.gone = attempt, attempt, None
        task.tail = Tail(self._run.events(task.work.id, attempt))
        node = self._paths.node(task.work.id, attempt)
        kind = "cuda" if self._session.profile.has_gpu else "cpu"
        self._watch.launched(task.work, Slot(Device(kind, name=f"node {node}"), 1), attempt)

    def _ended(self, task: Tracked, attempt: int) -> None:
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
            self._finish(task, "failed", code, task.why(code))
        elif task.gone is None:
            # Only the controller knows whether it starts the task again by itself.
            task.gone = self._clock()
            self._pace.hurry()

    def _settled(self, task: Tracked) -> bool:
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
        if text := in_queue(task.entry for _, task in self._open() if task.entry is not None):
            self._say(text)

    def _resolve(self, task: Tracked, comments: Mapping[str, int]) -> None:
        """A submission without an id is the queue's by its comment, or was never made."""
        if task.submission is None or task.submission.slurm is not None:
            return
        slurm = comments.get(comment(self._paths, task.submission.number))
        task.submission = None if slurm is None else task.submission.model_copy(update={"slurm": slurm})

    def _left_queue(self, task: Tracked, marks: Marks) -> None:
        """It is not in the queue any more: what its files do not say will not come, given a little time."""
        began = marks.started >= task.first
        if not began and self._waits(task):
            # Slurm took it off because what it needs failed: that was no attempt.
            task.leave()
        elif began and marks.ended == marks.started and task.gone is not None:
            code = self._paths.code(task.work.id, marks.ended)
            if code is not None and code != ExitCode.DONE:
                self._fault(task, code, task.why(code))
        elif self._settled(task):
            task.used = max(task.used, task.first)
            self._fault(task, UNKNOWN_FAULT, task.why())

    def _waits(self, task: Tracked) -> bool:
        return any(need not in self._outcomes for need in task.work.needs)

    def _fault(self, task: Tracked, code: int, message: str) -> None:
        if task.used >= self._session.attempts:
            self._finish(task, "failed", code, message)
            return
        if task.seen:
            self._watch.relaunch(task.work, code, message)
        else:
            self._watch.note(f"{task.work.verb} {task.work.title}: {message}; submitting it again")
        task.leave()

    # --- ends -----------------------------------------------------------------------------------

    def _finish(self, task: Tracked, state: State, code: int = 0, message: str = "") -> None:
        attempts = max(task.used, 1)
        log = self._run.stderr(task.work.id, attempts)
        self._end(Outcome(task.work, state, int(code), message, attempts, log))

    def _end(self, outcome: Outcome) -> None:
        self._outcomes[outcome.work.id] = outcome
        self._watch.ended(outcome)

    def _skip_hopeless(self) -> None:
        for _, task in self._open():
            lost = [n for n in task.work.needs if n in self._outcomes and self._outcomes[n].state != "done"]
            if lost:
                self._end(Outcome(task.work, "skipped", message=f"needs {some(lost)}"))

    def _cancel(self) -> None:
        for _, task in self._open():
            self._end(Outcome(task.work, "stopped", message="cancelled"))

    # --- submitting -----------------------------------------------------------------------------

    def _submit_ready(self) -> None:
        """Put into the queue what is in none and could run, now or after what it needs. Raises SlurmError."""
        waiting: dict[str, list[Tracked]] = {}
        for _, task in self._open():
            if task.submission is None:
                waiting.setdefault(task.group, []).append(task)
        # In the session's order: a probe may be ready once what it needs is in the queue.
        for group in self._session.groups:
            firsts = {task.work.id: task.used + 1 for task in waiting.get(group.name, []) if self._ready(task)}
            for submission in cut(self._session, group, firsts, self._numbers + 1):
                if not self._submit(group, submission):
                    return

    def _submit(self, group: GroupEntry, submission: Submission) -> bool:
        """False where nobody answers now."""
        text = script(batch(self._session, group, submission, self._paths, self._run.logs))
        try:
            submission = submit(self._client, self._paths, submission, text, self._needs(submission.tasks))
        except SlurmAwayError as error:
            # It may have got through: the queue will tell by the comment, before it is tried again.
            self._say(f"{error}; trying again")
            self._again.asked(changed=False)
            self._pace.hurry()
        else:
            self._again.hurry()
        self._adopt(submission)
        return submission.slurm is not None

    def _ready(self, task: Tracked) -> bool:
        return all(need in self._outcomes or self._tasks[need].key is not None for need in task.work.needs)

    def _needs(self, jobs: Sequence[str]) -> list[str]:
        """What some tasks wait for: whole arrays, or those of an array's tasks that are not submitted again."""
        waited = {need for job in jobs for need in self._tasks[job].work.needs if need not in self._outcomes}
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

    # --- words ----------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._watch.note(text)
