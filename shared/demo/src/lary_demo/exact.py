"""Randomness and trigonometry in integers, so that a seed draws the same pixels on every machine.

numpy promises the raw stream of a bit generator and `SeedSequence` for ever, and no more: the
methods of `Generator` may change. libm's sine differs between platforms. Neither is used here.
"""

from collections.abc import Sequence
from functools import cache
from math import isqrt
from typing import TypeVar

import numpy as np

T = TypeVar("T")

TURN = 1024
"""Angles are integers: a full turn has this many steps (0.35 degrees each)."""
UNIT = 1 << 12
"""Length of a direction vector."""


class Draws:
    """Integers from PCG64's raw stream, a stream for each tuple of non-negative integers."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def below(self, n: int) -> int:
        """An integer in [0, n), n < 2**32."""
        return (int(self._bits.random_raw()) >> 32) * n >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def grid(self, shape: tuple[int, ...], n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """int64 array of integers in [0, n)."""
        raw = self._bits.random_raw(int(np.prod(shape))) >> np.uint64(32)
        return (raw * np.uint64(n) >> np.uint64(32)).astype(np.int64).reshape(shape)

    def pick(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """A permutation (Fisher-Yates)."""
        result = list(values)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


@cache
def _directions() -> tuple[tuple[int, int], ...]:
    """Points of the unit circle, by halving arcs: the middle of two neighbours, brought back to length 1."""
    one = 1 << 40
    points = [(one, 0), (0, one), (-one, 0), (0, -one)]
    while len(points) < TURN:
        following = points[1:] + points[:1]
        middles = [(a + c, b + d) for (a, b), (c, d) in zip(points, following, strict=True)]
        lengths = [isqrt(x * x + y * y) for x, y in middles]
        scaled = [(x * one // n, y * one // n) for (x, y), n in zip(middles, lengths, strict=True)]
        points = [p for pair in zip(points, scaled, strict=True) for p in pair]
    half = one // UNIT // 2
    return tuple(((x + half) * UNIT // one, (y + half) * UNIT // one) for x, y in points)


def direction(angle: int) -> tuple[int, int]:
    """(cos, sin) of `angle` / TURN of a turn, in units of 1 / UNIT, rounded to the nearest."""
    return _directions()[angle % TURN]
