"""Scores and their uncertainty. Everything works on arrays over rows and is exact to float64."""

from typing import NamedTuple

import numpy as np
from lary_schema.results import Interval
from numpy.typing import NDArray

DRAWS_AT_ONCE = 1 << 22
"""Bounds the bootstrap's memory (32 MB of row numbers)."""


def bootstrap_interval(per_row: NDArray[np.float64], resamples: int, seed: int) -> Interval:
    """95 % percentile interval of the mean of `per_row` (n,), rows drawn with replacement."""
    count = len(per_row)
    generator, step = np.random.default_rng(seed), max(1, DRAWS_AT_ONCE // count)
    means = [
        per_row[generator.integers(count, size=(min(step, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(low=float(low), high=float(high))


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts: rows are the truth, columns the prediction."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


class ClassScores(NamedTuple):
    """Per class, (classes,) each. An undefined ratio (no such row, never predicted) is 0."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def class_scores(matrix: NDArray[np.int64]) -> ClassScores:
    """Precision, recall, f1 and number of rows of each class of a confusion matrix."""
    hits, support, predicted = np.diagonal(matrix).astype(float), matrix.sum(axis=1), matrix.sum(axis=0)
    return ClassScores(_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support), support)


def macro_recall(matrix: NDArray[np.int64]) -> float:
    """Mean recall of the classes that occur in the truth."""
    scores = class_scores(matrix)
    return float(scores.recall[scores.support > 0].mean())


def r_squared(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float | None:
    """1 - MSE / variance around the split's own mean vector; None where nothing varies. Arrays (n, out)."""
    spread = float(np.square(truth - truth.mean(axis=0)).mean())
    return 1 - float(np.square(truth - predicted).mean()) / spread if spread > 0 else None


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
