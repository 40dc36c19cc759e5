"""The decode processes: rows come back in any order and are handed on in row order.

One thread owns the processes. It gives each at most one row at a time, so that a row that takes too
long, or that takes its process down, is known and costs itself alone.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, NamedTuple, Self

from lary_schema.cards import Mode, TensorSpec
from lary_schema.events import Reason
from lary_schema.jobs import Decoder, ExtractJob
from lary_schema.store.layout import Failure
from numpy.typing import NDArray

from lary_worker.rows import Task
from lary_worker.slots import make_memory, map_memory


class Decoded(NamedTuple):
    """A row that is ready to be encoded."""

    row: int
    array: NDArray[Any]
    """What `preprocess` gave; a view that is valid until `DecodePool.release`."""
    clamped: bool


Outcome = Decoded | Failure


@dataclass(frozen=True)
class PoolConfig:
    """What the processes do, and how many rows ahead."""

    key: str
    mode: Mode
    variant: str
    decoder: Decoder
    spec: TensorSpec
    workers: int
    row_timeout_s: float
    slots: int
    """Rows that are decoded and not yet released, at most."""

    @classmethod
    def of(cls, job: ExtractJob) -> Self:
        """A job's: a batch that is being assembled, and two ahead of it."""
        values = job.values
        return cls(
            key=values.model,
            mode=values.mode,
            variant=values.variant,
            decoder=values.decoder,
            spec=values.spec.input,
            workers=job.workers,
            row_timeout_s=job.row_timeout_s,
            slots=max(3 * job.batch_size, job.batch_size + 2 * job.workers),
        )


@dataclass
class _Child:
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    ready: bool = False
    task: tuple[int, int] | None = None
    """Place in the order and row of the task at hand."""
    deadline: float = field(default=float("inf"))

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None

    def kill(self) -> int:
        """End the process at once; its return code."""
        self.process.kill()
        self.pipe.close()
        return self.process.wait()


class DecodePool:
    """Decodes `tasks` ahead of `take`, which gives them in order. A context manager."""

    def __init__(self, config: PoolConfig, tasks: Iterator[Task | Failure]) -> None:
        self._config = config
        self._tasks = tasks
        self._fd = make_memory(config.spec, config.slots)
        self._memory = map_memory(self._fd, config.spec, config.slots)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = threading.Condition()
        self._outcomes: dict[int, Outcome] = {}
        self._given = self._taken = self._released = 0
        self._stopping = False
        self._error: BaseException | None = None
        self._children: list[_Child] = []
        self._thread = threading.Thread(target=self._run, name="decode-pool")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        os.close(self._fd)

    def take(self, count: int, beat: Callable[[], None]) -> list[Outcome]:
        """The next `count` rows, in order; waits for them, calling `beat` for each.

        Raises what the pool's thread died of.
        """
        taken = []
        for _ in range(count):
            with self._changed:
                self._changed.wait_for(lambda: self._taken in self._outcomes or self._error is not None)
                if self._error is not None:
                    raise self._error
                taken.append(self._outcomes.pop(self._taken))
                self._taken += 1
            beat()
        return taken

    def release(self) -> None:
        """Give back the memory of all rows taken so far."""
        self._released = self._taken
        os.eventfd_write(self._wake, 1)

    # --- the pool's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for _ in range(self._config.workers):
                self._children.append(self._start())
            while not self._stopping:
                self._feed()
                self._collect()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that takes
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            for child in self._children:
                child.kill()

    def _start(self) -> _Child:
        config = self._config
        settings = {
            "parent": os.getpid(),
            "key": config.key,
            "mode": config.mode,
            "variant": config.variant,
            "decoder": config.decoder,
            "spec": config.spec.model_dump(mode="json"),
            "slots": config.slots,
        }
        ours, theirs = Pipe()
        with theirs:
            fds = (theirs.fileno(), self._fd)
            command = [sys.executable, "-m", "lary_worker.child", *map(str, fds), json.dumps(settings)]
            # Parallelism is by process: libraries that start a thread per core would only get in its way.
            env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds, env=env)
        return _Child(process, ours)

    def _feed(self) -> None:
        """Give tasks to idle processes, as far as there is memory for their rows."""
        idle = [child for child in self._children if child.idle]
        while idle and self._given < self._released + self._config.slots:
            task = next(self._tasks, None)
            if task is None:
                return
            if isinstance(task, Failure):
                self._put(self._given, task)
            else:
                self._give(idle.pop(), task)
            self._given += 1

    def _give(self, child: _Child, task: Task) -> None:
        child.task = (self._given, task.row)
        child.deadline = time.monotonic() + self._config.row_timeout_s
        message = task._asdict() | {"slot": self._given % self._config.slots}
        # A process that has just died is found so by `_collect`.
        with suppress(OSError):
            child.pipe.send_bytes(json.dumps(message).encode())

    def _collect(self) -> None:
        """Wait for an answer, an end, a deadline or a wake-up, and deal with it."""
        by_pipe = {child.pipe: child for child in self._children}
        timeout = min(child.deadline for child in self._children) - time.monotonic()
        for ready in wait([*by_pipe, self._wake], None if timeout == float("inf") else max(0, timeout)):
            if isinstance(ready, Connection):
                self._receive(by_pipe[ready])
            else:
                os.eventfd_read(self._wake)
        now = time.monotonic()
        for child in [c for c in self._children if c.deadline <= now]:
            self._replace(child, "timeout", f"not decoded within {self._config.row_timeout_s:g} s")

    def _receive(self, child: _Child) -> None:
        try:
            answer = json.loads(child.pipe.recv_bytes())
        except (EOFError, OSError):
            self._replace(child, "crashed", "the decode process died")
            return
        if not child.ready:
            child.ready = True
            return
        assert child.task is not None
        place, row = child.task
        child.task, child.deadline = None, float("inf")
        if "reason" in answer:
            self._put(place, Failure(row=row, reason=answer["reason"], detail=answer["detail"]))
        else:
            self._put(place, Decoded(row, self._memory[place % self._config.slots], answer["clamped"]))

    def _replace(self, child: _Child, reason: Reason, detail: str) -> None:
        code = child.kill()
        self._children.remove(child)
        if not child.ready:
            raise RuntimeError(f"a decode process ended while it started, with code {code}; its message is above")
        if child.task is not None:
            place, row = child.task
            self._put(place, Failure(row=row, reason=reason, detail=detail))
        self._children.append(self._start())

    def _put(self, place: int, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes[place] = outcome
            self._changed.notify_all()
