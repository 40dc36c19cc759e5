"""The published LARYBench tables (see `source` in published.json), shown next to ours."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.json")
PROTOCOL = VARIANT = "lary-v1"
"""What a result must be made with to be comparable."""
TASKS = {"top1": "classification", "mse": "regression"}
PERCENT = 100
NOT_SCORES = {"paradigm", "params_m"}
AVERAGE = "average"
PRINTED_DIGITS = 2
"""After the point, of percent and of MSE."""
PRINTED_STEP = {"top1": 0.0001, "mse": 0.01}
"""Last printed digit, in our units."""


@cache
def tables() -> Any:
    """The content of published.json."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def published(metric: str, model: str, dataset: str, source: Mapping[str, Any] | None = None) -> float | None:
    """The printed score in our units (top1 in 0..1, MSE), or None; `source` is another file of this format."""
    value = (tables() if source is None else source).get(TASKS[metric], {}).get(model, {}).get(dataset)
    return None if value is None else value / PERCENT if metric == "top1" else value


def published_scores(model: str) -> dict[str, float]:
    """Dataset -> score as printed (top-1 in percent, MSE), averages left out."""
    rows = [tables()[task].get(model, {}) for task in TASKS.values()]
    scores = {name: value for row in rows for name, value in row.items() if name not in NOT_SCORES}
    return {name: value for name, value in scores.items() if not name.startswith(AVERAGE)}
