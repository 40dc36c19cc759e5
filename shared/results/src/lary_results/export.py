"""Scores for programs: strict JSON values, and CSV."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from lary_schema.printable import finite, printable

from lary_results.board import MAX_FAILED, boards
from lary_results.common_rows import CommonScore
from lary_results.scores import Score, newest

NUMBERS = ("value", "low", "high", "std", "floor", "chance")
COMMON = ("common_value", "common_low", "common_high", "common_rows")
REASON = "null_because"
"""Says why a number is null although there should be one."""


def as_json(scores: Sequence[Score], max_failed: float = MAX_FAILED) -> list[dict[str, Any]]:
    """Every score of `newest`, also those of controls, sorted by what they are of. Valid JSON: no NaN."""
    shown = boards(scores, max_failed=max_failed)
    common = {score.cell: found for board in shown for score, found in board.on_common}
    refused = {score.cell for board in shown for score in board.refused}
    kept = sorted(newest(scores), key=lambda score: score.cell)
    return [_entry(score, common.get(score.cell), refused=score.cell in refused) for score in kept]


def _entry(score: Score, common: CommonScore | None, *, refused: bool) -> dict[str, Any]:
    on_common = dict.fromkeys(COMMON) if common is None else dict(zip(COMMON, common, strict=True))
    reasons = [text for name, text in _reasons(score) if not math.isfinite(getattr(score, name) or 0.0)]
    if common is not None and math.isnan(common.low):
        reasons.append("the common rows are of one group: no interval can be given")
    more = {"recipe_sha256": score.recipe_sha256, "refused": refused, REASON: "; ".join(dict.fromkeys(reasons)) or None}
    entry: dict[str, Any] = finite(asdict(score) | on_common | more)
    return entry


def _reasons(score: Score) -> list[tuple[str, str]]:
    no_interval = score.note or "no interval can be given"
    diverged = "the score is no finite number: the probe diverged"
    return [(name, no_interval if name in ("low", "high") else diverged) for name in NUMBERS]


def as_csv(scores: Sequence[Score], max_failed: float = MAX_FAILED) -> str:
    """The same, one line each; what a cell holds several of is joined by semicolons or compact JSON."""
    text = StringIO()
    entries = as_json(scores, max_failed)
    names = [*Score.__dataclass_fields__, *COMMON, "recipe_sha256", "refused", REASON]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in entries)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return printable("; ".join(map(str, value)))
    if isinstance(value, dict):
        return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True))
    return printable(value) if isinstance(value, str) else value
