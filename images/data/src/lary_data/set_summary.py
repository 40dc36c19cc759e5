"""What a new set holds: rows for each split, and for each class or group."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from lary_schema.cards import DatasetCard

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 40
"""Classes that are listed; all are counted."""


def summary(card_file: Path) -> Iterator[str]:
    """Lines for people, from a card and the CSVs next to it."""
    import pandas as pd

    card = DatasetCard.parse(yaml.safe_load(card_file.read_text(encoding="utf-8")), str(card_file))
    files = {split: card_file.parent / card.metadata[0].replace("{split}", split) for split in card.splits.all}
    # Text stays text: a class "001" is not 1, and one called "NA" is not missing.
    tables = {split: pd.read_csv(file, dtype=str, keep_default_na=False) for split, file in files.items()}
    rows = pd.concat(tables, names=["split"]).reset_index("split")
    group = None if card.group is None else card.group.column
    for split, table in tables.items():
        groups = "" if group is None else f", {table[group].nunique():,} groups ({group})"
        yield f"{split}: {len(table):,} rows{groups}"
    if card.labels is not None:
        yield from _classes(rows, card.labels.column, list(tables))


def _classes(rows: "DataFrame", column: str, splits: list[str]) -> Iterator[str]:
    import pandas as pd

    counts = pd.crosstab(rows[column], rows["split"]).reindex(columns=splits, fill_value=0).sort_index()
    width = max(len("class"), *(len(str(name)) for name in counts.index[:SHOWN]))
    yield "  ".join([f"  {'class':{width}}", *(f"{split:>7}" for split in splits)])
    for name, line in counts.head(SHOWN).iterrows():
        yield "  ".join([f"  {name!s:{width}}", *(f"{count:>7,}" for count in line)])
    if len(counts) > SHOWN:
        yield f"  and {len(counts) - SHOWN} more classes"
