"""Is A better than B? Differences on the rows that both have, groups and seeds drawn for both at once."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lary_schema.base import ContractError
from lary_schema.intervals import FEW_GROUPS
from lary_schema.printable import finite
from lary_terminal.tables import Table

from lary_results.board import Board
from lary_results.export import REASON
from lary_results.row_scores import RowScores, paired, read_row_scores
from lary_results.scores import Column, Score, column_name, is_nuisance, number

METHOD = (
    "a - b on the rows that both have. [ , ] is its 95 % interval, paired by row, groups drawn for both at once; with "
    "several seeds it holds their spread too."
)
UNCLEAR = "no clear difference"
ONE_GROUP = "one group: no interval"
HEADER = ("difference", "95 % interval", "", "rows", "drawn")


@dataclass(frozen=True)
class Difference:
    """a - b of one column, in the metric's unit; or why there is none."""

    a: Score
    b: Score
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    rows: int = 0
    groups: int = 0
    grouped: bool = False
    """Whether groups of the dataset were drawn; otherwise rows were taken as independent."""
    reason: str | None = None
    """Why there is no difference; the numbers then mean nothing."""

    @property
    def verdict(self) -> str:
        if math.isnan(self.low):
            return ONE_GROUP
        if not (self.low > 0 or self.high < 0):
            return UNCLEAR
        better = "a" if (self.value > 0) == (self.a.metric == "top1") else "b"
        return f"{better} shows more of it" if is_nuisance(self.a.column) else f"{better} is better"

    @property
    def drawn(self) -> str:
        few = f", fewer than {FEW_GROUPS}: the interval may be too narrow" if self.groups < FEW_GROUPS else ""
        return f"{f'{self.groups} groups' if self.grouped else 'rows taken as independent'}{few}"


def compare_rows(a: Score, b: Score, a_rows: RowScores | None = None) -> Difference:
    """The difference of two scores of one column; `a_rows` where those of `a` are read already."""
    if a.metadata != b.metadata:
        return Difference(a, b, reason="they are of other CSVs, so their rows are not the same")
    try:
        both = a_rows or _rows_of(a), _rows_of(b)
        (value, low, high, groups), rows, grouped = paired(*both, a.metric, a.targets == b.targets)
    except ContractError as error:
        return Difference(a, b, reason=str(error))
    return Difference(a, b, value, low, high, rows, groups, grouped)


def _rows_of(score: Score) -> RowScores:
    try:
        return read_row_scores(score)
    except ContractError as error:
        raise ContractError(f"{score.model}: {error}") from None


def pairs(boards: Sequence[Board], a: str, b: str) -> list[tuple[Board, Difference]]:
    """Every column of every board that has both.

    `a` and `b` are models, or `MODEL/VARIANT`, the variant as the table prints it (with settings). Models of several
    variants are paired variant by variant. Raises ContractError where nothing is to be paired.
    """
    found = [(board, compare_rows(*both)) for board in boards for both in _pairs(board, a, b)]
    if not found:
        there = sorted({"/".join(s.line) for board in boards for c in board.columns for s in _candidates(board, c)})
        raise ContractError(
            f"no cell of one table has both {a} and {b}; there are {', '.join(there) or 'no scores'}. Name models, or "
            "MODEL/VARIANT where the variants differ"
        )
    return found


def _candidates(board: Board, column: Column) -> list[Score]:
    """Models that are baselines too."""
    return [score for score in board.of_column[column] if score.control == "none"]


def _pairs(board: Board, a: str, b: str) -> Iterator[tuple[Score, Score]]:
    for column in board.columns:
        scores = _candidates(board, column)
        ones, twos = ([score for score in scores if _is(score, name)] for name in (a, b))
        both = [(one, two) for one in ones for two in twos if one is not two]
        alike = [(one, two) for one, two in both if one.line[1] == two.line[1]]
        yield from alike or both


def _is(score: Score, name: str) -> bool:
    return name in (score.model, "/".join(score.line))


def against_best(board: Board) -> list[Difference]:
    """Every model that is compared against the best one of its column; the best are `a`."""
    made = []
    for column in board.columns:
        best = board.best(column)
        if best is None:
            continue
        others = [s for s in _candidates(board, column) if s is not best and not board.is_refused(s)]
        ranked = sorted(others, key=lambda s: (board.rank(s), s.line))
        # Read once, and not for each of them; what is wrong with it is said by each.
        rows = None
        with suppress(ContractError):
            rows = read_row_scores(best) if ranked else None
        made += [compare_rows(best, other, rows) for other in ranked]
    return made


# --- for people and programs ------------------------------------------------------------------


def paired_table(found: Sequence[tuple[Board, Difference]], a: str, b: str) -> Table:
    several = len({board.key for board, _ in found}) > 1
    notes = [METHOD, *_reasons(found)]
    return Table(
        title=f"a: {a}, b: {b}",
        columns=("protocol", "column", "a", "b", *HEADER),
        rows=[
            (
                board.key if several else board.protocol,
                column_name(made.a.column) + _variants(made),
                number(made.a.metric, made.a.value),
                number(made.a.metric, made.b.value),
                *numbers(made),
            )
            for board, made in found
        ],
        right=frozenset({2, 3, 4, 5, 7}),
        notes=tuple(notes),
    )


def _variants(made: Difference) -> str:
    one, two = made.a.line[1], made.b.line[1]
    return f" {one}" if one == two else f" {one} - {two}"


def numbers(made: Difference) -> tuple[str, ...]:
    """Cells under `HEADER`; top-1 in percentage points."""
    if made.reason is not None:
        return "-", "-", "not compared", "-", "-"
    metric = made.a.metric
    value, low, high = (_signed(metric, x) for x in (made.value, made.low, made.high))
    interval = "no interval" if math.isnan(made.low) else f"[{low}, {high}]"
    return value, interval, made.verdict, str(made.rows), made.drawn


def _signed(metric: str, value: float) -> str:
    return ("+" if value > 0 else "") + number(metric, value)


def _reasons(found: Sequence[tuple[Board, Difference]]) -> list[str]:
    texts = [
        f"not compared: {made.a.named} and {made.b.line[0]} ({made.b.line[1]}): {made.reason}"
        for _, made in found
        if made.reason is not None
    ]
    return list(dict.fromkeys(texts))


def paired_json(found: Sequence[tuple[Board, Difference]]) -> list[dict[str, Any]]:
    """Units of the metric: top-1 as a share. Numbers are null where `reason` says why."""
    return [_entry(board, made) for board, made in found]


def _entry(board: Board, made: Difference) -> dict[str, Any]:
    compared = made.reason is None
    numbers = {
        "a_value": made.a.value,
        "b_value": made.b.value,
        "difference": made.value if compared else None,
        "low": made.low if compared else None,
        "high": made.high if compared else None,
        "excludes_zero": (made.low > 0 or made.high < 0) if compared and not math.isnan(made.low) else None,
        "rows": made.rows if compared else None,
        "groups": made.groups if compared and made.grouped else None,
    }
    dataset, split, metric, probe = made.a.column
    column = {"protocol": board.protocol, "dataset": dataset, "split": split, "metric": metric, "probe": probe}
    names = {"a": "/".join(made.a.line), "b": "/".join(made.b.line), "recipe_sha256": made.a.recipe_sha256}
    entry: dict[str, Any] = finite(column | names | numbers | {"verdict": made.verdict if compared else None})
    no_interval = compared and math.isnan(made.low)
    return entry | {"reason": made.reason, REASON: f"{ONE_GROUP} can be given" if no_interval else made.reason}
