"""Datasets on one disk: what the orchestrator tells the data tools of its catalog."""

from pathlib import Path

from lary_schema.base import Document
from lary_schema.cards import DatasetCard

DATASETS_VARIABLE = "LARY_DATASETS"
"""Names the file that holds a `Datasets` document."""


class DatasetFiles(Document):
    """A dataset's card, and where its files are or should be."""

    card: DatasetCard
    data: Path
    """Data root: `media`, `actions.folder` and statistics are below it."""
    csv: dict[str, Path]
    """The CSV of each split, there or not."""


class Datasets(Document):
    """All that the catalog knows."""

    datasets: tuple[DatasetFiles, ...]
