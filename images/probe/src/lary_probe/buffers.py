"""Memory of batches, used again and again: fresh pages for each batch take longer than filling them does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_free: list[Tensor] = []
"""Flat, of any sizes. A process does one job at a time, whose splits are read one after the other."""


@contextmanager
def borrowed(count: int, size: int, dtype: torch.dtype, *, pinned: bool) -> Iterator[list[Tensor]]:
    """`count` flat tensors of at least `size` values on the CPU, whatever they hold; page-locked where `pinned`."""
    fits = [t for t in _free if t.numel() >= size and t.dtype == dtype and t.is_pinned() == pinned]
    taken = sorted(fits, key=Tensor.numel)[:count]
    # What is left is too small, or of another kind: it makes room.
    _free.clear()
    with torch.inference_mode(False):
        taken += [torch.empty(size, dtype=dtype, pin_memory=pinned) for _ in range(count - len(taken))]
    try:
        yield taken
    finally:
        _free[:] = taken


def start_counting(device: str) -> None:
    """The peak of a job's memory on a GPU is its own, whichever jobs this process did before."""
    if device == "cuda" and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def give_back(device: str) -> None:
    """A process that waits for another job (`lary_schema.more_jobs`) keeps no memory for it."""
    _free.clear()
    if device == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
