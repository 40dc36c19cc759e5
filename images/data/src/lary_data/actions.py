"""The action files that a regression set's CSVs name, read in parallel and in order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lary_schema.action_statistics import NO_ROBOT
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from lary_schema.datasets import DatasetFiles
from lary_schema.metadata import RowError, count_rows, read_rows

from lary_data.threads import mapped

BATCH = 512
"""Files in flight; statistics are added up by such batches, so that they do not depend on the number of threads."""
EXAMPLES = 20
"""Missing files that are named (LARYBench)."""
T = TypeVar("T")


@dataclass(frozen=True)
class ActionFile:
    """A row's action file."""

    where: str
    """CSV and row, for messages."""
    robot: str | None
    """None where the set knows no robot types."""
    path: Path


@dataclass
class Missing:
    """The files that are not there."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, file: ActionFile) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(str(file.path))

    def __iadd__(self, other: "Missing") -> "Missing":
        return Missing(self.count + other.count, (self.examples + other.examples)[:EXAMPLES])

    def check(self, total: int, tolerated: float) -> None:
        """Raises ContractError where a larger share of all files is missing."""
        if self.count > tolerated * total:
            names = "\n".join(f"  {name}" for name in self.examples)
            more = "\n  ..." if self.count > len(self.examples) else ""
            raise ContractError(
                f"{self.count} of {total} action files are missing, more than --max-missing {tolerated:g} "
                f"allows:\n{names}{more}"
            )


def actions_of(files: DatasetFiles) -> Actions:
    """Raises ContractError for a set without actions."""
    if files.card.actions is None:
        raise ContractError(f"dataset {files.card.key} is a {files.card.task} set; it has no actions")
    return files.card.actions


@dataclass(frozen=True)
class Table:
    """A CSV whose rows name action files."""

    files: DatasetFiles
    split: str
    csv: Path

    @property
    def root(self) -> Path:
        """The folder that the cells are relative to."""
        return self.files.actions(self.split).root

    def count(self) -> int:
        return count_rows(self.csv)

    def rows(self, robot_column: str | None) -> Iterator[ActionFile]:
        """Every row's file, lazily. Raises ContractError naming the row that gives none."""
        actions = actions_of(self.files)
        files = self.files.actions(self.split)
        columns = [actions.column, *([robot_column] if robot_column else [])]
        for row in read_rows(self.csv, columns):
            where = f"{self.csv}: row {row.index}"
            try:
                path = files.find(row[actions.column])
            except (RowError, ContractError) as error:
                raise ContractError(f"{where}: {error}") from None
            yield ActionFile(where, (row.get(robot_column) or NO_ROBOT) if robot_column else None, path)


def tables(files: DatasetFiles, splits: Sequence[str], csvs: Sequence[Path]) -> list[Table]:
    """The CSVs of some splits, or the given ones, whose action files lie as those of the one split do."""
    unknown = [split for split in splits if split not in files.card.splits.all]
    if unknown:
        known = ", ".join(files.card.splits.all)
        raise ContractError(f"dataset {files.card.key} has no split {', '.join(unknown)}; it has {known}")
    if csvs and len(splits) != 1:
        raise ContractError("--csv needs one --split: the one whose action folder its rows mean")
    if csvs:
        return [Table(files, splits[0], csv) for csv in csvs]
    return [Table(files, split, files.csv[split]) for split in splits]


def read_all(
    rows: Iterator[ActionFile], read: Callable[[ActionFile], T], workers: int
) -> Iterator[list[tuple[ActionFile, T | None]]]:
    """Batches of rows with what `read` made of their files, in order; None for a file that is not there.

    Raises ContractError naming row and file for one that cannot be used.
    """

    def attempt(file: ActionFile) -> tuple[ActionFile, T | None]:
        try:
            return file, read(file)
        except ContractError as error:
            if file.path.exists():
                raise ContractError(f"{file.where}: {error}") from None
            return file, None

    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(rows, BATCH)):
            yield list(mapped(pool, attempt, batch))
