"""The files that the cells of a CSV name: what each column's cells are relative to."""

from dataclasses import dataclass
from pathlib import Path

from lary_schema.cards import Actions
from lary_schema.jobs import Source
from lary_schema.mounts import resolve_media


@dataclass(frozen=True)
class CellFiles:
    """Finds the files of one column, by `lary_schema.mounts.resolve_media`."""

    root: Path
    """The folder that relative cells are relative to."""
    data: Path
    """The data root."""
    implied_folder: str | None
    host_data: str | None = None
    """What the data root is called outside the container."""

    def find(self, cell: str) -> Path:
        """The file, there or not. Raises ContractError for an empty cell and for `..`."""
        return resolve_media(cell, self.root, self.data, self.host_data, self.implied_folder)


def media_files(source: Source, data: Path) -> CellFiles:
    """Of the clips or images of a split."""
    return CellFiles(data / source.media, data, source.columns.implied_folder, source.host_data)


def action_files(actions: Actions, split: str, data: Path, host_data: str | None = None) -> CellFiles:
    """Of the action chunks of a split."""
    return CellFiles(data / actions.folder_of(split), data, actions.implied_folder, host_data)
