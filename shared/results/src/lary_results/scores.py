"""Scores: one evaluated split of one result each, and what may be compared with what."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from lary_schema.results import ProbeResult, SplitScore, StoreTrace

from lary_results.comparing import differences
from lary_results.published import published

ARROWS = {"top1": "top-1 % ↑", "mse": "MSE ↓"}
Column = tuple[str, str, str, str]
"""Dataset, split, metric, and the probe where it is another than LARYBench's."""


@dataclass(frozen=True)
class Score:
    """One cell: a model's score on one evaluated split."""

    protocol: str
    model: str
    variant: str
    dataset: str
    split: str
    metric: str
    control: str
    value: float
    low: float
    high: float
    std: float | None
    """Over seeds."""
    seeds: int
    floor: float
    """What the most frequent class, or train's mean action, gets."""
    chance: float | None
    published: float | None
    """Printed score; only where it is comparable."""
    differences: tuple[str, ...]
    """Names of `comparing.REASONS`: what makes it not comparable with a published score."""
    probe: str
    """What differs from LARYBench's regression probe: `dit`, `relative`, both, or nothing."""
    train_rows: int
    """Rows that the probe was trained on."""
    rows: int
    failed: int
    """Evaluated rows without a latent."""
    train_failed: int
    metadata: tuple[str, ...]
    """sha256 of the CSVs behind it."""
    run: str
    file: str

    @property
    def column(self) -> Column:
        return self.dataset, self.split, self.metric, self.probe

    @property
    def beside(self) -> float | None:
        """The printed score, comparable or not."""
        return published(self.metric, self.model, self.dataset)

    @property
    def rank(self) -> float:
        """Lower is better, for either metric; a diverged score (NaN) is the worst."""
        return math.inf if math.isnan(self.value) else -self.value if self.metric == "top1" else self.value

    @property
    def line(self) -> tuple[str, str]:
        return self.model, self.variant

    @property
    def place(self) -> tuple[str, ...]:
        """Scores of the same place compete for one cell."""
        return (self.protocol, *self.line, *self.column, self.control)


def collect(results: Iterable[tuple[Path, ProbeResult]]) -> list[Score]:
    """All scores, in the order of the results."""
    return [_score(path, r, split, score) for path, r in results for split, score in r.splits.items()]


def _score(path: Path, result: ProbeResult, split: str, score: SplitScore) -> Score:
    against = differences(result, split)
    return Score(
        protocol=result.protocol,
        model=result.model,
        variant=result.variant,
        dataset=result.dataset,
        split=split,
        metric=result.metric,
        control=result.control,
        value=score.value,
        low=score.interval.low,
        high=score.interval.high,
        std=score.std,
        seeds=len(score.seeds),
        floor=score.floor,
        chance=score.chance,
        published=None if against else published(result.metric, result.model, result.dataset),
        differences=against,
        probe=", ".join(name for name in (result.head, result.target) if name not in (None, "mlp", "absolute")),
        train_rows=result.train_rows.used,
        rows=score.rows.used + score.rows.failed,
        failed=score.rows.failed,
        train_failed=result.train_rows.failed,
        metadata=tuple(s.metadata_sha256 for s in (*result.stores[:1], *_stores_of(result, split))),
        run=result.run,
        file=str(path),
    )


def title_of(column: Column) -> str:
    """A column's header, the metric's arrow included."""
    dataset, split, metric, probe = column
    return f"{dataset}/{split} {f'({probe}) ' if probe else ''}{ARROWS[metric]}"


def _stores_of(result: ProbeResult, split: str) -> list[StoreTrace]:
    return [store for store in result.stores[1:] if store.split == split]


def newest(scores: Iterable[Score]) -> list[Score]:
    """One score per cell: the first, which is the newest."""
    kept: dict[tuple[str, ...], Score] = {}
    for score in scores:
        kept.setdefault(score.place, score)
    return list(kept.values())


def number(metric: str, value: float) -> str:
    """top1 in percent, MSE as it is."""
    return f"{100 * value:.1f}" if metric == "top1" else f"{value:.3f}"


# --- for programs -----------------------------------------------------------------------------


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Every score of `newest`, also those of controls, sorted by what they are of."""
    return [asdict(score) for score in sorted(newest(scores), key=lambda score: score.place)]


def as_csv(scores: Sequence[Score]) -> str:
    """The same, one line each; what a cell holds several of is joined by semicolons."""
    text = StringIO()
    writer = csv.DictWriter(text, [*Score.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    for row in as_json(scores):
        lists = {name: "; ".join(row[name]) for name in ("metadata", "differences")}
        writer.writerow(row | lists)
    return text.getvalue()
