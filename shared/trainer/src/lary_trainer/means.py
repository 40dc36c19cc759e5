"""Means of a step's numbers since they were last reported."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Means:
    """Sums and their count; both lie in states, so that a mean is that of an undisturbed run."""

    sums: dict[str, float | None] = field(default_factory=dict)
    """None: a summand was not finite."""
    count: int = 0

    def add(self, figures: Mapping[str, float]) -> None:
        self.count += 1
        for name, value in figures.items():
            before = self.sums.get(name, 0.0)
            self.sums[name] = before + value if before is not None and math.isfinite(value) else None

    def take(self) -> dict[str, float | None]:
        """The means; begins anew."""
        means = {name: None if total is None else total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
