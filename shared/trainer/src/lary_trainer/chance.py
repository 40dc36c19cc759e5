"""Chance as a function of (seed, purpose, step, row), never of a generator's history (decision 0011).

So a state holds no generator, a training that was killed goes on with the same numbers, and a row's noise does not
depend on which process draws it.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator of its own for one purpose at one place (a step, a row), the same on every machine."""
    digest = hashlib.sha256(purpose.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words, *counters])))


def row_noise(seed: int, purpose: str, step: int, rows: NDArray[np.int64], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers, float32 (B, *shape): row i's depend on (seed, purpose, step, rows[i]) alone."""
    drawn = [stream(seed, purpose, step, int(row)).standard_normal(shape, dtype=np.float32) for row in rows]
    return torch.from_numpy(np.stack(drawn))
