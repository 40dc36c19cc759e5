"""Which rows a step trains on: a function of (seed, step), so that nothing has to be remembered."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lary_trainer.chance import stream

Rows = NDArray[np.int64]
"""(B,) numbers of rows in the metadata CSV."""


class Wanted(NamedTuple):
    """The rows of one step, and which of its pairs each gives."""

    step: int
    rows: Rows
    starts: NDArray[np.int64]
    """(B,) position of the pair's first frame among the row's sampled ones; 0 for image pairs."""


class Order:
    """An epoch is a permutation of all rows by (seed, epoch); what does not fill a batch is left to the next one."""

    def __init__(self, seed: int, rows: Rows, batch_size: int, pairs: int) -> None:
        """`pairs`: how many pairs a row gives; the one that a step takes depends on (seed, step, row)."""
        self._seed = seed
        self._rows = rows
        self._pairs = pairs
        self.size = min(batch_size, len(rows))
        self._per_epoch = len(rows) // self.size
        self._epoch = -1
        self._permuted = rows

    def batch(self, step: int) -> Wanted:
        """The rows of a step."""
        epoch, at = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permuted = self._rows[stream(self._seed, "order", epoch).permutation(len(self._rows))]
        return self._wanted("pair", step, self._permuted[at * self.size : (at + 1) * self.size])

    def batches(self, start: int, stop: int) -> Iterator[Wanted]:
        yield from map(self.batch, range(start, stop))

    def in_order(self) -> Iterator[Wanted]:
        """All rows, each with the same pair every time: for evaluations."""
        for at in range(0, len(self._rows), self.size):
            yield self._wanted("held-out pair", 0, self._rows[at : at + self.size])

    def _wanted(self, purpose: str, step: int, rows: Rows) -> Wanted:
        if self._pairs == 1:
            return Wanted(step, rows, np.zeros(len(rows), np.int64))
        drawn = [stream(self._seed, purpose, step, row).integers(self._pairs) for row in rows.tolist()]
        return Wanted(step, rows, np.array(drawn, np.int64))


def part(wanted: Wanted, rank: int, processes: int) -> Wanted:
    """What one of several processes takes of a batch: rows that follow each other, ranks in order."""
    rows, starts = (np.array_split(values, processes)[rank] for values in (wanted.rows, wanted.starts))
    return Wanted(wanted.step, rows, starts)
