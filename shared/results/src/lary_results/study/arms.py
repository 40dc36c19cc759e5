"""The arms of a study: R2 with intervals, held-out measures of training, and differences paired by row and seed.

Episodes (the dataset's groups) are drawn within seeds, then seeds count as drawn too (`lary_schema.intervals`). An R2
is 1 - MSE / variance of the target, whose variance is the same for all models on the same rows, so that intervals of
MSE become those of R2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from lary_schema.base import ContractError
from lary_schema.intervals import Estimate, estimate
from lary_schema.results import ProbeResult
from lary_schema.trained import Checkpoint
from lary_schema.training import TrainResult

from lary_results.files import import_name
from lary_results.row_scores import SEED, RowScores, read_row_scores, resamples
from lary_results.scores import collect
from lary_results.study.held_out import HeldOut, read_held_out
from lary_results.study.record import TRAINED, StudyEntry, StudyRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TARGETS = ("actions", "nuisance")
"""What latents are read for: a high R2 of the second is no merit."""

ProbeKey = tuple[str, str, str, str]
"""Model, variant, split, target."""


@dataclass(frozen=True)
class Probed:
    """One model read for one target on one split."""

    rows: RowScores
    """Squared errors, of all seeds of the probe."""
    r2: float
    variance: float
    """Of the target on the split; NaN where it cannot be told."""


@dataclass(frozen=True)
class Reading:
    """An arm read for one target, in one variant, on one split."""

    arm: str
    variant: str
    split: str
    target: str
    by_seed: dict[int | None, Probed]

    @property
    def values(self) -> list[float]:
        """R2 of each seed."""
        return [probed.r2 for probed in self.by_seed.values()]


@dataclass(frozen=True)
class Study:
    """A study and what is there of it."""

    record: StudyRecord
    readings: tuple[Reading, ...] = ()
    trainings: Mapping[str, TrainResult] = field(default_factory=dict)
    """By model key."""
    unreadable: tuple[str, ...] = ()
    errors: tuple[HeldOut, ...] = ()
    """Of single held-out rows, as trainings left them."""
    home: Path = Path()
    """The workspace, or the folder of the import, that holds its record and its trainings."""

    @property
    def name(self) -> str:
        """Its key, and where it is from if it was not made here."""
        file = import_name(self.home)
        return self.record.key if file is None else f"{self.record.key} (imported from {file})"

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(reading.split for reading in self.readings))

    def reading(self, arm: str, split: str, target: str, variant: str | None = None) -> Reading | None:
        """Of the variant, or of the arm's first one."""
        found = [r for r in self.readings if (r.arm, r.split, r.target) == (arm, split, target)]
        chosen = [r for r in found if variant in (None, r.variant)]
        return chosen[0] if chosen else None

    def variants(self, arm: str, split: str) -> list[str]:
        """How an arm was read there."""
        return list(dict.fromkeys(r.variant for r in self.readings if (r.arm, r.split) == (arm, split)))

    def results(self, arm: str) -> list[TrainResult]:
        """Finished trainings of an arm, by seed."""
        return [self.trainings[e.model] for e in self.record.of(arm) if e.model in self.trainings]


def read_study(record: StudyRecord, found: Sequence[tuple[Path, ProbeResult]], home: Path) -> Study:
    """What there is of a study. Of several of `found`, which are results, the first counts; `home`: see `Study`."""
    trained = home / TRAINED
    broken: list[str] = []
    probed = _probed(record, found, broken)
    trainings: dict[str, TrainResult] = {}
    for entry in record.entries:
        if entry.trained and (checkpoint := Checkpoint.of(trained, entry.model)).is_whole:
            try:
                trainings[entry.model] = checkpoint.result
            except ContractError as error:
                broken.append(str(error))
    errors = read_held_out(record, trainings, trained, broken)
    return Study(record, tuple(_readings(record, probed)), trainings, tuple(dict.fromkeys(broken)), errors, home)


def _probed(
    record: StudyRecord, found: Sequence[tuple[Path, ProbeResult]], broken: list[str]
) -> dict[ProbeKey, Probed]:
    models = {entry.model for entry in record.entries}
    made: dict[ProbeKey, Probed] = {}
    for path, result in found:
        wanted = result.model in models and result.dataset == record.dataset and result.protocol == record.protocol
        if not wanted or result.target != record.target or result.control != "none" or result.metric != "mse":
            continue
        for score in collect([(path, result)]):
            key = (result.model, result.variant, score.split, result.reads)
            if key in made:
                continue
            try:
                made[key] = _one(result, score.split, read_row_scores(score))
            except ContractError as error:
                broken.append(f"{path}: {error}")
    return made


def _one(result: ProbeResult, split: str, rows: RowScores) -> Probed:
    score = result.splits[split]
    r2s = [seed.best.r2 for seed in score.seeds if seed.best.r2 is not None]
    r2 = sum(r2s) / len(r2s) if r2s else math.nan
    return Probed(rows, r2, score.value / (1 - r2) if r2 < 1 else math.nan)


def _readings(record: StudyRecord, probed: Mapping[ProbeKey, Probed]) -> Iterator[Reading]:
    for name in (*record.arms, *record.baselines):
        entries = record.of(name)
        keys = dict.fromkeys(
            (variant, split, target)
            for entry in entries
            for model, variant, split, target in probed
            if model == entry.model
        )
        order = {variant: at for at, variant in enumerate(record.variants)}
        for variant, split, target in sorted(keys, key=lambda p: (order.get(p[0], len(order)), *p)):
            by_seed = _by_seed(entries, probed, (variant, split, target))
            yield Reading(name, variant, split, target, by_seed)


def _by_seed(
    entries: Sequence[StudyEntry], probed: Mapping[ProbeKey, Probed], key: tuple[str, str, str]
) -> dict[int | None, Probed]:
    found = {entry.seed: probed.get((entry.model, *key)) for entry in entries}
    return {seed: one for seed, one in found.items() if one is not None}


# --- intervals --------------------------------------------------------------------------------


def r2_interval(reading: Reading) -> Estimate:
    """The mean over seeds and its interval."""
    rows, scores = _stacked([[probed] for probed in reading.by_seed.values()])
    return _as_r2(rows, scores[0], reading, level=1.0)


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b in R2, on the rows and seeds that both have."""

    a: str
    b: str
    target: str
    split: str
    variant: str
    interval: Estimate
    seeds: int
    by_seed: tuple[float, ...]


def difference(a: Reading, b: Reading) -> Difference:
    """Paired by row and by seed; an arm that is the same for every seed is compared with each.

    Raises ContractError where they have no seed, or no row, in common.
    """
    common = [seed for seed in a.by_seed if seed in b.by_seed]
    single = None in a.by_seed or None in b.by_seed
    pairs = (
        [(one, two) for one in a.by_seed.values() for two in b.by_seed.values()]
        if single
        else [(a.by_seed[seed], b.by_seed[seed]) for seed in common]
    )
    if not pairs:
        raise ContractError(f"{a.arm} and {b.arm} have no seed in common")
    rows, (of_a, of_b) = _stacked([[one for one, _ in pairs], [two for _, two in pairs]], across=True)
    interval = _as_r2(rows, of_a - of_b, a, level=0.0)
    variance = _variance(a)
    by_seed = tuple(float(value) for value in -(of_a - of_b).mean(axis=1) / variance)
    return Difference(a.arm, b.arm, a.target, a.split, a.variant, interval, len(pairs), by_seed)


def _stacked(parts: Sequence[Sequence[Probed]], *, across: bool = False) -> tuple[RowScores, list[NDArray[np.float64]]]:
    """(pairs, n) errors on the rows that all have; one array for all parts, or (`across`) one for each."""
    import numpy as np

    flat = [probed for part in parts for probed in part]
    common = reduce(np.intersect1d, (probed.rows.rows for probed in flat))
    if not len(common):
        raise ContractError("they have no row in common")
    at = [[probed.rows.at(common) for probed in part] for part in parts]
    means = [np.stack([rows.scores.mean(axis=0) for rows in part]) for part in at]
    return at[0][0], means if across else [np.concatenate(means)]


def _variance(reading: Reading) -> float:
    known = [probed.variance for probed in reading.by_seed.values() if math.isfinite(probed.variance)]
    return sum(known) / len(known) if known else math.nan


def _as_r2(rows: RowScores, errors: NDArray[np.float64], reading: Reading, level: float) -> Estimate:
    made = estimate(errors, rows.groups, resamples=resamples(rows.groups), seed=SEED)
    variance = _variance(reading)
    value, low, high = (level - number / variance for number in (made.value, made.high, made.low))
    return Estimate(value, low, high, made.groups)
