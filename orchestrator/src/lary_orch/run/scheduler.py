"""Runs the jobs of a plan: keeps the slots busy, relaunches what died, stops what stalls."""

import fcntl
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Event, Failed, from_line
from lary_schema.mounts import Mounts
from lary_schema.runs import RunPaths

from lary_orch.runtimes.base import LocalRuntime, Prepared, Running, Task
from lary_orch.runtimes.devices import Slot, joined

FINAL = {ExitCode.DONE, ExitCode.BAD_JOB, ExitCode.TOO_MANY_FAILED, ExitCode.WEIGHTS, ExitCode.OUT_OF_MEMORY}
"""Exit codes that another attempt would not change."""
UNKNOWN_FAULT = 1
ATTEMPTS = 3
STALL_MARGIN_S = 60.0
"""How much longer than the job's own watchdog the orchestrator waits for an event."""
TICK_S = 0.5

State = Literal["done", "failed", "skipped", "stopped"]


@dataclass(frozen=True)
class Work:
    """One job of a plan, ready to be launched."""

    id: str
    verb: str
    title: str
    """For people: model, dataset, split."""
    prepared: Prepared
    mounts: Mounts
    """`job` holds the document already."""
    needs: tuple[str, ...] = ()
    """Jobs that have to be done before."""
    slots: int = 1
    """How many it takes at once."""
    stall_timeout_s: float = 600
    lacks: Callable[[], str | None] = lambda: None
    """After exit 0: what the job should have written and did not (an image that breaks the contract)."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended, all attempts together."""

    work: Work
    state: State
    code: int = 0
    message: str = ""
    attempts: int = 0
    stderr: Path | None = None
    """Log of the last attempt."""


class Watch(Protocol):
    """Shows people or programs what happens. Called from the scheduler's thread alone."""

    def launched(self, work: Work, slot: Slot, attempt: int) -> None:
        """A job was started."""

    def event(self, work: Work, event: Event) -> None:
        """A job said something."""

    def relaunch(self, work: Work, code: int, message: str) -> None:
        """An attempt died; the next one follows."""

    def ended(self, outcome: Outcome) -> None:
        """A job will not be started again."""

    def note(self, text: str) -> None:
        """Something about the run as a whole."""


@dataclass
class _Attempt:
    work: Work
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
    """Runs work on slots until each job has an outcome."""

    def __init__(
        self,
        runtime: LocalRuntime,
        slots: Sequence[Slot],
        paths: RunPaths,
        watch: Watch,
        attempts: int = ATTEMPTS,
        stall_margin_s: float = STALL_MARGIN_S,
    ) -> None:
        self._runtime = runtime
        self._free = list(slots)
        self._paths = paths
        self._watch = watch
        self._attempts = attempts
        self._stall_margin_s = stall_margin_s
        self._waiting: list[Work] = []
        self._launches: dict[str, int] = {}
        self._running: dict[str, _Attempt] = {}
        self._outcomes: dict[str, Outcome] = {}
        # What other threads and signal handlers want done; the loop does it, so nothing else is locked.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.interrupted: signal.Signals | None = None
        """The signal that ended the run early."""

    def run(self, work: Sequence[Work]) -> list[Outcome]:
        """All outcomes, in the order of `work`. Jobs still waiting at an interrupt are `stopped`.

        Raises ValueError for a need that is no job of `work`, and for a job that takes more slots than there
        are: they would be waited for without end.
        """
        wide = [job.id for job in work if job.slots > len(self._free)]
        if wide:
            raise ValueError(f"jobs {wide} take more slots than the {len(self._free)} there are")
        unknown = {need for job in work for need in job.needs} - {job.id for job in work}
        if unknown:
            raise ValueError(f"jobs need {sorted(unknown)}, which are not in the plan")
        self._waiting = list(work)
        with signals(self._on_signal):
            try:
                self._loop()
            finally:
                # Whatever broke (stdout's reader went away, say): nothing is left running.
                for attempt in self._running.values():
                    attempt.running.stop(grace_s=0)
        for job in self._waiting:
            self._outcomes[job.id] = Outcome(job, "stopped", message="not started")
        return [self._outcomes[job.id] for job in work]

    def _loop(self) -> None:
        while self._running or (self._waiting and self.interrupted is None):
            self._skip_hopeless()
            self._launch_ready()
            self._act(timeout_s=TICK_S if self._running else 0)
            self._stop_stalled()

    # --- choosing -----------------------------------------------------------------------------

    def _skip_hopeless(self) -> None:
        """Give up jobs whose needs cannot be met any more."""
        for job in list(self._waiting):
            lost = [n for n in job.needs if n in self._outcomes and self._outcomes[n].state != "done"]
            if lost:
                self._waiting.remove(job)
                self._finish(Outcome(job, "skipped", message=f"needs {', '.join(lost)}"))

    def _launch_ready(self) -> None:
        while self._free and self.interrupted is None and (ready := self._ready()):
            # A probe that can start goes first: its result is kept whatever happens to the rest.
            job = min(ready, key=lambda w: w.verb == "extract")
            if job.slots > len(self._free):
                return  # Nothing overtakes it: slots come free until there are enough.
            self._waiting.remove(job)
            taken, self._free = self._free[: job.slots], self._free[job.slots :]
            self._launch(job, taken)

    def _ready(self) -> list[Work]:
        return [w for w in self._waiting if all(self._is_done(n) for n in w.needs)]

    def _is_done(self, job_id: str) -> bool:
        return job_id in self._outcomes and self._outcomes[job_id].state == "done"

    # --- one attempt --------------------------------------------------------------------------

    def _launch(self, job: Work, taken: list[Slot]) -> None:
        slot = joined(taken)
        number = self._launches[job.id] = self._launches.get(job.id, 0) + 1
        stderr = self._paths.stderr(job.id, number)
        stderr.parent.mkdir(parents=True, exist_ok=True)
        task = Task(
            job.id, self._paths.root.name, job.prepared, job.verb, job.mounts, device=slot.device, cpus=slot.cpus
        )
        try:
            running = self._runtime.start(task, stderr)
        except ContractError as error:
            self._free += taken
            self._finish(Outcome(job, "failed", int(error.exit_code), str(error), number, stderr))
            return
        attempt = self._running[job.id] = _Attempt(job, taken, number, running, stderr)
        self._watch.launched(job, slot, number)
        threading.Thread(target=self._follow, args=(attempt,), name=f"follow-{job.id}", daemon=True).start()

    def _follow(self, attempt: _Attempt) -> None:
        """In its own thread: copy the job's stdout to its log, hand its events on, wait for its end."""
        code, fault = UNKNOWN_FAULT, ""
        try:
            with self._paths.events(attempt.work.id, attempt.number).open("w", encoding="utf-8") as log:
                for line in attempt.running.lines():
                    log.write(line if line.endswith("\n") else line + "\n")
                    log.flush()
                    if (event := from_line(line)) is not None:
                        self._inbox.put(partial(self._on_event, attempt, event))
            code = attempt.running.wait()
        except OSError as error:
            fault = f"its output cannot be followed: {error}"
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
        self._watch.event(attempt.work, event)

    def _on_end(self, attempt: _Attempt, code: int, fault: str) -> None:
        job = attempt.work
        del self._running[job.id]
        self._free += attempt.slots
        missing = job.lacks() if code == ExitCode.DONE else None
        if attempt.stalled or missing:
            code = ExitCode.STALLED if attempt.stalled else UNKNOWN_FAULT
        message = missing or attempt.error or fault or explain(code)
        if code not in FINAL and self.interrupted is None and attempt.number < self._attempts:
            self._watch.relaunch(job, code, message)
            self._waiting.insert(0, job)
            return
        ending = partial(Outcome, job, attempts=attempt.number, stderr=attempt.stderr)
        if code == ExitCode.DONE:
            self._finish(ending(state="done"))
        elif self.interrupted is not None:
            self._finish(ending(state="stopped", code=code, message="stopped"))
        else:
            self._finish(ending(state="failed", code=int(code), message=message))

    def _finish(self, outcome: Outcome) -> None:
        self._outcomes[outcome.work.id] = outcome
        self._watch.ended(outcome)

    # --- stopping -----------------------------------------------------------------------------

    def _stop_stalled(self) -> None:
        now = time.monotonic()
        for attempt in self._running.values():
            limit = attempt.work.stall_timeout_s + self._stall_margin_s
            if now - attempt.heard > limit and not attempt.stalled:
                attempt.stalled = True
                self._stop(attempt)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._inbox.put(partial(self._interrupt, signal.Signals(number)))

    def _interrupt(self, number: signal.Signals) -> None:
        forced = self.interrupted is not None
        self.interrupted = self.interrupted or number
        self._watch.note("stopping by force" if forced else "stopping; once more to force it")
        for attempt in self._running.values():
            self._stop(attempt, grace_s=0 if forced else 10)

    def _stop(self, attempt: _Attempt, grace_s: float = 10) -> None:
        """In a thread of its own: ending a job politely takes seconds, and the others go on."""
        threading.Thread(target=attempt.running.stop, args=(grace_s,), daemon=True).start()


def explain(code: int) -> str:
    """An exit code in words."""
    if code == ExitCode.STALLED:
        return "stalled: no progress for too long"
    if code == 128 + signal.SIGKILL:
        return "killed (SIGKILL); often by the kernel for want of memory"
    if code > 128 and code - 128 in set(signal.Signals):
        return f"ended by {signal.Signals(code - 128).name}"
    return f"exit {code}"


@contextmanager
def one_at_a_time(paths: RunPaths) -> Iterator[None]:
    """Hold the run's lock. Raises ContractError where another orchestrator has it; a dead one has not."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with (paths.root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ContractError(
                f"{paths.root}: another `lary-orch run` works on this very run; wait for it, or stop it with Ctrl-C"
            ) from None
        yield


@contextmanager
def signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to a handler for a while."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
