"""The stall watchdog: a command that does nothing for too long ends itself instead of holding a GPU."""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType
from typing import NoReturn, Self

from lary_schema.base import ExitCode
from lary_schema.events import Emit, Failed


class Watchdog:
    """Ends the process with exit code 124 when `beat` is not called for `timeout_s` seconds.

    Used as a context manager around the work. Before the end it emits a `Failed` event that says
    what was going on, and writes all threads' tracebacks to stderr. It exits at once, without
    cleaning up: what hangs would hang that too, and everything on disk is whole or absent.
    """

    def __init__(self, emit: Emit, job: str, timeout_s: float) -> None:
        self._emit = emit
        self._job = job
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        self._last = time.monotonic()
        self._doing = "starting"
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, doing: str) -> None:
        """Say that there was progress, and what comes next."""
        self._doing = doing
        self._last = time.monotonic()

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
        while not self._stopped.wait(max(0.01, self._last + self._timeout_s - time.monotonic())):
            if time.monotonic() - self._last >= self._timeout_s:
                self._end()

    def _end(self) -> NoReturn:
        message = f"no progress for {self._timeout_s:g} s while {self._doing}"
        sys.stderr.write(f"{message}\n")
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self._emit(Failed(job=self._job, code=ExitCode.STALLED, message=message))
        os._exit(ExitCode.STALLED)
