"""Numbers that options take."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """As click's, without nan and inf: nothing is below, above or within nan, so that every check would pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


SECONDS = FiniteRange(0, 1e9, min_open=True)
"""At most thirty years: the system's clocks take no more."""
