"""Carries out jobs one by one on this machine: keeps the slots busy, starts again what died, stops what stalls."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lary_schema import commands
from lary_schema.atomic import FULL_DISK, refused
from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Event, Failed, from_line
from lary_schema.locks import exclusive
from lary_schema.runs import RunPaths

from lary_orch.run.attempts import ATTEMPTS, UNKNOWN_FAULT, Again, Attempts, Begun, Ended, Happened, Refused, Stopping
from lary_orch.runtimes.base import Notify, Observer, Opening, Outcome, Running, Start
from lary_orch.runtimes.devices import Slot, joined
from lary_orch.runtimes.jobs import Job, Task

STALL_MARGIN_S = 60.0
"""How much longer than the job's own watchdog the orchestrator waits for an event."""
TICK_S = 0.5


@dataclass
class _Attempt:
    job: Job
    slots: list[Slot]
    number: int
    running: Running
    stderr: Path
    heard: float = field(default_factory=time.monotonic)
    """When the last event came."""
    stalled: bool = False
    error: str = ""
    """Message of the job's own `error` event."""


class Scheduler:
    """An execution (`runtimes.base`) of jobs on slots. Raises ValueError for a need that is no job, and for a job
    that takes more slots than there are: both would be waited for without end.
    """

    detachable = False

    def __init__(
        self,
        start: Start,
        slots: Sequence[Slot],
        paths: RunPaths,
        jobs: Sequence[Job],
        attempts: int = ATTEMPTS,
        stall_margin_s: float = STALL_MARGIN_S,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        wide = [job.id for job in jobs if job.slots > len(slots)]
        if wide:
            raise ValueError(f"jobs {wide} take more slots than the {len(slots)} there are")
        self._start = start
        self._free = list(slots)
        self._paths = paths
        self._jobs = {job.id: job for job in jobs}
        self._stall_margin_s, self._at_end = stall_margin_s, at_end
        self._attempts = Attempts({job.id: job.needs for job in jobs}, attempts)
        self._running: dict[str, _Attempt] = {}
        self._outcomes: dict[str, Outcome] = {}
        # What other threads want done; `poll` does it, so nothing else is locked.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._watch: Observer
        self.cancelled = False

    @property
    def tasks(self) -> Sequence[Task]:
        return list(self._jobs.values())

    @property
    def outcomes(self) -> list[Outcome]:
        return [self._outcomes.get(job.id) or Outcome(job, "stopped", message="not started") for job in self.tasks]

    def submit(self, watch: Observer) -> None:
        self._watch = watch

    def poll(self) -> bool:
        try:
            self._launch_ready()
            self._act(timeout_s=TICK_S if self._running else 0)
            self._stop_stalled()
        except BaseException:
            # Whatever broke (stdout's reader went away, say): nothing is left running.
            for attempt in self._running.values():
                attempt.running.stop(grace_s=0)
            self._at_end()
            raise
        if self._attempts.is_over:
            self._at_end()
        return self._attempts.is_over

    def handed_over(self) -> bool:
        """Never: jobs end with the orchestrator."""
        return False

    def wake(self) -> None:
        self._inbox.put(lambda: None)

    def cancel(self, notify: Notify, *, force: bool = False) -> None:
        self.cancelled = True
        notify("stopping by force" if force else "stopping; once more to force it")
        self._handle(Stopping("not started"), shown=False)
        for attempt in self._running.values():
            _stop(attempt, grace_s=0 if force else 10)

    def logs(self, task: str, attempt: int) -> tuple[Path, Path]:
        return self._paths.events(task, attempt), self._paths.stderr(task, attempt)

    # --- one attempt --------------------------------------------------------------------------

    def _launch_ready(self) -> None:
        while self._free and (ready := self._attempts.ready()):
            job = self._jobs[ready[0]]
            if job.slots > len(self._free):
                return  # Nothing overtakes it: slots come free until there are enough.
            taken, self._free = self._free[: job.slots], self._free[job.slots :]
            self._launch(job, taken)

    def _launch(self, job: Job, taken: list[Slot]) -> None:
        slot = joined(taken)
        self._handle(Begun(job.id))
        number = self._attempts.attempts(job.id)
        _, stderr = self.logs(job.id, number)
        stderr.parent.mkdir(parents=True, exist_ok=True)
        try:
            running = self._start(job, slot, stderr)
        except ContractError as error:
            self._free += taken
            self._handle(Refused(job.id, int(error.exit_code), str(error)))
            return
        attempt = self._running[job.id] = _Attempt(job, taken, number, running, stderr)
        self._watch.launched(job, slot, number)
        threading.Thread(target=self._follow, args=(attempt,), name=f"follow-{job.id}", daemon=True).start()

    def _follow(self, attempt: _Attempt) -> None:
        """In its own thread: copy the job's stdout to its log, hand its events on, wait for its end."""
        code, fault = UNKNOWN_FAULT, ""
        events = self._paths.events(attempt.job.id, attempt.number)
        try:
            with events.open("w", encoding="utf-8") as log:
                for line in attempt.running.lines():
                    log.write(line if line.endswith("\n") else line + "\n")
                    log.flush()
                    if (event := from_line(line)) is not None:
                        self._inbox.put(partial(self._on_event, attempt, event))
            code = attempt.running.wait()
        except OSError as error:
            fault = f"its output cannot be followed: {error}"
            if error.errno in FULL_DISK:
                # Another attempt would find no more room.
                code, fault = ExitCode.BAD_JOB, f"its output cannot be kept: {refused(error, events)}"
        finally:
            # Nothing is left running, and nobody waits, where a log cannot be written or a runtime breaks.
            attempt.running.stop(grace_s=0)
            self._inbox.put(partial(self._on_end, attempt, code, fault))

    def _act(self, timeout_s: float) -> None:
        """Wait for something to do, then do all there is."""
        try:
            self._inbox.get(timeout=timeout_s)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _on_event(self, attempt: _Attempt, event: Event) -> None:
        attempt.heard = time.monotonic()
        if isinstance(event, Failed):
            attempt.error = event.message
        self._watch.event(attempt.job, event)

    def _on_end(self, attempt: _Attempt, code: int, fault: str) -> None:
        job = attempt.job
        del self._running[job.id]
        self._free += attempt.slots
        missing = job.missing() if code == ExitCode.DONE else None
        self._handle(Ended(job.id, code, attempt.error or fault, missing, attempt.stalled))

    def _handle(self, event: Happened, *, shown: bool = True) -> None:
        """Let the state machine decide, and show what it decided."""
        for action in self._attempts.handle(event):
            task = self._jobs[action.job]
            if isinstance(action, Again):
                self._watch.relaunch(task, action.code, action.message)
                continue
            stderr = self._paths.stderr(task.id, action.attempts) if action.attempts else None
            outcome = Outcome(task, action.state, action.code, action.message, action.attempts, stderr)
            self._outcomes[task.id] = outcome
            if shown:
                self._watch.ended(outcome)

    def _stop_stalled(self) -> None:
        now = time.monotonic()
        for attempt in self._running.values():
            limit = attempt.job.stall_timeout_s + self._stall_margin_s
            if now - attempt.heard > limit and not attempt.stalled:
                attempt.stalled = True
                _stop(attempt)


def _stop(attempt: _Attempt, grace_s: float = 10) -> None:
    """In a thread of its own: ending a job politely takes seconds, and the others go on."""
    threading.Thread(target=attempt.running.stop, args=(grace_s,), daemon=True).start()


def one_by_one(opening: Opening, start: Start, at_end: Callable[[], None] = lambda: None) -> Scheduler:
    """The execution of a runtime that starts jobs one by one."""
    return Scheduler(start, opening.slots, opening.paths, opening.make_jobs(), opening.attempts, at_end=at_end)


@contextmanager
def one_at_a_time(paths: RunPaths) -> Iterator[None]:
    """Hold the run's lock. Raises ContractError where another orchestrator has it; a dead one has not."""
    busy = (
        f"{paths.root}: another `{commands.program()} run` works on this very run; wait for it, or stop it with Ctrl-C"
    )
    with exclusive(paths.lock, busy):
        yield
