"""Whether a probe learned anything at all: without that, its score says nothing about the latents."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIGMAS = 4.0
"""How many standard errors above chance a training top-1 must be in some epoch: the best of 5 heads and 20 epochs at
chance is that high in 0.3 % of cases."""
SHARE_OF_MEAN = 0.98
"""A training MSE above this share of the mean action's in every epoch counts as not learned."""


def learned_classes(train: Sequence[NDArray[np.float64]], rows: int, labels: NDArray[np.int64], balanced: bool) -> bool:
    """`train`: by epoch, (heads,) training top-1 of `rows` draws; `labels` are those of the rows trained on.

    Chance is one class of those that occur, or the most frequent one where sampling is not balanced.
    """
    counts = np.bincount(labels)
    chance = 1 / np.count_nonzero(counts) if balanced else counts.max() / len(labels)
    # Of few rows no top-1 would be enough.
    enough = min(chance + SIGMAS * math.sqrt(chance * (1 - chance) / rows), (1 + chance) / 2)
    return bool((_finite(train) > enough).any())


def learned_values(train: Sequence[NDArray[np.float64]], spread: float) -> bool:
    """`train`: by epoch, (heads,) training MSE; `spread`: the MSE of predicting the mean of what was compared."""
    return bool((_finite(train) < SHARE_OF_MEAN * spread).any())


def _finite(train: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    values = np.concatenate(train)
    return values[np.isfinite(values)]
