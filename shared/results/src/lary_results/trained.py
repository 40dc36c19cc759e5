"""Models that were trained in a workspace: `lary-orch models --trained`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError
from lary_schema.files import unlisted
from lary_schema.trained import trained_models
from lary_terminal.tables import Table

from lary_results.study.measures import last

SHOWN = ("rec", "copy", "perplexity", "centred_cosine")
"""Measures that a line has room for."""


def trained_rows(trained: Path) -> Iterator[dict[str, Any]]:
    """One record per finished training; one that cannot be read says why."""
    for message in unlisted(trained, 2):
        yield {"key": "-", "error": message}
    for checkpoint in trained_models(trained):
        try:
            result = checkpoint.result
        except ContractError as error:
            yield {"key": checkpoint.key, "error": str(error)}
            continue
        yield {
            "key": result.key,
            "recipe": result.values.recipe.key,
            "dataset": result.values.data.dataset,
            "seed": result.values.seed,
            "steps": result.values.recipe.steps,
            "supervision": result.supervision,
            "rows": result.rows,
            "start": result.values.init.get("start"),
            "seconds": result.seconds,
            "measures": last(result),
            "warnings": list(result.warnings),
        }


def trained_table(rows: Sequence[dict[str, Any]], trained: Path) -> Table:
    """A line each; how they came about in full stands in their `training.json`."""
    well = [row for row in rows if "error" not in row]
    return Table(
        f"{len(well)} models trained in {trained}",
        ("key", "dataset", "seed", "steps", "labels", "rows", "held-out measures"),
        [_cells(row) for row in well],
        right=frozenset({2, 3, 5}),
        notes=tuple(str(row["error"]) for row in rows if "error" in row),
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    measured = ", ".join(f"{name} {row['measures'][name]:.3g}" for name in SHOWN if name in row["measures"])
    numbers = (str(row["seed"]), f"{row['steps']:,}", row["supervision"], f"{row['rows']:,}")
    return (row["key"], row["dataset"], *numbers, measured or "-")
