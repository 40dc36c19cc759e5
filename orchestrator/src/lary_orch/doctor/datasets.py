"""Are the chosen datasets here, their first media included?"""

from itertools import islice
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.metadata import Row, RowError, read_rows
from lary_schema.mounts import resolve_media

from lary_orch.doctor.check import Context, Finding, worst
from lary_orch.sources import SplitSource, csv_path, find_split
from lary_orch.workspace import Workspace

NAME = "datasets"
LOOKED_AT = 20
"""Rows of each split whose files are looked for: all of a million would take minutes."""


def run(context: Context) -> Finding:
    cards = [context.catalog.dataset(key) for key in context.datasets]
    if not cards:
        return Finding("skip", "none was named; `lary-orch datasets` lists them")
    return worst([_split(card, split, context.workspace) for card in cards for split in card.splits.all])


def _split(card: DatasetCard, split: str, workspace: Workspace) -> Finding:
    what = f"{card.key}/{split}"
    if card.generator is not None and not csv_path(card, split, workspace).is_file():
        return Finding("ok", f"{what} is made at first use")
    try:
        source = find_split(card, split, workspace)
    except ContractError as error:
        return Finding("fail", str(error))
    lost = [problem for row in islice(read_rows(source.csv), LOOKED_AT) if (problem := _lost(row, card, source))]
    if lost:
        remedy = "correct media: in the dataset card, the CSV's paths, or --data-dir"
        return Finding("fail", f"{what}: {len(lost)} of the first {LOOKED_AT} rows lack a file, {lost[0]}", remedy)
    return Finding("ok", f"{what}: {source.rows} rows")


def _lost(row: Row, card: DatasetCard, source: SplitSource) -> str | None:
    """What keeps a row's files from being found."""
    try:
        implied = card.columns.implied_folder
        files = [_resolve(row[column], source.source.media, implied, source) for column in _media_columns(card)]
        if actions := card.actions:
            folder = actions.folder.replace("{split}", source.split)
            files.append(_resolve(row[actions.column], folder, actions.implied_folder, source))
    except (RowError, ContractError) as error:
        return f"row {row.index}: {error}"
    return next((f"row {row.index}: {file} is missing" for file in files if not file.exists()), None)


def _media_columns(card: DatasetCard) -> list[str]:
    columns = card.columns
    return [columns.video] if columns.input == "video" else [columns.source, columns.target]


def _resolve(cell: str, folder: str, implied: str | None, source: SplitSource) -> Path:
    return resolve_media(cell, source.data / folder, source.data, str(source.data), implied)
