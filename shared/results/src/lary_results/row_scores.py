"""Scores of single rows, `row_scores_SPLIT.npz` in a result's folder: what comparisons on equal rows are made of.

numpy is imported where a file is read: tables that compare nothing start without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lary_schema.base import ContractError
from lary_schema.damage import DAMAGED_ARCHIVE
from lary_schema.intervals import Estimate, difference, estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lary_results.scores import Score

RESAMPLES = 2000
DRAWS = 40_000_000
"""Bounds the time of an interval over many groups: about a second. Never fewer resamples than `LEAST`."""
LEAST = 400
SEED = 0
"""Of the bootstrap: the same results give the same interval."""
AGREES = 1e-4
"""Relative: how far the mean of a file's scores may be from the result's value (sums in another order)."""


@dataclass(frozen=True)
class RowScores:
    """One score's rows: hits (0 or 1), or squared errors."""

    rows: NDArray[np.int64]
    """(n,) numbers in the CSV, each once, rising."""
    groups: NDArray[np.int64]
    """(n,) codes, equal within a group."""
    names: NDArray[np.str_]
    """By code; empty where rows are taken as independent."""
    scores: NDArray[np.float64]
    """(seeds, n)"""
    targets: NDArray[np.uint64] | None = None
    """(n,) hashes of the rows' labels or actions; None: made by a probe that did not say."""
    train_target: int | None = None
    """Hash of those of train's whole CSV."""

    @property
    def grouped(self) -> bool:
        return self.names.size > 0

    def at(self, rows: NDArray[np.int64]) -> RowScores:
        """Those of `rows`, which have to be among its own."""
        import numpy as np

        found = np.searchsorted(self.rows, rows)
        targets = None if self.targets is None else self.targets[found]
        return RowScores(rows, self.groups[found], self.names, self.scores[:, found], targets, self.train_target)

    def group_names(self) -> list[str]:
        """(n,) each row's."""
        return [str(name) for name in self.names[self.groups]]

    def mean(self, metric: str) -> Estimate:
        """Mean over seeds and rows, with its interval."""
        bounds = (0.0, 1.0) if metric == "top1" else None
        return estimate(self.scores, self.groups, resamples=resamples(self.groups), seed=SEED, bounds=bounds)


def resamples(groups: NDArray[np.int64]) -> int:
    import numpy as np

    return max(LEAST, min(RESAMPLES, DRAWS // max(1, len(np.unique(groups)))))


def read_row_scores(score: Score) -> RowScores:
    """Raises ContractError saying why there are none: made by an older probe, damaged, of another result."""
    path = Path(score.file).parent / f"row_scores_{score.split}.npz"
    if not path.is_file():
        raise ContractError("no scores of single rows: made by an older probe, so run it again")
    if not math.isfinite(score.value):
        raise ContractError("its score is no finite number: the probe diverged")
    found = _checked(path, read_arrays(path, _NEEDED, _TARGETS))
    mean = float(found.scores.mean())
    if not abs(mean - score.value) <= AGREES * max(1.0, abs(score.value)):
        raise ContractError(f"{path}: its mean is {mean:.6g}, and the result's {score.value:.6g}: of another result")
    if len(found.rows) != score.rows - score.failed:
        raise ContractError(f"{path}: {len(found.rows)} rows, and the result has {score.rows - score.failed}")
    return found


_NEEDED = ("row", "group", "group_names", "score")
_TARGETS = ("target", "train_target")


def read_arrays(path: Path, needed: Sequence[str], others: Sequence[str] | None = None) -> dict[str, Any]:
    """The `needed` arrays of an .npz file and those of `others` (None: all) that it has. Raises ContractError."""
    import numpy as np

    try:
        # numpy leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            further = file.files if others is None else [name for name in others if name in file]
            return {name: file[name] for name in dict.fromkeys((*needed, *further))}
    except (OSError, KeyError, *DAMAGED_ARCHIVE) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from None


def _checked(path: Path, arrays: dict[str, Any]) -> RowScores:
    found = row_scores(path, *(arrays[name] for name in _NEEDED))
    targets, train_target = _hashes(path, arrays)
    return replace(found, targets=targets, train_target=train_target)


def row_scores(path: Path, rows: Any, groups: Any, names: Any, scores: Any) -> RowScores:
    """Of arrays that a file `path` holds. Raises ContractError where they are no rows, groups and finite scores."""
    import numpy as np

    well = (
        rows.ndim == groups.ndim == names.ndim == 1
        and scores.ndim == 2
        and len(rows) == len(groups) == scores.shape[1] > 0
        and len(scores) > 0
        and rows.dtype.kind == groups.dtype.kind == "i"
        and scores.dtype.kind == "f"
        and names.dtype.kind == "U"
        and bool((np.diff(rows) > 0).all())
        and (names.size == 0 or (groups.min() >= 0 and groups.max() < names.size))
        and math.isfinite(float(scores.sum()))
    )
    if not well:
        raise ContractError(f"{path}: {_UNFIT}")
    return RowScores(rows, groups, names, scores)


_UNFIT = "no scores of rows as a probe writes them, or a training"


def _hashes(path: Path, arrays: dict[str, Any]) -> tuple[NDArray[np.uint64] | None, int | None]:
    """Both of them, or none: older probes wrote none."""
    if not any(name in arrays for name in _TARGETS):
        return None, None
    found = [arrays.get(name) for name in _TARGETS]
    shapes = [arrays["row"].shape, (1,)]
    if any(h is None or h.dtype.kind != "u" or h.shape != shape for h, shape in zip(found, shapes, strict=True)):
        raise ContractError(f"{path}: {_UNFIT}")
    return arrays["target"], int(arrays["train_target"][0])


class Paired(NamedTuple):
    """Mean of a - b on the rows that both have."""

    difference: Estimate
    rows: int
    grouped: bool
    """Whether groups of the dataset were drawn; otherwise rows were taken as independent."""


def paired(a: RowScores, b: RowScores, metric: str, same_targets: bool = True) -> Paired:
    """`same_targets` is what the results say; where both files hold hashes of the targets, those of common rows count.

    Raises ContractError where no row is common, targets differ, or both name groups and differ in them.
    """
    import numpy as np

    rows = np.intersect1d(a.rows, b.rows, assume_unique=True)
    if not len(rows):
        raise ContractError("they have no row in common")
    a, b = a.at(rows), b.at(rows)
    _check_targets(a, b, same_targets)
    if a.grouped and b.grouped and a.group_names() != b.group_names():
        raise ContractError("their groups differ: the dataset card's group: changed between them")
    # A set whose card got its groups later: they hold for the result before, too, since the rows are the same.
    groups = a.groups if a.grouped else b.groups
    bounds = (-1.0, 1.0) if metric == "top1" else None
    made = difference(a.scores, b.scores, groups, resamples=resamples(groups), seed=SEED, bounds=bounds)
    return Paired(made, len(rows), a.grouped or b.grouped)


def _check_targets(a: RowScores, b: RowScores, same: bool) -> None:
    """Of the same rows. Models that failed on different rows have results of different targets, and equal rows."""
    if a.targets is None or b.targets is None:
        if not same:
            raise ContractError("their labels or actions differ under the same CSV")
        return
    if a.train_target != b.train_target:
        raise ContractError("the labels or actions that they were trained on differ under the same CSV")
    different = a.rows[a.targets != b.targets]
    if len(different):
        raise ContractError(
            f"their labels or actions differ under the same CSV in {len(different)} rows (first: row {different[0]})"
        )
