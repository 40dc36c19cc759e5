"""The published LARYBench tables (see `source` in published.json), to stand beside ours."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.json")
PROTOCOL = VARIANT = "lary-v1"
"""What a result must be made with to be comparable."""
TASKS = {"top1": "classification", "mse": "regression"}
PERCENT = 100
NOT_SCORES = {"paradigm", "params_m"}


@cache
def _tables() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def published(metric: str, model: str, dataset: str) -> float | None:
    """The printed score in our units (top1 in 0..1, MSE), or None."""
    value = _tables()[TASKS[metric]].get(model, {}).get(dataset)
    return None if value is None else value / PERCENT if metric == "top1" else value


def published_scores(model: str) -> dict[str, float]:
    """Dataset -> score as printed (top-1 in percent, MSE), averages left out."""
    rows = [_tables()[task].get(model, {}) for task in TASKS.values()]
    scores = {name: value for row in rows for name, value in row.items() if name not in NOT_SCORES}
    return {name: value for name, value in scores.items() if not name.startswith("average")}
