"""Memory of batches, used again and again: fresh pages for each batch take longer than filling them does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_free: list[Tensor] = []
"""Flat, of any sizes. A process does one job, whose splits are read one after the other."""


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
