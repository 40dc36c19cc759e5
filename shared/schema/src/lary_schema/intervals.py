"""95 % intervals of scores whose rows come in groups (episodes, videos): of one score, and of a difference.

Rows of one group are alike, so groups are drawn, never rows. With several seeds the interval holds both causes of
spread: which groups were drawn, and which seed trained the probe. `benchmarks/interval_coverage.py` measures how
often the intervals hold the truth; decision 0023 says why they are made this way.

numpy is imported where it is needed: commands that show no interval start without it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
FEW_GROUPS = 30
"""With fewer groups an interval may be too narrow (see `benchmarks/interval_coverage.py`): whoever shows it says so."""
DRAWS_AT_ONCE = 1 << 21
"""Bounds the memory of a bootstrap (about 50 MB)."""
NORMAL = NormalDist()


class Estimate(NamedTuple):
    """A mean score, or a mean difference, with its interval."""

    value: float
    low: float
    high: float
    """`low` and `high` are NaN for a single group: nothing can be said."""
    groups: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Part(NamedTuple):
    """What the seeds of one model give the variance of its mean."""

    variance: float
    """Of the seeds' means, divided by their number: the seeds' own, and that of seeds and groups together."""
    freedom: float
    shared: float
    """The part of seeds and groups together, which the spread of the groups holds as well."""


def estimate(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of `scores` (seeds, n) over seeds and rows; `groups` (n,) are codes, equal within a group.

    `bounds` are the smallest and largest score that a row can have, where there are such. `seed` is the
    bootstrap's own.
    """
    parts = [seed_part(scores, groups)] if len(scores) > 1 else []
    return _estimate(scores.mean(axis=0), groups, parts, resamples, seed, bounds)


def difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of a - b, each (seeds, n), on the same n rows: paired by row, groups drawn for both at once.

    The numbers of seeds may differ; seeds of a and b count as independent. `bounds` are those of a difference.
    """
    parts = [seed_part(each, groups) for each in (a, b) if len(each) > 1]
    return _estimate(a.mean(axis=0) - b.mean(axis=0), groups, parts, resamples, seed, bounds)


def seed_part(scores: NDArray[np.float64], groups: NDArray[np.int64]) -> Part:
    """The part of `scores` (seeds, n), seeds >= 2."""
    seeds, codes = len(scores), _codes(groups)
    between = float(scores.mean(axis=1).var(ddof=1))
    shared = sum(_Sums.of(own, codes).variance for own in scores - scores.mean(axis=0)) / (seeds - 1)
    return Part(between / seeds, seeds - 1, shared / seeds)


@lru_cache(maxsize=256)
def t_quantile(freedom: float) -> float:
    """The value that Student's t with `freedom` >= 1 (not necessarily whole) exceeds with probability 2.5 %."""
    if freedom > 10_000:
        return NORMAL.inv_cdf((1 + LEVEL) / 2)
    import numpy as np

    # With t = sqrt(freedom) * tan(angle) the density is cos(angle) ** (freedom - 1).
    angles = np.linspace(0, math.pi / 2, 10_001)
    density = np.maximum(np.cos(angles), 0.0) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(LEVEL, area / area[-1], angles)))


class _Sums(NamedTuple):
    """Scores of the groups: their sums, and their numbers of rows."""

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @classmethod
    def of(cls, scores: NDArray[np.float64], codes: NDArray[np.int64]) -> _Sums:
        """`codes` are 0 .. groups - 1."""
        import numpy as np

        return cls(np.bincount(codes, scores).astype(np.float64), np.bincount(codes).astype(np.float64))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def variance(self) -> float:
        """Of the mean, by the groups' residuals (a cluster-robust variance with its factor G / (G - 1))."""
        count = len(self.sums)
        residuals = self.sums - self.sizes * self.mean
        return float((residuals**2).sum()) * count / max(1, count - 1) / float(self.sizes.sum()) ** 2


def _codes(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    codes: NDArray[np.int64] = np.unique(groups, return_inverse=True)[1]
    return codes


def _estimate(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    parts: Sequence[Part],
    resamples: int,
    seed: int,
    bounds: tuple[float, float] | None,
) -> Estimate:
    sums = _Sums.of(scores, _codes(groups))
    value, count = sums.mean, len(sums.sums)
    if count < 2:
        return Estimate(value, math.nan, math.nan, count)
    if sums.variance <= 1e-24 * (1 + value * value):
        low, high = _of_equals(value, count, bounds)
    else:
        # BCa knows skewed scores and bounds, t the few or rarely differing groups; where they differ, the wider end.
        half = t_quantile(count - 1) * math.sqrt(sums.variance)
        low, high = _by_bootstrap(sums, resamples, seed)
        low, high = min(low, value - half), max(high, value + half)
    seeds = _pooled(parts)
    # What groups and seeds make together is counted once, with the seeds: less is left for the groups alone.
    alone = math.sqrt(max(0.0, 1 - seeds.shared / sums.variance)) if sums.variance > seeds.shared * 1e-9 else 1.0
    # Where groups alone do little, few seeds may agree by chance: that makes no interval without width.
    reaches = [max(half / 2, _reach(alone * half, count - 1, seeds)) for half in (value - low, high - value)]
    low, high = value - reaches[0], value + reaches[1]
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value, low, high, count)


def _pooled(parts: Sequence[Part]) -> Part:
    """The sum of independent parts.

    Its degrees of freedom lie between Satterthwaite's (1946; 0 where here is 1.5), too few where parts are alike, since
    squares of estimates are too large on average, and Welch's second formula (1947; 2), too many where they are not.
    """
    variance, shared = (sum(values) for values in ((p.variance for p in parts), (p.shared for p in parts)))
    if variance <= 0:
        return Part(0.0, math.inf, shared)
    return Part(variance, variance**2 / sum(p.variance**2 / (p.freedom + 1.5) for p in parts) - 1.5, shared)


def _reach(half: float, freedom: float, seeds: Part) -> float:
    """One side of the interval over groups and seeds; `half` is that over groups alone.

    A side stands for the variance that a t interval of its length would come from (Zou and Donner 2008). Variances add.
    """
    own = t_quantile(freedom)
    groups = (half / own) ** 2
    total = groups + seeds.variance
    if total <= 0:
        return 0.0
    way = float(toward_seeds(seeds.variance / total, seeds.freedom))
    return (own + (t_quantile(seeds.freedom) - own) * way) * math.sqrt(total)


def toward_seeds(share: Any, freedom: Any) -> Any:
    """How far the critical value goes from the groups' t quantile (0) to the seeds' (1), for the seeds' estimated share
    of the variance and their degrees of freedom: numbers or arrays.

    What to multiply the root of a sum of two estimated variances by is the Behrens-Fisher problem. Cochran and Cox
    (1950) go by the share itself, which is too wide where both count; Satterthwaite's quantile is too narrow with few
    seeds. This function is fitted: an interval of normal scores covers 0.936 to 0.963 of the time for any true share
    with two seeds, 0.950 to 0.959 with more (`shares` in `benchmarks/results/coverage.json`).
    """
    return (1 - (1 - share) ** (1 + 5 / freedom)) ** 6


def _of_equals(value: float, count: int, bounds: tuple[float, float] | None) -> tuple[float, float]:
    """Where all groups score the same, there is nothing to draw from.

    A share of other groups that all `count` draws miss in 2.5 % of cases may still be out there, with any score.
    """
    if bounds is None:
        return value, value
    unseen = 1 - ((1 - LEVEL) / 2) ** (1 / count)
    return value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)


def _by_bootstrap(sums: _Sums, resamples: int, seed: int) -> tuple[float, float]:
    """BCa bootstrap over groups (Efron 1987), its levels widened for few groups (Hesterberg 2015, section 3.3)."""
    import numpy as np

    count = len(sums.sums)
    means = _resampled(sums, resamples, np.random.default_rng(seed))
    below = (float((means < sums.mean).mean()) + float((means <= sums.mean).mean())) / 2
    bias = NORMAL.inv_cdf(min(max(below, 1 / (resamples + 1)), resamples / (resamples + 1)))
    without = (sums.sums.sum() - sums.sums) / (sums.sizes.sum() - sums.sizes)
    leverage = without.mean() - without
    acceleration = float((leverage**3).sum() / (6 * (leverage**2).sum() ** 1.5))
    reach = t_quantile(count - 1) * math.sqrt(count / (count - 1))
    levels = [_bca_level(bias, acceleration, z) for z in (-reach, reach)]
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def _bca_level(bias: float, acceleration: float, z: float) -> float:
    shrink = 1 - acceleration * (bias + z)
    if shrink <= 0:
        return 0.0 if z < 0 else 1.0
    return NORMAL.cdf(bias + (bias + z) / shrink)


def _resampled(sums: _Sums, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of as many groups, drawn with replacement."""
    import numpy as np

    count, means = len(sums.sums), []
    step = max(1, DRAWS_AT_ONCE // count)
    for start in range(0, resamples, step):
        drawn = generator.integers(count, size=(min(step, resamples - start), count))
        means.append(sums.sums[drawn].sum(axis=1) / sums.sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): sensible for few trials, and for none or all of them.

    Raises ValueError for no trials.
    """
    if trials < 1:
        raise ValueError("no trials, so no interval")
    z = NORMAL.inv_cdf((1 + LEVEL) / 2)
    share, extra = successes / trials, z * z / trials
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / trials + extra / trials / 4) / (1 + extra)
    # At the ends rounding would leave a hair: none of n is 0.
    return (0.0 if not successes else middle - half), (1.0 if successes == trials else middle + half)
