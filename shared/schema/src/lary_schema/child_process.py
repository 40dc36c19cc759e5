"""A child process that is a job: its stdout line by line, its stderr in a log, its end with all that it started."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lary_schema import orphans
from lary_schema.output import BoundedLog

PIECE_BYTES = 1 << 16


def spawn(command: list[str], env: Mapping[str, str], stderr: Path, stdin: int) -> "ProcessTask":
    """Start a command whose stderr goes to a log. Raises OSError where the one or the other cannot be."""
    log = BoundedLog(stderr)
    read, write = os.pipe()
    try:
        child = subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=write,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A group of its own: a Ctrl-C at the terminal reaches the orchestrator alone, which
            # then ends the group, decode processes included.
            start_new_session=True,
        )
    except OSError:
        os.close(read)
        log.close()
        raise
    finally:
        os.close(write)
    return ProcessTask(child, read, log)


class ProcessTask:
    """A running child and everything in its process group."""

    def __init__(self, child: subprocess.Popen[str], stderr: int, log: BoundedLog) -> None:
        self._child = child
        self._stderr = os.fdopen(stderr, "rb", buffering=0)
        self._log, self._logging = log, threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name=f"stderr-{child.pid}", daemon=True)
        self._keeper.start()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name=f"reap-{child.pid}", daemon=True).start()

    def _keep(self) -> None:
        """Copy stderr to its log until it closes. A log that cannot be written costs the log, not the job."""
        piece = b"-"
        while piece:
            select.select([self._stderr], [], [])
            # Read and written at once: `settle` sees either all of it in the pipe or all of it in the log.
            with self._logging:
                piece = self._stderr.read(PIECE_BYTES)
                with contextlib.suppress(OSError, ValueError):
                    self._log.write(piece)
        with self._logging:
            self._stderr.close()
            self._log.close()

    def lines(self) -> Iterator[str]:
        stdout = self._child.stdout
        assert stdout is not None
        yield from iter(stdout.readline, "")
        stdout.close()

    def settle(self) -> None:
        """Wait until all that the child wrote to stderr so far is in the log."""
        while True:
            with self._logging:
                if self._stderr.closed or not select.select([self._stderr], [], [], 0)[0]:
                    return
            time.sleep(0.001)

    def hand_over(self, message: str, stderr: Path) -> bool:
        stdin = self._child.stdin
        assert stdin is not None
        with self._logging:
            if self._stderr.closed:
                return False
            self._log.close()
            try:
                self._log = BoundedLog(stderr)
                stdin.write(message)
                stdin.flush()
            except (OSError, ValueError):
                self._log.close()
                return False
        return True

    def dismiss(self) -> None:
        """End a child that waits for a job."""
        self.stop(grace_s=1)
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def wait(self) -> int:
        self._ended.wait()
        # The whole group is dead: what it wrote is in the pipe, and the log is complete when that is empty.
        self._keeper.join()
        code = self._child.returncode
        return code if code >= 0 else 128 - code

    def stop(self, grace_s: float = 10) -> None:
        self._signal(signal.SIGTERM)
        if not self._ended.wait(grace_s):
            self._signal(signal.SIGKILL)
            self._ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the whole group; the lock keeps it from hitting another process that got the number later."""
        with self._lock:
            if not self._ended.is_set():
                self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        # macOS refuses a group that has nothing but a zombie left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _reap(self) -> None:
        """End what the child left in its group before its number is free again.

        Decode processes outlive a killed parent, and would hold stdout open for ever.
        """
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        else:  # macOS before Python 3.13: the number stays taken while anything of the group lives
            self._child.wait()
        with self._lock:
            self._signal_group(signal.SIGKILL)
            orphans.wait_for_group(self._child.pid)
            self._child.wait()
            self._ended.set()
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
