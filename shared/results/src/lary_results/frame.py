"""Scores as a tidy pandas DataFrame: `lary_results.frame.frame("workspace")`. Needs `lary-results[pandas]`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError

from lary_results.export import as_json
from lary_results.files import read_results
from lary_results.scores import Score, collect, newest

if TYPE_CHECKING:
    from pandas import DataFrame

TEXT = ("model", "variant", "dataset", "split", "protocol", "metric", "control", "measures", "probe", "head", "input")
NUMBERS = ("value", "low", "high", "std", "floor", "chance", "published", "common_value", "common_low", "common_high")
COUNTS = ("seed", "seeds", "rows", "failed", "train_rows", "train_failed", "groups", "common_rows")
MARKS = ("beats_floor", "learned", "refused", "nested")
ORIGIN = ("unit", "group", "note", "run", "imported", "file", "fingerprint", "recipe_sha256", "targets")
LISTS = ("latents", "metadata", "mixed", "differences", "settings")
COLUMNS = (*TEXT, *COUNTS[:2], *NUMBERS, *COUNTS[2:], *MARKS, *ORIGIN, *LISTS)
"""In this order. `docs/results.md` says what each holds."""


def frame(folder: str | Path, *, run: str = "*", older: bool = False, by_seed: bool = False) -> "DataFrame":
    """One row a score, controls and baselines too, those of the table: the newest of each cell.

    `folder` is a workspace, or its folder of results. `older` adds the scores that newer ones replaced. `by_seed` gives
    a row to each seed of a probe: `value` is that seed's, `low`, `high`, `std` and `common_*` are empty, since they are
    of all seeds. Text columns are `string`, counts `Int64`, marks `boolean`, scores `float64`; what there is not is NA.
    `latents`, `metadata`, `mixed` and `differences` hold tuples of text, `settings` JSON.

    Raises ContractError where pandas is missing, and for a file that is no result.
    """
    root = Path(folder)
    results = root / "results" if (root / "results").is_dir() else root
    return of_scores(collect(read_results(results, run)), older=older, by_seed=by_seed)


def of_scores(scores: Sequence[Score], *, older: bool = False, by_seed: bool = False) -> "DataFrame":
    """The same of scores that were collected already."""
    try:
        import pandas as pd
    except ImportError:
        raise ContractError("a DataFrame needs pandas: pip install 'lary-results[pandas]'") from None
    # What `results --json` says of a cell holds for its newest score; an older one has no common rows.
    known = {(entry["file"], entry["split"]): entry for entry in as_json(scores)}
    kept = list(scores) if older else sorted(newest(scores), key=lambda score: score.cell)
    rows = [row for score in kept for row in _rows(score, known.get((score.file, score.split), {}), by_seed=by_seed)]
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    kinds = dict.fromkeys((*TEXT, *ORIGIN, "settings"), "string")
    kinds |= dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(MARKS, "boolean")
    return made.astype(kinds)


def _rows(score: Score, known: dict[str, Any], *, by_seed: bool) -> list[dict[str, Any]]:
    extra = ("common_value", "common_low", "common_high", "common_rows", "refused")
    row = {name: known.get(name) if name in extra else getattr(score, name, None) for name in COLUMNS}
    row["settings"] = None if score.settings is None else json.dumps(score.settings, sort_keys=True)
    if not by_seed:
        return [row | {"seed": score.probe_seeds[0] if score.seeds == 1 else None}]
    blank = dict.fromkeys(("low", "high", "std", *extra[:4]))
    seeds = zip(score.probe_seeds, score.seed_values, strict=True)
    return [row | blank | {"seed": seed, "value": value} for seed, value in seeds]
