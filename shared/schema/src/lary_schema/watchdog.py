"""The stall watchdog: a command that does nothing for too long ends itself instead of holding a GPU.

What is long and not over yet is told from what hangs: a process that computes on the CPU uses processor time. And
whoever started the command hears of work that has no events of its own for a while, so that it is not stopped either.
"""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType
from typing import NoReturn, Self

from lary_schema.base import ExitCode
from lary_schema.events import Alive, Emit, Failed, Finished, _Event

ALIVE_EVERY_S = 30.0
"""Without another event, until `alive` is emitted."""
COMPUTING = 0.02
"""Share of a core from which on a process computes; one that waits, or looks for something now and then, uses less."""
LONGEST = 10
"""Limits that may pass while something computes and does not end."""
_LATER = 1.1
"""Who has a limit of its own notices first, and says what was late."""


class Signs:
    """What counts as a sign of life. Knows neither clock nor threads: each call is told the time, in seconds, and the
    processor time that the process has used so far."""

    def __init__(self, timeout_s: float, *, computes: bool) -> None:
        """`computes`: whether processor time is a sign of life. It is none where a GPU is waited for: that spins."""
        self._timeout_s, self._computes = timeout_s, computes
        self.beat("starting", 0, 0)

    def beat(self, doing: str, now: float, processor_s: float, within_s: float = 0) -> None:
        """There was progress; `doing` comes next, which by itself takes `within_s` at most, if that is longer."""
        self.doing, self._limit = doing, max(self._timeout_s, _LATER * within_s)
        self.began = self._last = now
        self._processor_s = processor_s

    @property
    def due(self) -> float:
        """When to look."""
        return self._last + self._limit

    def look(self, now: float, processor_s: float) -> str | None:
        """Why this has to end now; None where it may go on."""
        if now < self.due:
            return None
        used, silent = processor_s - self._processor_s, now - self._last
        if used < COMPUTING * silent:
            return f"no progress for {self._limit:g} s while {self.doing}"
        if self._computes and now - self.began < LONGEST * self._limit:
            self._last, self._processor_s = now, processor_s
            return None
        return (
            f"no progress for {now - self.began:.0f} s while {self.doing}; it used {used:.0f} s of processor time in "
            f"the last {silent:.0f} s: if it is slow and does not hang, give a larger --stall-timeout"
        )


class Watchdog:
    """Ends the process with exit code 124 when there is no sign of life for `timeout_s` seconds.

    A sign of life is a call of `beat` and, where `computes` says so, processor time (`Signs`). Used as a context
    manager around the work, whose events go through `emit`. Before the end it emits a `Failed` event that says
    what was going on, and writes all threads' tracebacks to stderr. It exits at once, without
    cleaning up: what hangs would hang that too, and everything on disk is whole or absent.
    """

    def __init__(self, emit: Emit, job: str, timeout_s: float, *, computes: bool = False) -> None:
        self._emit, self._job = emit, job
        self._signs = Signs(timeout_s, computes=computes)
        self._stopped = threading.Event()
        self._looking, self._saying = threading.Lock(), threading.Lock()
        self._said = time.monotonic()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, doing: str, within_s: float = 0) -> None:
        """Say that there was progress, and what comes next; `within_s` where that has a limit of its own."""
        with self._looking:
            self._signs.beat(doing, time.monotonic(), time.process_time(), within_s)

    def emit(self, event: _Event) -> None:
        """Emit an event of the work."""
        with self._saying:
            self._said, self._over = time.monotonic(), isinstance(event, Finished)
            self._emit(event)

    def __enter__(self) -> Self:
        self.beat("starting")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(max(0.01, min(self._signs.due, self._said + ALIVE_EVERY_S) - time.monotonic())):
            with self._looking:
                message = self._signs.look(time.monotonic(), time.process_time())
            if message is not None:
                self._end(message)
            self._say(time.monotonic())

    def _say(self, now: float) -> None:
        """Tell whoever listens that the work goes on, unless there was an event just now, or the last one."""
        with self._saying:
            if now - self._said >= ALIVE_EVERY_S:
                self._said = now
                if not self._over:
                    self._emit(Alive(job=self._job, doing=self._signs.doing, seconds=round(now - self._signs.began, 1)))

    def _end(self, message: str) -> NoReturn:
        sys.stderr.write(f"{message}\n")
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self._emit(Failed(job=self._job, code=ExitCode.STALLED, message=message))
        os._exit(ExitCode.STALLED)
