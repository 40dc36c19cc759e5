"""Which epoch and head count, and what the seeds give together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lary_schema.jobs import ProbeJob
from lary_schema.results import EpochScore, RowCount, SeedScores, SplitScore
from numpy.typing import NDArray

from lary_probe.groups import Groups
from lary_probe.scoring import interval_of
from lary_probe.streams import Streams

EVALUATED = "evaluated/"
"""Prefix of the evaluated parts' names, so that no split can be called like the held-out part."""
HOLDOUT = "holdout"


@dataclass
class Track:
    """One seed's scores on one evaluated split, epoch by epoch, and the best epoch's predictions."""

    seed: int
    higher_is_better: bool
    scores: list[EpochScore] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    """Training score of the chosen head, per epoch."""
    best: EpochScore | None = None
    predicted: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    """(n,) class ids or (n, out) values of the best epoch."""
    per_optimiser: tuple[float, ...] = ()
    diverged: set[int] = field(default_factory=set)
    """Heads that were not finite in some epoch."""
    strength: float | None = None
    """Of a linear head."""

    def add(
        self, score: EpochScore, train: float, predicted: NDArray[Any], per_optimiser: tuple[float, ...] = ()
    ) -> bool:
        """Take the next epoch; whether it is the best so far.

        Held-out parts are small, so ties are common: the smaller loss decides, where the score has one, and then the
        later epoch.
        """
        self.scores.append(score)
        self.train.append(train)
        if self.best is not None and self._merit(score) < self._merit(self.best):
            return False
        self.best, self.predicted, self.per_optimiser = score, predicted, per_optimiser
        return True

    @property
    def chosen(self) -> EpochScore:
        """The best epoch's score; one epoch at least must have been added."""
        assert self.best is not None
        return self.best

    def seed_scores(self) -> SeedScores:
        return SeedScores(
            seed=self.seed,
            early=self.scores[0],
            best=self.chosen,
            last=self.scores[-1],
            per_optimiser=self.per_optimiser,
            diverged=tuple(sorted(self.diverged)),
            strength=self.strength,
        )

    def _merit(self, score: EpochScore) -> tuple[float, float]:
        return (score.selection if self.higher_is_better else -score.selection, -(score.loss or 0.0))


def selector_of(job: ProbeJob, split: str) -> str:
    """The part whose score chooses the epoch that is reported of a split.

    LARYBench's regression reports the unseen split at the epoch that was best on the first one.
    """
    if job.protocol.holds_out(job.kind):
        return HOLDOUT
    return EVALUATED + (job.evaluate[0].name if job.kind == "regress" else split)


def chosen_note(job: ProbeJob, tracks: Mapping[str, Track]) -> str:
    """What one seed's training chose on each evaluated split, and by which score."""
    notes = []
    for name, track in tracks.items():
        best, selector = track.chosen, selector_of(job, name)
        by = "itself" if selector == EVALUATED + name else selector.removeprefix(EVALUATED)
        head = "" if best.optimiser is None else f", {head_name(job, best.optimiser)},"
        notes.append(f"{name} {best.value:.4f} at epoch {best.epoch}{head} chosen by {by} ({best.selection:.4f})")
    return f"seed {next(iter(tracks.values())).seed}: {'; '.join(notes)}"


def head_name(job: ProbeJob, index: int) -> str:
    """A classifier by its optimiser."""
    lr, weight_decay = job.protocol.classify.optimisers[index]
    return f"head {index} (lr {lr:g}, weight decay {weight_decay:g})"


def split_score(
    job: ProbeJob,
    tracks: Sequence[Track],
    per_row: Sequence[NDArray[np.float64]],
    groups: Groups,
    rows: RowCount,
    floor: float,
    **details: Any,
) -> SplitScore:
    """Mean over seeds of the best epochs; `per_row` (n,) per seed averages to that seed's score."""
    values = [track.chosen.value for track in tracks]
    higher = tracks[0].higher_is_better
    seed = Streams(job.protocol.seeds[0], job.protocol.streams).bootstrap()
    interval = interval_of(per_row, groups, job.protocol.bootstrap, seed, (0.0, 1.0) if higher else None)
    return SplitScore(
        value=float(np.mean(values)),
        interval=interval,
        std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        seeds=tuple(track.seed_scores() for track in tracks),
        floor=floor,
        # NaN, where there is no interval, compares as False.
        beats_floor=interval.low > floor if higher else interval.high < floor,
        rows=rows,
        **details,
    )
