"""Mean and spread of actions, of one array or of many that do not fit into memory together (needs numpy)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lary_schema.base import ContractError

STD_MIN = 1e-6
"""A dimension that moves less counts as constant: its standard deviation is taken as 1 (LARYBench)."""
NO_ROBOT = "nan"
"""The robot type of an empty cell: LARYBench's tools read it as pandas' missing value."""
Values = NDArray[np.float64]


def divisor(std: Values) -> Values:
    """What a standard deviation divides by: itself, or 1 for a dimension that does not move."""
    return np.where(std < STD_MIN, 1.0, std)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances from it, of each dimension; float64."""

    count: int
    mean: Values
    """(dim,)."""
    m2: Values
    """(dim,)."""

    @classmethod
    def of(cls, steps: Values) -> "Moments":
        """Of all rows of an array (..., dim); mean and `std` are numpy's, bit for bit."""
        axes = tuple(range(steps.ndim - 1))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = steps.mean(axis=axes)
            # In place: fresh memory of that size takes longer than the arithmetic.
            distance = steps - mean
            return cls(steps.size // steps.shape[-1], mean, np.square(distance, out=distance).sum(axis=axes))

    def __add__(self, other: "Moments") -> "Moments":
        """Of both samples together (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        with np.errstate(over="ignore", invalid="ignore"):
            delta = other.mean - self.mean
            mean = self.mean + delta * (other.count / count)
            return Moments(count, mean, self.m2 + other.m2 + np.square(delta) * (self.count * other.count / count))

    @property
    def std(self) -> Values:
        """The population's standard deviation (dim,).

        Raises ContractError where squares are beyond float64: values above 1e154 are no actions.
        """
        if not (np.isfinite(self.mean).all() and np.isfinite(self.m2).all()):
            raise ContractError("actions are too large for a standard deviation: their squares are no finite numbers")
        root: Values = np.sqrt(self.m2 / self.count)
        return root

    def as_json(self) -> dict[str, Any]:
        """LARYBench's fields; `std` is what to divide by."""
        return {"count": self.count, "mean": self.mean.tolist(), "std": divisor(self.std).tolist()}
