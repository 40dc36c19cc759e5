"""How intervals and differences of studies are written."""

import math
from collections.abc import Sequence
from statistics import stdev

from lary_schema.intervals import Estimate

NOTHING = "-"


def interval_text(interval: Estimate, *, signed: bool = False) -> str:
    """`.25 [.21, .29]`."""
    value, low, high = (f"{number:{'+' if signed else ''}.3f}" for number in interval[:3])
    return f"{value} [no interval]" if math.isnan(interval.low) else f"{value} [{low}, {high}]"


def difference_text(interval: Estimate | None) -> str:
    """With a star where the interval excludes 0."""
    if interval is None:
        return NOTHING
    return interval_text(interval, signed=True) + (" *" if interval.excludes_zero else "")


def spread_text(values: Sequence[float]) -> str:
    """Standard deviation over seeds."""
    return f"{stdev(values):.3f}" if len(values) > 1 else NOTHING


def sign_test(seeds: int) -> str:
    """What so many seeds can show at best."""
    if seeds < 2:
        return "1 seed: nothing is known of the spread over seeds, so no difference here is one of the method."
    return f"{seeds} seeds: a sign test over them cannot go below p = {2 * 0.5**seeds:.2g}."
