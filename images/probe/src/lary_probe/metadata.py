"""The CSV columns that a probe needs of one split."""

from pathlib import Path

from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import VideoColumns
from lary_schema.jobs import ProbeSplit
from lary_schema.metadata import Row, RowError, read_rows

from lary_probe.latents import Latents


class SplitMetadata:
    """The rows of a split's CSV, row r of the store at index r."""

    def __init__(self, split: ProbeSplit, job_root: Path, columns: tuple[str, ...]) -> None:
        """Raises ContractError where the file is not the planned one or a column is missing."""
        self.path = job_root / split.source.metadata.path
        self.split = split
        self.rows = list(read_rows(self.path, columns))
        if file_sha256(self.path) != split.source.metadata.sha256:
            raise ContractError(f"{self.path}: changed since the job was planned; plan it again")
        if len(self.rows) != split.source.metadata.rows:
            raise ContractError(f"{self.path}: {len(self.rows)} rows, {split.source.metadata.rows} were planned")

    def cell(self, row: int, column: str) -> str:
        """A cell that a score depends on. Raises ContractError naming file and row where it is empty."""
        try:
            return self.rows[row][column]
        except RowError as error:
            raise ContractError(
                f"{self.path}: row {row}: {error}; every row with a latent needs its ground truth"
            ) from None

    def media(self, latents: Latents) -> list[str]:
        """The media cell of each row with a latent: the clip, or the pair's first image."""
        columns = self.split.source.columns
        column = columns.video if isinstance(columns, VideoColumns) else columns.source
        return [self.rows[row].get(column) or "" for row in latents.rows.tolist()]

    def row(self, row: int) -> Row:
        return self.rows[row]
