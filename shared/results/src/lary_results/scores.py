"""Scores: one evaluated split of one result each, and which of them compete for one cell."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lary_schema.base import fingerprint
from lary_schema.results import ProbeResult, SplitScore, StoreTrace

from lary_results.comparing import differences
from lary_results.files import imported_from
from lary_results.published import PRINTED_DIGITS, published

ARROWS = {"top1": "top-1 % ↑", "mse": "MSE ↓"}
Column = tuple[str, str, str, str]
"""Dataset, split, metric, and the probe where it is another than LARYBench's."""
Recipe = dict[str, Any]
USUAL: Recipe = {"decoder": "pyav", "precision": "fp32", "dtype": "float16", "seed": 0}
"""Settings of `lary-orch run` that a line of the table does not name."""
NUISANCE = "nuisance"
"""What `ProbeResult.reads` says of probes that predict no actions."""
NO_NUMBER = "nan"
"""What stands for a number that is none: NaN, or no interval."""


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
    """The baseline: what the most frequent class, or train's mean action, gets."""
    chance: float | None
    published: float | None
    """Printed score; only where it is comparable."""
    differences: tuple[str, ...]
    """Names of `comparing.REASONS`: what makes it not comparable with a published score."""
    probe: str
    """What differs from LARYBench's regression probe: `dit`, `linear`, `relative`, `nuisance`, several, or nothing."""
    input: str | None
    """What a row is, `video` or `image` (a pair); None where the result does not say."""
    head: str | None
    """Regression: the network. Results that did not say have MLPs."""
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
    measures: str
    """`score`; of a control `chance`, or `overfitting`, which is no baseline."""
    learned: bool | None
    """False: the training score never left chance; None where the result does not say."""
    beats_floor: bool
    """Whether the whole interval is better than `floor`."""
    unit: str
    """What the interval draws: groups or rows."""
    groups: int | None
    """How many of them; None: made before results said so."""
    group: str | None
    """What makes a group; None: rows were taken as independent."""
    nested: bool
    """Whether the interval holds the seeds' spread too."""
    note: str | None
    """What a reader has to know of the interval."""
    targets: str | None
    """sha256 of labels or actions."""
    recipe: Recipe | None
    """What the protocol stood for; None where the result does not say."""
    settings: Recipe | None
    """How latents were made, see `USUAL`; None where the result does not say."""
    mixed: tuple[str, ...]
    """What the environments that made its latents differ in."""
    imported: str | None
    """Name of the file of somebody else's results that it comes from."""
    probe_seeds: tuple[int, ...]
    seed_values: tuple[float, ...]
    """The score of each."""
    fingerprint: str
    """Of the probe."""
    latents: tuple[str, ...]
    """Fingerprints of the stores, train first."""

    @property
    def column(self) -> Column:
        return self.dataset, self.split, self.metric, self.probe

    @property
    def printed(self) -> float | None:
        """The published score, comparable or not."""
        return published(self.metric, self.model, self.dataset)

    @property
    def rank(self) -> float:
        return rank(self.metric, self.value)

    @cached_property
    def line(self) -> tuple[str, str]:
        """Model and variant, the latter with the settings that are not the usual ones."""
        return self.model, ", ".join([self.variant, *unusual(self.settings)])

    @cached_property
    def recipe_sha256(self) -> str | None:
        return None if self.recipe is None else fingerprint(self.recipe)

    @property
    def identity(self) -> tuple[str, ...]:
        """What `--against` and people know a cell by. The recipe is not in it: see `cell`."""
        return self.protocol, self.model, self.variant, *self.column, self.control

    @cached_property
    def cell(self) -> tuple[str, ...]:
        """Scores of the same cell replace each other: same identity, recipe and settings."""
        return *self.identity, self.recipe_sha256 or "", *self.line

    @property
    def failed_share(self) -> float:
        """The larger of the two: of train, and of the evaluated rows."""
        train = self.train_rows + self.train_failed
        return max(self.failed / self.rows if self.rows else 0.0, self.train_failed / train if train else 0.0)

    @property
    def named(self) -> str:
        return f"{self.line[0]} ({self.line[1]}) on {column_name(self.column)}"


def unusual(settings: Recipe | None) -> list[str]:
    """Settings that are not the usual ones: `bf16`, `seed 3`. A model that draws nothing has no seed."""
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    different = {name: value for name, value in given.items() if value != USUAL.get(name)}
    return [f"seed {value}" if name == "seed" else str(value) for name, value in different.items()]


def collect(results: Iterable[tuple[Path, ProbeResult]]) -> list[Score]:
    """All scores, in the order of the results."""
    return [_score(path, r, split, score) for path, r in results for split, score in r.splits.items()]


def _score(path: Path, result: ProbeResult, split: str, score: SplitScore) -> Score:
    against = differences(result, split)
    stores = (*result.stores[:1], *_stores_of(result, split))
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
        probe=", ".join(_unusual_probe(result)),
        input=result.input,
        head=result.head or ("mlp" if result.kind == "regress" else None),
        train_rows=result.train_rows.used,
        rows=score.rows.used + score.rows.failed,
        failed=score.rows.failed,
        train_failed=result.train_rows.failed,
        run=result.run,
        file=str(path),
        measures=_measures(result),
        learned=result.learned,
        beats_floor=_beats_floor(result.metric, score),
        unit=score.interval.unit,
        groups=score.interval.groups,
        group=result.group,
        nested=score.interval.seeds,
        note=score.interval.note,
        probe_seeds=tuple(seed.seed for seed in score.seeds),
        seed_values=tuple(seed.best.value for seed in score.seeds),
        imported=imported_from(path),
        **_origin(result, stores),
    )


def _origin(result: ProbeResult, stores: Sequence[StoreTrace]) -> dict[str, Any]:
    """What the score was made from."""
    settings = stores[0].settings if stores else None
    return {
        "metadata": tuple(store.metadata_sha256 for store in stores),
        "targets": result.targets_sha256,
        "recipe": result.recipe,
        "settings": None if settings is None else settings.model_dump(mode="json"),
        "mixed": tuple(dict.fromkeys(text for store in stores for text in store.mixed)),
        "fingerprint": result.fingerprint,
        "latents": tuple(store.fingerprint for store in stores),
    }


def _unusual_probe(result: ProbeResult) -> list[str]:
    usual = (None, "mlp", "absolute", "actions")
    return [name for name in (result.head, result.target, result.reads) if name not in usual]


def _measures(result: ProbeResult) -> str:
    """Results that did not say count as what their control makes of them."""
    if result.control == "none" or result.measures != "score":
        return result.measures
    return "chance" if result.metric == "top1" else "overfitting"


def _beats_floor(metric: str, score: SplitScore) -> bool:
    """By the interval, where the result does not say. False where there is none."""
    if score.beats_floor is not None:
        return score.beats_floor
    return score.interval.low > score.floor if metric == "top1" else score.interval.high < score.floor


def column_name(column: Column) -> str:
    dataset, split, _, probe = column
    return f"{dataset}/{split}" + (f" ({probe})" if probe else "")


def is_nuisance(column: Column) -> bool:
    """Whether a column is of a dataset's nuisance, where a low error is no merit."""
    return NUISANCE in column[3].split(", ")


def title_of(column: Column) -> str:
    """A column's header, the metric's arrow included."""
    return f"{column_name(column)} {ARROWS[column[2]]}"


def _stores_of(result: ProbeResult, split: str) -> list[StoreTrace]:
    return [store for store in result.stores[1:] if store.split == split]


def newest(scores: Iterable[Score]) -> list[Score]:
    """One score per cell: the first, which is the newest. What was made here goes before what was imported."""
    kept: dict[tuple[str, ...], Score] = {}
    for score in sorted(scores, key=lambda score: score.imported is not None):
        kept.setdefault(score.cell, score)
    return list(kept.values())


def rank(metric: str, value: float) -> float:
    """Lower is better, for either metric; a diverged score (NaN) is the worst."""
    return math.inf if math.isnan(value) else -value if metric == "top1" else value


def number(metric: str, value: float) -> str:
    """top1 in percent, MSE as it is."""
    if not math.isfinite(value):
        return NO_NUMBER
    return f"{100 * value:.1f}" if metric == "top1" else f"{value:.3f}"


def interval_text(metric: str, low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return "[no interval]"
    return f"[{number(metric, low)}, {number(metric, high)}]"


def printed_number(metric: str, value: float) -> str:
    """A published score, with the digits that the paper prints."""
    return f"{100 * value if metric == 'top1' else value:.{PRINTED_DIGITS}f}"
