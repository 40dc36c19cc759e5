"""Datasets on one disk: what the data tools get of the orchestrator's catalog."""

from pathlib import Path

from lary_schema.base import ContractError, Document
from lary_schema.cards import DatasetCard, Reads
from lary_schema.media import CellFiles, action_files

DATASETS_VARIABLE = "LARY_DATASETS"
"""Names the file that holds a `Datasets` document."""


class DatasetFiles(Document):
    """A dataset's card, and where its files are or should be."""

    card: DatasetCard
    data: Path
    """Data root: `media`, `actions.folder` and statistics are below it."""
    csv: dict[str, Path]
    """The CSV of each split, there or not."""

    def media(self, split: str) -> CellFiles:
        """The files of a split's clips or images."""
        return CellFiles(self.data / self.card.media_of(split), self.data, self.card.columns.implied_folder)

    def actions(self, split: str) -> CellFiles:
        """The files of a split's actions. Raises ContractError for a set without actions."""
        if self.card.actions is None:
            raise ContractError(f"dataset {self.card.key} is a {self.card.task} set; it has no actions")
        return self.chunks(split)["actions"]

    def chunks(self, split: str) -> dict[Reads, CellFiles]:
        """The files of a split's actions and nuisance, as far as the card has them."""
        return {reads: action_files(block, split, self.data) for reads, block in self.card.chunks.items()}


class Datasets(Document):
    """All that the catalog knows."""

    datasets: tuple[DatasetFiles, ...]
