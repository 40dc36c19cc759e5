"""Scores and their uncertainty. Everything works on arrays over rows and is exact to float64."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from lary_schema.intervals import FEW_GROUPS, estimate
from lary_schema.results import Interval
from numpy.typing import NDArray

from lary_probe.groups import Groups


def interval_of(
    per_row: Sequence[NDArray[np.float64]],
    groups: Groups,
    resamples: int,
    seed: int,
    bounds: tuple[float, float] | None,
) -> Interval:
    """95 % interval of the mean of `per_row`, (n,) for each seed; `bounds` are those of a row's score."""
    found = estimate(np.stack(per_row), groups.codes, resamples=resamples, seed=seed, bounds=bounds)
    unit: Literal["rows", "groups"] = "rows" if groups.names is None else "groups"
    note = None
    if found.groups < 2:
        note = f"one of the {unit} alone: no interval can be given"
    elif found.groups < FEW_GROUPS:
        note = f"{found.groups} {unit}, fewer than {FEW_GROUPS}: the interval may be too narrow"
    return Interval(low=found.low, high=found.high, unit=unit, groups=found.groups, seeds=len(per_row) > 1, note=note)


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


def r_squared_each(truth: NDArray[np.floating], errors: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """(dim,) `r_squared` of each dimension of an action; NaN where it does not vary.

    `truth` and squared `errors` are (n, steps * dim), step by step.
    """
    exact = truth.astype(np.float64)
    spread = np.square(exact - exact.mean(axis=0)).reshape(-1, dim).mean(axis=0)
    lost = errors.reshape(-1, dim).mean(axis=0)
    found: NDArray[np.float64] = 1 - np.divide(lost, spread, out=np.full(dim, np.nan), where=spread > 0)
    return found


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
