"""Which rows are trained on, held out, and drawn. Everything here follows from seeds alone."""

from typing import NamedTuple

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_probe.latents import Positions


def holdout_random(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(count,) mask of round(share * count) held-out rows, at least one. Raises ContractError for one row."""
    if count < 2:
        raise ContractError("train has one usable row: nothing is left to hold out; use select_on: evaluated")
    held = np.zeros(count, bool)
    chosen = min(count - 1, max(1, round(share * count)))
    held[np.random.default_rng(seed).permutation(count)[:chosen]] = True
    return held


def holdout_stratified(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) mask holding out `share` of each class, rounded half up, never a class's last row.

    Where that is nobody, one row of the largest class is. Raises ContractError where every class has
    one row.
    """
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


def balanced_order(labels: NDArray[np.int64], size: int, seed: int) -> Positions:
    """(size,) positions drawn with replacement, every class alike: weight 1 / (count * classes)."""
    counts = np.bincount(labels)
    weights = 1 / (counts[labels] * np.count_nonzero(counts))
    return np.random.default_rng(seed).choice(len(labels), size=size, p=weights / weights.sum())


def shuffled_order(count: int, size: int, seed: int) -> Positions:
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


def deal(order: Positions, batch_size: int, rank: int, processes: int) -> list[Share]:
    """One process's shares of the global batches of `batch_size` rows, each dealt out in turn.

    A process that gets no row of a last short batch computes on the batch's first one, with weight 0: all
    processes have to take every step.
    """
    shares = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        own = batch[rank::processes]
        shares.append(Share(own if len(own) else batch[:1], len(own) * processes / len(batch)))
    return shares
