"""The decode processes: rows come back in any order and are handed on in row order.

One thread owns the processes (`processes`). Rows whose failure need not be their own are tried again there.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from lary_schema import kept_frames
from lary_schema.base import ContractError
from lary_schema.cards import TensorSpec
from lary_schema.jobs import ExtractJob
from lary_schema.store.layout import Failure
from numpy.typing import NDArray

from lary_worker.faults import StalledRowsError
from lary_worker.forks import fork_server
from lary_worker.processes import Child, End, Processes, Reply, Stage
from lary_worker.slots import State, make_memory, map_memory

_HUNG_ROWS = 4
"""Rows in a row that take too long, until that is no longer these rows' fault. See `_Hang`."""
_IN_ADVANCE = 16
"""Rows that a process has at a time, at most: small images take less time than a message."""


class Decoded(NamedTuple):
    """A row that is ready to be encoded."""

    row: int
    array: NDArray[Any]
    """What `preprocess` gave; a view that is valid until `DecodePool.release`."""
    clamped: bool


Outcome = Decoded | Failure


class DecodeTask(Protocol):
    """One row to decode, a named tuple: `lary_worker.rows.Task`, or one of another child's."""

    @property
    def row(self) -> int: ...

    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class PoolConfig:
    """What the processes do, and how many rows ahead."""

    key: str
    """Of the model, for messages."""
    settings: Mapping[str, Any]
    """JSON values for the processes: the decoder, and what they make their `preprocess` of."""
    spec: TensorSpec
    """Of a slot."""
    workers: int
    row_timeout_s: float
    slots: int
    """Rows that are decoded and not yet released, at most."""
    module: str = "lary_worker.child"
    """Whose `main` the processes run."""

    @classmethod
    def of(cls, job: ExtractJob) -> Self:
        """A job's: a batch that is being assembled, and two ahead of it."""
        values = job.values
        return cls(
            key=values.model,
            settings={
                "key": values.model,
                "mode": values.mode,
                "variant": values.variant,
                "decoder": values.decoder,
                "frames_file": os.environ.get(kept_frames.VARIABLE, ""),
                "rows": job.source.metadata.rows,
            },
            spec=values.spec.input,
            workers=job.workers,
            row_timeout_s=job.row_timeout_s,
            slots=max(3 * job.batch_size, job.batch_size + 2 * job.workers),
        )


class _Numbered(NamedTuple):
    """A row and its number in the order of `take`."""

    number: int
    task: DecodeTask


class DecodePool:
    """Decodes `tasks` ahead of `take`, which gives them in order. A context manager."""

    def __init__(self, config: PoolConfig, tasks: Iterator[DecodeTask | Failure]) -> None:
        self._config = config
        self._tasks = tasks
        self._fd = make_memory(config.spec, config.slots)
        self._memory = map_memory(self._fd, config.spec, config.slots)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = threading.Condition()
        self._outcomes: dict[int, Outcome] = {}
        self._given = self._taken = self._released = self._turn = 0
        self._hang = _Hang(config)
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="decode-pool")
        # Begins to import while this process imports torch, say.
        fork_server(config.module)

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
        """The next `count` rows, in order; waits for them, calling `beat` for each and whenever a process was heard of.

        Raises what the pool's thread died of.
        """
        taken = []
        for _ in range(count):
            while (outcome := self._outcome()) is None:
                beat()
            taken.append(outcome)
            beat()
        return taken

    def _outcome(self) -> Outcome | None:
        """The next row; None where it is not there yet and something else happened, such as another try."""
        with self._changed:
            turn = self._turn
            self._changed.wait_for(
                lambda: self._taken in self._outcomes or self._error is not None or self._turn != turn
            )
            if self._error is not None:
                raise self._error
            outcome = self._outcomes.pop(self._taken, None)
            self._taken += outcome is not None
        return outcome

    def release(self) -> None:
        """Give back the memory of all rows taken so far."""
        self._released = self._taken
        os.eventfd_write(self._wake, 1)

    # --- the pool's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            config = self._config
            in_advance = max(1, min(_IN_ADVANCE, config.slots // (2 * config.workers)))
            processes = Processes(self._start, self._send, _receive, config.workers, config.row_timeout_s, in_advance)
            try:
                while not self._stopping:
                    processes.feed(self._next)
                    ends, woken = processes.collect([self._wake])
                    if woken:
                        os.eventfd_read(self._wake)
                    for end in ends:
                        self._finish(end)
                    with self._changed:
                        self._turn += 1
                        self._changed.notify_all()
            finally:
                processes.close()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that takes
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _start(self) -> Child[_Numbered]:
        config = self._config
        settings = {**config.settings, "spec": config.spec.model_dump(mode="json"), "slots": config.slots}
        ours, theirs = Pipe()
        with theirs:
            fork = fork_server(config.module).start([theirs.fileno(), self._fd], settings)
        return Child(ours, fork, fork.ended, self._look)

    def _look(self, numbered: _Numbered) -> Stage | Reply | None:
        state = self._memory.states[self._slot(numbered)]
        if state >= State.DONE:
            return Reply(bool(state == State.DONE_CLAMPED))
        return Stage("preprocess") if state == State.PREPROCESSING else None

    def _slot(self, numbered: _Numbered) -> int:
        return numbered.number % self._config.slots

    def _next(self) -> _Numbered | None:
        """The next row to decode, as far as there is memory for rows."""
        while self._given < self._released + self._config.slots:
            task = next(self._tasks, None)
            if task is None:
                return None
            self._given += 1
            if not isinstance(task, Failure):
                return _Numbered(self._given - 1, task)
            self._put(self._given - 1, task)
        return None

    def _send(self, pipe: Connection, some: list[_Numbered]) -> None:
        slots = [self._slot(numbered) for numbered in some]
        self._memory.states[slots] = State.GIVEN
        tasks = [numbered.task._asdict() | {"slot": slot} for numbered, slot in zip(some, slots, strict=True)]
        pipe.send_bytes(json.dumps(tasks).encode())

    def _finish(self, end: End[_Numbered]) -> None:
        number, row, reply = end.task.number, end.task.task.row, end.reply
        self._hang.note(end)
        if reply.cause is None:
            self._put(number, Decoded(row, self._memory.rows[self._slot(end.task)], reply.value))
        else:
            reason, detail = reply.cause, reply.detail
            if reason in ("timeout", "killed", "crashed"):
                detail = f"{detail}, in {end.stage or 'decoding'}"
            self._put(number, Failure.model_validate({"row": row, "reason": reason, "detail": detail}))

    def _put(self, number: int, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()


class _Hang:
    """Ends the job where rows take too long one after the other and none comes through in between.

    Each of them costs its time-out twice, so a `preprocess` or a file server that hangs would cost hours. Up to
    `_HUNG_ROWS`, or as many as are under way at once, it may be the rows' own fault.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._limit = max(_HUNG_ROWS, config.workers + 1)
        self._rows: list[int] = []
        self._stages: set[str] = set()

    def note(self, end: End[_Numbered]) -> None:
        """Raises ContractError for a model that hangs, StalledRowsError for anything else that does."""
        if end.reply.cause != "timeout":
            if end.reply.cause is None:
                self._rows, self._stages = [], set()
            return
        self._rows.append(end.task.task.row)
        self._stages.add(end.stage)
        if len(self._rows) < self._limit:
            return
        what = (
            f"{len(self._rows)} rows one after the other (the first is row {min(self._rows)}) took longer than "
            f"{self._config.row_timeout_s:g} s, twice each"
        )
        if self._stages == {"preprocess"}:
            raise ContractError(
                f"model {self._config.key}: {what}, all in `preprocess`, which hangs; correct it, or give a larger "
                "--row-timeout"
            )
        raise StalledRowsError(
            f"{what}: the volume of the media hangs, or the time is too short; give a larger --row-timeout"
        )


def _receive(pipe: Connection) -> list[Reply]:
    replies = json.loads(pipe.recv_bytes())
    return [Reply(reply.get("clamped"), reply.get("reason"), reply.get("detail", "")) for reply in replies]
