"""Actions in [-1, 1]: by two quantiles of the training rows, or by their limits."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from lary_trainer.trainee import ActionFacts, Batch, Facts
from numpy.typing import NDArray

FLAT = 1e-8
"""Spread between the quantiles below which a dimension counts as constant."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ActionRange:
    """What of each dimension becomes -1 and what 1. A constant dimension passes through as it is."""

    low: Values
    """(A,) physical units."""
    high: Values

    @classmethod
    def of(cls, facts: ActionFacts) -> Self:
        return cls(facts.low, facts.high)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """What `document` wrote."""
        return cls(np.array(document["low"], np.float64), np.array(document["high"], np.float64))

    def document(self) -> dict[str, Any]:
        """For `config.json`."""
        constant = np.flatnonzero(self.constant).tolist()
        return {"low": self.low.tolist(), "high": self.high.tolist(), "constant": constant}

    @property
    def constant(self) -> NDArray[np.bool_]:
        """(A,): dimensions that pass through."""
        return np.asarray(self.high - self.low < FLAT)

    def scale(self, actions: Values) -> Values:
        """(..., A) physical -> [-1, 1], and beyond where they are outside the range."""
        span = np.where(self.constant, 2.0, self.high - self.low)
        low = np.where(self.constant, -1.0, self.low)
        scaled: Values = (actions - low) / span * 2 - 1
        return scaled

    def unscale(self, scaled: Values) -> Values:
        """The inverse of `scale`."""
        span = np.where(self.constant, 2.0, self.high - self.low)
        low = np.where(self.constant, -1.0, self.low)
        actions: Values = (scaled + 1) / 2 * span + low
        return actions

    def clip(self, scaled: Values) -> Values:
        """To [-1, 1], constant dimensions apart."""
        return np.where(self.constant, scaled, scaled.clip(-1, 1))

    def outside(self, scaled: Values) -> float:
        """Share of all values that `clip` changes."""
        return float(((np.abs(scaled) > 1) & ~self.constant).mean())


def physical(batch: Batch, facts: Facts) -> Values:
    """(B, T, A) actions of a batch in their own units. Raises AssertionError where none are read."""
    assert batch.actions is not None
    assert facts.actions is not None
    standard: Values = batch.actions.cpu().double().numpy()
    return standard * facts.actions.std + facts.actions.mean
