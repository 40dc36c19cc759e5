"""Scores on the rows that all models of a column have: who fails on hard rows is not scored on easier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

from lary_schema.base import ContractError

from lary_results.row_scores import RowScores, read_row_scores
from lary_results.scores import Score


class CommonScore(NamedTuple):
    """A model's score on the common rows."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class CommonRows:
    """What one column of a board comes to on its common rows."""

    rows: int
    of: int
    """Rows of the CSV."""
    scores: dict[tuple[str, str], CommonScore] = field(default_factory=dict)
    """By line."""
    without: dict[tuple[str, str], str] = field(default_factory=dict)
    """Lines that cannot be compared on common rows, with why."""


def common_rows(scores: Sequence[Score]) -> CommonRows | None:
    """Of one column's scores that may be compared; None where all of them are of the same rows."""
    if len(scores) < 2 or not any(score.failed for score in scores):
        return None
    read: dict[tuple[str, str], RowScores] = {}
    without: dict[tuple[str, str], str] = {}
    for score in scores:
        try:
            read[score.line] = read_row_scores(score)
        except ContractError as error:
            without[score.line] = str(error)
    return _compared(scores, read, without)


def _compared(
    scores: Sequence[Score], read: dict[tuple[str, str], RowScores], without: dict[tuple[str, str], str]
) -> CommonRows | None:
    import numpy as np

    total = max(score.rows for score in scores)
    if len(read) < 2:
        return CommonRows(0, total, {}, without)
    common = reduce(np.intersect1d, (each.rows for each in read.values()))
    if not without and all(len(each.rows) == len(common) for each in read.values()):
        return None
    if not len(common):
        return CommonRows(0, total, {}, without | dict.fromkeys(read, "no row is common to all of the column"))
    metric = scores[0].metric
    made = {line: each.at(common).mean(metric) for line, each in read.items()}
    found = {line: CommonScore(e.value, e.low, e.high, len(common)) for line, e in made.items()}
    return CommonRows(len(common), total, found, without)
