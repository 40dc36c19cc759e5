"""The pairs of frames that steps train on, read ahead in the order of the steps and kept while memory allows.

Kept or read anew, a row gives the same bytes: a row is always read whole, all its sampled frames.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from lary_schema.base import ContractError
from lary_schema.store.layout import Failure
from lary_worker.faults import StalledRowsError
from lary_worker.pool import Decoded, DecodePool, PoolConfig
from lary_worker.rows import Task
from numpy.typing import NDArray

from lary_trainer.order import Rows, Wanted

Plan = Callable[[], Iterator[Wanted]]
"""The same batches every time, by a generator of its own: the pool's thread goes through them ahead of the loop."""


class PairTask(NamedTuple):
    """One row to decode, and at which of its sampled frames the wanted pairs begin."""

    row: int
    names: tuple[str, ...]
    paths: tuple[str, ...]
    indices: tuple[int, ...]
    starts: tuple[int, ...]


class Pairs(NamedTuple):
    """Those rows of a batch that could be read."""

    step: int
    rows: Rows
    frames: NDArray[np.uint8]
    """(B, 2, h, w, 3)."""


@dataclass
class NoFrames:
    """In place of a reader where a trainee reads no frames: every row is there, and its frames are empty."""

    failed: dict[int, Failure] = field(default_factory=dict)

    def read(self, plan: Plan) -> Iterator[Pairs]:
        """The batches of `plan`, with frames (B, 0)."""
        for wanted in plan():
            yield Pairs(wanted.step, wanted.rows, np.empty((len(wanted.rows), 0), np.uint8))


@dataclass
class PairReader:
    """Reads the rows of one split. One stream of batches at a time."""

    tasks: Mapping[int, Task | Failure]
    """Of every row that may be wanted, by its number."""
    config: PoolConfig
    """Its slots hold all pairs of a row: (pairs, 2, h, w, 3)."""
    ram_bytes: int
    """What rows may be kept in; the others are decoded each time."""
    beat: Callable[[], None]
    failed: dict[int, Failure] = field(default_factory=dict)
    """Rows that cannot be read, found so far."""

    def __post_init__(self) -> None:
        shape = self.config.spec.shape
        self._pairs = shape[0]
        self._capacity = min(len(self.tasks), self.ram_bytes // max(1, int(np.prod(shape))))
        self._kept = np.empty((self._capacity, *shape), np.uint8)
        self._reading = False
        self._slots: dict[int, int] = {}
        """Where each row that was read is kept; rows beyond the capacity have none."""

    def read(self, plan: Plan) -> Iterator[Pairs]:
        """The batches of `plan`. Raises StalledRowsError where a row's failure need not be its own."""
        batches = plan()
        if not self._keeps_all():
            yield from self._decoded(plan, batches)
        for wanted in batches:
            yield self._take(wanted, None)

    def _decoded(self, plan: Plan, batches: Iterator[Wanted]) -> Iterator[Pairs]:
        """Batches until all rows are kept."""
        if self._reading:
            raise ContractError("two streams of batches are read at once; finish one before the other begins")
        self._reading = True
        try:
            with DecodePool(self.config, self._missing(plan(), dict(self._slots))) as pool:
                for wanted in batches:
                    yield self._take(wanted, pool)
                    if self._keeps_all():
                        break
        finally:
            self._reading = False

    def _keeps_all(self) -> bool:
        return len(self._slots) == len(self.tasks)

    def _missing(self, batches: Iterator[Wanted], slots: dict[int, int]) -> Iterator[PairTask | Failure]:
        """What has to be decoded, in order: `_take` decides alike. `slots` is this generator's own."""
        for wanted in batches:
            if len(slots) == len(self.tasks):
                return
            for row, start in zip(wanted.rows.tolist(), wanted.starts.tolist(), strict=True):
                if row in slots:
                    continue
                keeps = len(slots) < self._capacity
                if keeps:
                    slots[row] = len(slots)
                task = self.tasks[row]
                starts = tuple(range(self._pairs)) if keeps else (start,)
                yield task if isinstance(task, Failure) else PairTask(*task, starts)

    def _take(self, wanted: Wanted, pool: DecodePool | None) -> Pairs:
        rows, starts = wanted.rows.tolist(), wanted.starts.tolist()
        frames = np.empty((len(rows), *self.config.spec.shape[1:]), np.uint8)
        for at, (row, start) in enumerate(zip(rows, starts, strict=True)):
            if pool is not None and row not in self._slots:
                self._receive(row, pool, frames[at], start)
            elif row not in self.failed:
                frames[at] = self._kept[self._slots[row], start]
        if pool is not None:
            pool.release()
        good = np.array([row not in self.failed for row in rows], bool)
        return Pairs(wanted.step, wanted.rows[good], frames if good.all() else frames[good])

    def _receive(self, row: int, pool: DecodePool, frames: NDArray[Any], start: int) -> None:
        """The next row of the pool, kept where there is room."""
        (outcome,) = pool.take(1, self.beat)
        keeps = len(self._slots) < self._capacity
        if keeps:
            self._slots[row] = len(self._slots)
        if isinstance(outcome, Failure):
            self._refuse_transient(outcome)
            self.failed[row] = outcome
            return
        self._copy(outcome, row if keeps else None, frames, start)

    def _copy(self, outcome: Decoded, kept: int | None, frames: NDArray[Any], start: int) -> None:
        if kept is None:
            frames[:] = outcome.array[0]
            return
        self._kept[self._slots[kept]] = outcome.array
        frames[:] = outcome.array[start]

    def _refuse_transient(self, failure: Failure) -> None:
        """Without this row the weights would depend on what this machine did at this moment."""
        if failure.transient:
            raise StalledRowsError(
                f"row {failure.row}: {failure.reason}: {failure.detail}; that need not be the row's own fault, so the "
                "training does not go on without it; start it again: it goes on from its last state (a row that "
                "takes long needs a larger row_timeout_s)"
            )
