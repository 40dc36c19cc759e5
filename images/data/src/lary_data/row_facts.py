"""What CSVs say apart from the files they name: labels, groups, instructions, and whether the card agrees."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lary_schema.base import ContractError, Document
from lary_schema.cards import DatasetCard
from lary_schema.datasets import DatasetFiles
from lary_schema.groups import group_of
from lary_schema.labels import DIFFER, alike
from lary_schema.metadata import Row, RowError, read_rows

NAMED = 10
"""Labels or groups that are named; all are counted."""


@dataclass
class RowFacts:
    """All rows of one split's CSV."""

    labels: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    bad_rows: list[tuple[int, str]] = field(default_factory=list)
    """Rows without a label, a group or an instruction, with what is wrong with them."""


class SharedGroups(Document):
    """Groups that stand in train and in an evaluated split: the probe is scored on what it has seen."""

    split: str
    count: int
    groups: tuple[str, ...]
    """The first ones."""


class DatasetReport(Document):
    """What is wrong with a dataset's CSVs as a whole."""

    dataset: str
    contradictions: tuple[str, ...] = ()
    """Between the CSVs, or between them and the card."""
    shared_groups: tuple[SharedGroups, ...] = ()
    shared_groups_allowed: bool = False
    """By `--allow-shared-groups`."""
    notes: tuple[str, ...] = ()
    """What was not compared."""

    @property
    def good(self) -> bool:
        return not self.contradictions and (self.shared_groups_allowed or not self.shared_groups)


def look_at_rows(files: DatasetFiles) -> tuple[dict[str, RowFacts], list[str]]:
    """The facts of every split that has a CSV, and what is wrong with those whose rows could not be read."""
    found: dict[str, RowFacts] = {}
    faults: list[str] = []
    for split, csv in files.csv.items():
        if csv.is_file():
            try:
                found[split] = row_facts(files, split)
            except ContractError as error:
                faults.append(str(error))
    return found, faults


def row_facts(files: DatasetFiles, split: str) -> RowFacts:
    """Read a split's CSV. Raises ContractError where it cannot be read or a column is missing."""
    card, facts = files.card, RowFacts()
    for row in read_rows(files.csv[split], list(_columns(card))):
        try:
            if card.labels is not None:
                facts.labels.add(row[card.labels.column])
            if card.group is not None:
                facts.groups.add(group_of(row, card.group, str(files.csv[split])))
            if card.instruction is not None:
                # Raises for an empty cell.
                _ = row[card.instruction]
        except (RowError, ContractError) as error:
            facts.bad_rows.append((row.index, _reason(row, error, str(files.csv[split]))))
    return facts


def _columns(card: DatasetCard) -> Iterator[str]:
    """Columns that no file is named by."""
    if card.labels is not None:
        yield card.labels.column
    if card.group is not None:
        yield card.group.column
    if card.instruction is not None:
        yield card.instruction
    for block in card.chunks.values():
        for normalisation in (block.normalisation, block.relative):
            if normalisation.kind == "per-robot":
                yield normalisation.robot_column


def _reason(row: Row, error: Exception, csv: str) -> str:
    return str(error).removeprefix(f"{csv}: row {row.index}: ")


def dataset_report(
    card: DatasetCard, facts: Mapping[str, RowFacts], faults: Iterable[str], *, allow_shared_groups: bool
) -> DatasetReport:
    """What the facts of a dataset's splits, those that have a CSV, say together; `faults` are of the others."""
    train = facts.get(card.splits.train)
    shared: list[SharedGroups] = []
    notes: list[str] = []
    if card.group is not None and train is not None:
        evaluated = [split for split in card.splits.evaluate if split in facts and split != card.splits.train]
        if _is_per_split(card):
            notes += [f"groups of train and {split} are not compared: paths are below a folder of each split"
                      for split in evaluated]  # fmt: skip
        else:
            shared += [found for split in evaluated if (found := _shared(split, train, facts[split])) is not None]
    return DatasetReport(
        dataset=card.key, contradictions=(*faults, *_contradictions(card, facts)), shared_groups=tuple(shared),
        shared_groups_allowed=allow_shared_groups and bool(shared), notes=tuple(notes),
    )  # fmt: skip


def _is_per_split(card: DatasetCard) -> bool:
    """Whether the groups are parts of paths that mean another folder in each split."""
    columns = card.columns
    paths = {columns.video} if columns.input == "video" else {columns.source, columns.target}
    return card.group is not None and card.group.column in paths and "{split}" in card.media


def _shared(split: str, train: RowFacts, other: RowFacts) -> SharedGroups | None:
    both = sorted(train.groups & other.groups)
    return SharedGroups(split=split, count=len(both), groups=tuple(both[:NAMED])) if both else None


def _contradictions(card: DatasetCard, facts: Mapping[str, RowFacts]) -> Iterator[str]:
    if card.labels is None:
        return
    for same in alike({label for found in facts.values() for label in found.labels}):
        yield f"labels {' and '.join(map(repr, same))} {DIFFER}"
    train = facts.get(card.splits.train)
    if train is None:
        return
    if card.labels.classes is not None and len(train.labels) != card.labels.classes:
        yield f"{card.splits.train} has {len(train.labels)} labels, the card says classes: {card.labels.classes}"
    for split, found in facts.items():
        if unknown := sorted(found.labels - train.labels):
            yield f"{split} has {len(unknown)} labels that {card.splits.train} does not have: {_listed(unknown)}"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(map(repr, shown[:NAMED])) + (", ..." if len(shown) > NAMED else "")
