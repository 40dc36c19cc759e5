"""A split on this disk: is all of it there? Looked at without opening a file; `lary-orch data check` opens them."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from lary_schema import commands
from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import DatasetCard
from lary_schema.jobs import Source
from lary_schema.media import action_files, media_files
from lary_schema.metadata import Row, RowError, read_rows

LOOKED_AT = 20
"""Rows of each split whose files are looked for: all of a million would take minutes."""


@dataclass(frozen=True)
class SplitSource:
    """One split of a dataset, found on this disk."""

    split: str
    data: Path
    """Data root: the job's data mount."""
    csv: Path
    source: Source

    @property
    def sha256(self) -> str:
        return self.source.metadata.sha256

    @property
    def rows(self) -> int:
        return self.source.metadata.rows


def needed_columns(card: DatasetCard) -> list[str]:
    """The columns without which no row of the set can be used."""
    named = [block.column for block in (card.labels, *card.chunks.values(), card.group) if block]
    return list(dict.fromkeys([*card.columns.names, *named, *([card.instruction] if card.instruction else [])]))


def lost_rows(card: DatasetCard, source: SplitSource) -> list[str]:
    """What keeps the files of each of the first rows from being found; empty is well."""
    rows = islice(read_rows(source.csv), LOOKED_AT)
    return [problem for row in rows if (problem := _lost(row, card, source))]


def missing_stats(card: DatasetCard, data: Path) -> list[Path]:
    """The statistics files that a dataset's normalisations name and that are not there."""
    named = (norm.stats for block in card.chunks.values() for norm in (block.normalisation, block.relative))
    return [path for stats in named if stats is not None and not (path := data / stats).is_file()]


def stats_sha256(card: DatasetCard, target: Literal["absolute", "relative"], data: Path) -> str | None:
    """Of the statistics file that the target's normalisation names; None where it names none.

    Raises ContractError where the file is missing.
    """
    if card.actions is None:
        return None
    normalisation = card.actions.normalisation if target == "absolute" else card.actions.relative
    if normalisation.stats is None:
        return None
    path = data / normalisation.stats
    if not path.is_file():
        raise ContractError(
            f"{path}: missing (the robots' means and stds of {card.key}). Make it by "
            f"`{commands.command('data', 'stats', '-d', card.key)}`, or put LARYBench's there"
        )
    return file_sha256(path)


def _lost(row: Row, card: DatasetCard, source: SplitSource) -> str | None:
    try:
        media = media_files(source.source, source.data)
        files = [media.find(row[column]) for column in _media_columns(card)]
        for block in card.chunks.values():
            files.append(action_files(block, source.split, source.data).find(row[block.column]))
    except (RowError, ContractError) as error:
        return f"row {row.index}: {error}"
    return next((f"row {row.index}: {file} is missing" for file in files if not file.exists()), None)


def _media_columns(card: DatasetCard) -> list[str]:
    columns = card.columns
    return [columns.video] if columns.input == "video" else [columns.source, columns.target]
