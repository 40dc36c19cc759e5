"""How often 95 % intervals hold the truth where rows come in episodes, and how wide they are: no speed, a simulation.

Known truth: every row's score follows from normal variables that its episode, its own row and the probe's seed share.
`hits` are 0 or 1 (truth 0.8 at the reference seed spread), `errors` mean squares of four residuals. In a paired
comparison model B is the same with other residuals of its own and is better by a known amount. `correlation` is that
of two rows of an episode. With three seeds each seed has a shift of its own besides noise of every row.

`by_row` is what the same interval covers when rows are taken as independent.
"""

from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
from common import arguments, report
from lary_schema.intervals import FEW_GROUPS, Estimate, difference, estimate
from numpy.typing import NDArray

EPISODES = (5, 10, 30, 60)
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

Scores = NDArray[np.float64]


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


def trial(cell: Cell, seed: int, resamples: int) -> dict[str, tuple[bool, float]]:
    """Whether each interval holds the truth, and its width."""
    world = World(cell, np.random.default_rng(seed))
    a, b = world.model(better=False), world.model(better=True)
    hits = cell.score == "hits"
    options = {"resamples": resamples, "seed": seed}
    one, two = ((0.0, 1.0), (-1.0, 1.0)) if hits else (None, None)
    found: dict[str, tuple[Estimate, float]] = {
        "single": (estimate(a, world.groups, bounds=one, **options), truth(cell, False)),
        "paired": (
            difference(b, a, world.groups, bounds=two, **options),
            truth(cell, True) - truth(cell, False),
        ),
        "by_row": (estimate(a, np.arange(len(world.groups)), bounds=one, **options), truth(cell, False)),
    }
    return {name: (e.low <= wanted <= e.high, e.high - e.low) for name, (e, wanted) in found.items()}


def measure(cell: Cell, trials: int, resamples: int) -> dict[str, Any]:
    held: dict[str, list[tuple[bool, float]]] = {}
    for seed in range(trials):
        for name, result in trial(cell, seed, resamples).items():
            held.setdefault(name, []).append(result)
    row: dict[str, Any] = vars(cell).copy()
    for name, results in held.items():
        row[name] = round(float(np.mean([inside for inside, _ in results])), 3)
        row[f"{name}_width"] = round(float(np.mean([width for _, width in results])), 4)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Lowest, mean and highest coverage from FEW_GROUPS episodes on, and below."""
    found = {}
    for name, many in product(("single", "paired", "by_row"), (True, False)):
        values = [row[name] for row in rows if (row["episodes"] >= FEW_GROUPS) == many]
        key = f"{name}_{'from' if many else 'below'}_{FEW_GROUPS}_episodes"
        found[key] = {"lowest": min(values), "mean": round(float(np.mean(values)), 3), "highest": max(values)}
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    options = parser.parse_args()
    rows = [
        measure(Cell(*facts), options.trials, options.resamples)
        for facts in product(("hits", "errors"), (1, 3), CORRELATIONS, EPISODES)
    ]
    figures = {"trials": options.trials, "summary": summary(rows), "rows": rows}
    report("coverage", figures, options.save)


if __name__ == "__main__":
    main()
