"""Which rows are trained on, held out, and drawn. Everything here follows from seeds alone.

Where rows have groups (episodes), whole groups are held out: rows of one episode are alike, and with siblings among
the rows that are trained on, the held-out error would say how well episodes are remembered.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_probe.latents import Positions
from lary_probe.streams import Seed

FEW_ROWS = 50
"""With fewer held-out rows a top-1 of 0.8 has a standard error above 5.7 points: the choice is a matter of luck."""
FEW_GROUPS = 10

Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]
"""Group of each row, 0 .. groups - 1."""


def holdout_random(count: int, share: float, seed: Seed, groups: Codes | None = None) -> Mask:
    """(count,) mask of about `share` of the rows, at least one row (or group), never all.

    Raises ContractError where there is only one.
    """
    codes = np.arange(count) if groups is None else groups
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        what = "one usable row" if groups is None else f"one group ({count} rows)"
        raise ContractError(f"train has {what}: nothing is left to hold out; use select_on: evaluated")
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken = np.cumsum(sizes[order])[:-1]
    chosen = order[: int(np.abs(taken - share * count).argmin()) + 1]
    return np.isin(codes, chosen)


def holdout_stratified(labels: NDArray[np.int64], share: float, seed: Seed, groups: Codes | None = None) -> Mask:
    """(n,) mask of about `share` of each class's rows, never a class's last row.

    Without groups each class's share is rounded half up; where that is nobody, one row of the largest class is held
    out. With groups whole groups are. Raises ContractError where nothing can be.
    """
    if groups is not None:
        return _GroupedHoldout(labels, groups, share).draw(seed)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = np.minimum(np.floor(share * counts + 0.5).astype(int), counts - 1)
    if not wanted.any():
        largest = int(counts.argmax())
        if counts[largest] < 2:
            raise ContractError(
                "every class has one usable train row: nothing can be held out; use select_on: evaluated"
            )
        wanted[largest] = 1
    generator, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label, number in zip(classes, wanted, strict=True):
        held[generator.permutation(np.flatnonzero(labels == label))[:number]] = True
    return held


def balanced_order(labels: NDArray[np.int64], size: int, seed: Seed) -> Positions:
    """(size,) positions drawn with replacement, every class alike: weight 1 / (count * classes)."""
    counts = np.bincount(labels)
    weights = 1 / (counts[labels] * np.count_nonzero(counts))
    return np.random.default_rng(seed).choice(len(labels), size=size, p=weights / weights.sum())


def shuffled_order(count: int, size: int, seed: Seed) -> Positions:
    """(size,) a permutation of 0 .. count - 1, begun again where size is larger."""
    return np.resize(np.random.default_rng(seed).permutation(count), size)


def even_size(count: int, processes: int) -> int:
    """The smallest multiple of `processes` that is not below `count`."""
    return -(-count // processes) * processes


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimiser steps, the last one possibly on fewer rows."""
    return -(-rows // batch_size)


class Share(NamedTuple):
    """What one process computes of a global batch."""

    positions: Positions
    weight: float
    """Of its mean loss, so that the mean over the processes is the mean over the global batch."""


def shares_of(order: Positions, batch_size: int, rank: int, processes: int) -> list[Share]:
    """One process's shares of the global batches of `batch_size` rows, assigned to the processes in turn.

    A process that gets no row of a last short batch computes on the batch's first one, with weight 0: all
    processes have to take every step.
    """
    shares = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        own = batch[rank::processes]
        shares.append(Share(own if len(own) else batch[:1], len(own) * processes / len(batch)))
    return shares


class _GroupedHoldout:
    """Groups taken one by one in random order while that brings the classes nearer to their shares."""

    def __init__(self, labels: NDArray[np.int64], groups: Codes, share: float) -> None:
        self.labels, self.groups = labels, groups
        counts = np.bincount(labels)
        self.wanted = share * counts
        self.limit = counts - 1
        self.limit[counts == 0] = 0
        self.held = np.zeros(len(counts), np.int64)
        self.taken: set[int] = set()
        self.contents = _contents(labels, groups)

    def draw(self, seed: Seed) -> Mask:
        order = np.random.default_rng(seed).permutation(len(self.contents)).tolist()
        for group in order:
            if self._allowed(group) and self._gain(group) >= 0:
                self._take(group)
        # Groups may be larger than a class's share: then the total counts, classes without a held-out row first.
        for group in sorted(order, key=lambda g: bool(self.held[self.contents[g][0]].any())):
            if group not in self.taken and self._allowed(group) and self._nearer_in_total(group):
                self._take(group)
        if not self.taken:
            self._take_smallest(order)
        return np.isin(self.groups, sorted(self.taken))

    def _allowed(self, group: int) -> bool:
        """Whether every class keeps a row to be trained on."""
        classes, counts = self.contents[group]
        return bool((self.held[classes] + counts <= self.limit[classes]).all())

    def _gain(self, group: int) -> float:
        classes, counts = self.contents[group]
        missing = self.wanted[classes] - self.held[classes]
        return float(np.abs(missing).sum() - np.abs(missing - counts).sum())

    def _nearer_in_total(self, group: int) -> bool:
        missing = self.wanted.sum() - self.held.sum()
        return bool(abs(missing - self.contents[group][1].sum()) <= abs(missing))

    def _take(self, group: int) -> None:
        classes, counts = self.contents[group]
        self.held[classes] += counts
        self.taken.add(group)

    def _take_smallest(self, order: list[int]) -> None:
        allowed = [group for group in order if self._allowed(group)]
        if not allowed:
            raise ContractError(
                "every group of train holds all rows of some class: no group can be held out; use select_on: evaluated"
            )
        self._take(min(allowed, key=lambda group: int(self.contents[group][1].sum())))


def _contents(labels: NDArray[np.int64], groups: Codes) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """By group: its classes, and their numbers of rows."""
    order = np.argsort(groups, kind="stable")
    ends = np.r_[0, np.cumsum(np.bincount(groups))]
    return [np.unique(labels[order[start:end]], return_counts=True) for start, end in pairwise(ends.tolist())]
