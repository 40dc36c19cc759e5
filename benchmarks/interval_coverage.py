"""How often 95 % intervals hold the truth where rows come in episodes, and how wide they are: no speed, a simulation.

Known truth: every row's score follows from normal variables that its episode, its own row and the probe's seed share.
`hits` are 0 or 1 (truth 0.8 at the reference seed spread), `errors` mean squares of four residuals. In a paired
comparison model B is the same with other residuals of its own and is better by a known amount. `correlation` is that
of two rows of an episode. With several seeds each seed has a shift of its own besides noise of every row.

`by_row` is what the same interval covers when rows are taken as independent, in every tenth trial. `shares` needs no
scores: two independent normal causes of spread with known shares of the variance, whose variances are estimated with
groups - 1 and seeds - 1 degrees of freedom; for each share how often the interval over both holds the truth.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import Pool
from statistics import NormalDist
from typing import Any

import numpy as np
from common import arguments, report
from lary_schema.intervals import FEW_GROUPS, LEVEL, difference, estimate, t_quantile, toward_seeds
from numpy.typing import NDArray

EPISODES = (5, 10, 30, 60)
SEEDS = (1, 2, 3, 5)
CORRELATIONS = (0.0, 0.2, 0.5, 0.8)
ROWS = (5, 16)
"""Rows of an episode: 5 to 15."""
RESIDUALS = 4
ROW_NOISE = 0.5
"""Standard deviation of what a seed does to each row, where a row's own difficulty has 1."""
SEED_SPREAD = {"hits": 0.15, "errors": 0.1}
BETTER = {"hits": 0.2, "errors": 0.1}
"""B's advantage: in the latent normal variable; as a share of the squared error."""
SHIFT = 0.95
"""Of the latent normal variable: a top-1 of about 0.8."""
BAND = (0.92, 0.97)
BY_ROW_EVERY = 10
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

Scores = NDArray[np.float64]
Found = dict[str, tuple[bool, float]]
"""By kind of interval: whether it holds the truth, and its width."""


@dataclass(frozen=True)
class Cell:
    score: str
    seeds: int
    correlation: float
    episodes: int


class World:
    """One draw of episodes, and the scores of models on them."""

    def __init__(self, cell: Cell, generator: np.random.Generator) -> None:
        self.cell, self.generator = cell, generator
        self.groups = np.repeat(np.arange(cell.episodes), generator.integers(*ROWS, cell.episodes))
        self.common = self._normals()

    def _normals(self) -> Scores:
        """(n, 1 or 4) standard normal, correlated within episodes."""
        width = 1 if self.cell.score == "hits" else RESIDUALS
        shared = self.generator.standard_normal((self.cell.episodes, width))[self.groups]
        own = self.generator.standard_normal((len(self.groups), width))
        return np.sqrt(self.cell.correlation) * shared + np.sqrt(1 - self.cell.correlation) * own

    def model(self, better: bool) -> Scores:
        """(seeds, n) scores: half of a row's difficulty is common to all models."""
        difficulty = (self.common + self._normals()) / np.sqrt(2)
        return np.stack([self._seed(difficulty, better) for _ in range(self.cell.seeds)])

    def _seed(self, difficulty: Scores, better: bool) -> Scores:
        kind = self.cell.score
        shift = SEED_SPREAD[kind] * self.generator.standard_normal() if self.cell.seeds > 1 else 0.0
        noisy = difficulty + ROW_NOISE * self.generator.standard_normal(difficulty.shape)
        if kind == "hits":
            return (noisy[:, 0] + SHIFT + BETTER[kind] * better + shift > 0).astype(float)
        errors: Scores = np.square(noisy).mean(axis=1) * (1 - BETTER[kind] * better) * (1 + shift)
        return errors


def truth(cell: Cell, better: bool) -> float:
    """A model's mean score over episodes, rows and seeds."""
    if cell.score == "errors":
        return (1 + ROW_NOISE**2) * (1 - BETTER["errors"] * better)
    spread = 1 + ROW_NOISE**2 + (SEED_SPREAD["hits"] ** 2 if cell.seeds > 1 else 0)
    return NormalDist().cdf((SHIFT + BETTER["hits"] * better) / spread**0.5)


def trial(cell: Cell, seed: int, resamples: int) -> Found:
    world = World(cell, np.random.default_rng(seed))
    a, b = world.model(better=False), world.model(better=True)
    hits = cell.score == "hits"
    options = {"resamples": resamples, "seed": seed}
    one, two = ((0.0, 1.0), (-1.0, 1.0)) if hits else (None, None)
    level, gain = truth(cell, False), truth(cell, True) - truth(cell, False)
    found = {
        "single": (estimate(a, world.groups, bounds=one, **options), level),
        "paired": (difference(b, a, world.groups, bounds=two, **options), gain),
    }
    if seed % BY_ROW_EVERY == 0:
        found["by_row"] = (estimate(a, np.arange(len(world.groups)), bounds=one, **options), level)
    return {name: (e.low <= wanted <= e.high, e.high - e.low) for name, (e, wanted) in found.items()}


def measure(task: tuple[Cell, int, int]) -> dict[str, Any]:
    cell, trials, resamples = task
    held: dict[str, list[tuple[bool, float]]] = {}
    for seed in range(trials):
        for name, result in trial(cell, seed, resamples).items():
            held.setdefault(name, []).append(result)
    row: dict[str, Any] = asdict(cell) | {"trials": trials}
    for name, results in held.items():
        row[name] = round(float(np.mean([inside for inside, _ in results])), 4)
        row[f"{name}_width"] = round(float(np.mean([width for _, width in results])), 4)
    return row


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind and number of seeds, from FEW_GROUPS episodes on and below: coverage, and cells outside BAND."""
    return [
        {"interval": name, "seeds": seeds, "episodes": f"{'from' if many else 'below'} {FEW_GROUPS}"} | _range(values)
        for name, seeds, many in product(("single", "paired", "by_row"), SEEDS, (True, False))
        if (values := [r[name] for r in rows if r["seeds"] == seeds and (r["episodes"] >= FEW_GROUPS) == many])
    ]


def _range(values: list[float]) -> dict[str, float]:
    outside = sum(not BAND[0] <= value <= BAND[1] for value in values)
    mean = round(float(np.mean(values)), 4)
    return {"lowest": min(values), "mean": mean, "highest": max(values), "cells": len(values), "outside": outside}


def shares(groups: int, seeds: int, draws: int = 400_000) -> dict[str, Any]:
    """Coverage for each true share of the seeds in the variance. Estimates are drawn, the scores integrated over."""
    generator = np.random.default_rng(0)
    first, second = (2 * generator.gamma(f / 2, size=draws) / f for f in (groups - 1, seeds - 1))
    own, other = t_quantile(groups - 1), t_quantile(seeds - 1)
    found = {}
    for share in SHARES:
        total = (1 - share) * first + share * second
        critical = own + (other - own) * toward_seeds(share * second / total, seeds - 1)
        found[f"{share:g}"] = round(float(np.mean(_within(critical * np.sqrt(total)))), 4)
    return {"groups": groups, "seeds": seeds, "level": LEVEL, "coverage": found}


def _within(reach: Scores) -> Scores:
    """Probability that a standard normal variable is nearer to 0 than `reach`, from a fine table."""
    table = np.linspace(0, 9, 9001)
    return np.interp(reach, table, [math.erf(z / math.sqrt(2)) for z in table])


def tasks(trials: int, resamples: int) -> Iterator[tuple[Cell, int, int]]:
    """The large cells first. Of several seeds half of the trials do, below FEW_GROUPS episodes a tenth."""
    for facts in product(("hits", "errors"), SEEDS, CORRELATIONS, reversed(EPISODES)):
        cell = Cell(*facts)
        share = 10 if cell.episodes < FEW_GROUPS else 1 if cell.seeds == 1 else 2
        yield cell, trials // share, resamples


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with Pool(options.processes) as pool:
        rows = pool.map(measure, tasks(options.trials, options.resamples), chunksize=1)
    known = [shares(groups, seeds) for groups, seeds in product((FEW_GROUPS, 60), SEEDS[1:])]
    report("coverage", {"band": BAND, "summary": summary(rows), "shares": known, "rows": rows}, options.save)


if __name__ == "__main__":
    main()
