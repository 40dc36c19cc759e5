"""Held-out measures of an action tokenizer, and what simple codes of as many bits give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
CENTRES, ITERATIONS, BITS = 256, 20, 8


def kmeans(steps: Values, count: int, seed: int = 0) -> Values:
    """(count, A) centres of (N, A) steps: Lloyd's iterations from steps drawn by `seed`; fewer where steps are few."""
    distinct = np.unique(steps, axis=0)
    generator = np.random.default_rng(seed)
    centres = distinct[generator.choice(len(distinct), min(count, len(distinct)), replace=False)]
    for _ in range(ITERATIONS):
        nearest = _nearest(steps, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, steps)
        centres = np.where(counts[:, None] > 0, sums / counts.clip(1)[:, None], centres)
    return centres


def _nearest(steps: Values, centres: Values) -> NDArray[np.intp]:
    return np.asarray((np.square(centres).sum(1) - 2 * steps @ centres.T).argmin(1))


def levels(dimensions: int, bits: int = BITS) -> list[int]:
    """Bins a dimension whose product is at most 2 ** bits, as equal as can be."""
    found = [1] * dimensions
    while True:
        at = int(np.argmin(found))
        if np.prod([n + (i == at) for i, n in enumerate(found)], dtype=float) > 2**bits:
            return found
        found[at] += 1


def uniform(chunks: Values, bins: list[int]) -> Values:
    """(..., A) in [-1, 1] -> the centre of the bin of each value."""
    count = np.array(bins, np.float64)
    number = np.floor((chunks.clip(-1, 1) + 1) / 2 * count).clip(0, count - 1)
    centres: Values = (number + 0.5) / count * 2 - 1
    return centres


def jerk(chunks: Values) -> float:
    """Mean size of the third difference over time of (n, T, A); nan for chunks of fewer than four steps."""
    return float(np.abs(np.diff(chunks, 3, axis=1)).mean()) if chunks.shape[1] > 3 else float("nan")


@dataclass
class Simple:
    """Codes without a network, fitted on training chunks (n, T, A) in [-1, 1]."""

    train: Values
    centres: Values = field(init=False)

    def __post_init__(self) -> None:
        self.mean = self.train.mean((0, 1))
        self.centres = kmeans(self.train.reshape(-1, self.train.shape[-1]), CENTRES)

    def errors(self, chunks: Values) -> dict[str, float]:
        """Mean squared errors: of the training mean; of k-means of 256 steps; of uniform bins, 8 bits a step and 256
        a dimension."""
        dimensions = chunks.shape[-1]
        steps = chunks.reshape(-1, dimensions)
        coded = {
            "mean": np.broadcast_to(self.mean, chunks.shape),
            "kmeans": self.centres[_nearest(steps, self.centres)].reshape(chunks.shape),
            "uniform_8_bits": uniform(chunks, levels(dimensions)),
            "uniform_256": uniform(chunks, [256] * dimensions),
        }
        return {name: float(np.square(values - chunks).mean()) for name, values in coded.items()}


def usage(indices: NDArray[np.int64], codes: int) -> dict[str, float]:
    """`perplexity` and `codes_used` of code numbers of any shape."""
    shares = np.bincount(indices.ravel(), minlength=codes) / indices.size
    used = shares[shares > 0]
    return {"perplexity": float(np.exp(-(used * np.log(used)).sum())), "codes_used": float(len(used))}
