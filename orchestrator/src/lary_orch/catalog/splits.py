"""Where a dataset's rows come from on this machine: its CSVs, counted and hashed."""

from pathlib import Path

from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import DatasetCard
from lary_schema.files import file_state
from lary_schema.groups import Grouping, count_groups
from lary_schema.jobs import MetadataFile, Source
from lary_schema.labels import SplitLabels, read_labels
from lary_schema.metadata import count_rows
from lary_schema.presence import SplitSource, needed_columns

from lary_orch.cache import remembered
from lary_orch.workspace import Workspace


def data_root(card: DatasetCard, workspace: Workspace) -> Path:
    """The card's own root, the user's data, or the folder of the sets that are made at first use."""
    if card.root is not None:
        return Path(card.root)
    return workspace.data if card.generator is None else workspace.generated


def csv_path(card: DatasetCard, split: str, workspace: Workspace) -> Path:
    """The split's CSV: the first of the card's names that is there, else where the first one should be."""
    data = data_root(card, workspace)
    own = card.generator is not None or card.root is not None
    folders = [data] if own else [workspace.metadata, data]
    folders += [] if card.own_folder is None else [card.own_folder]
    names = [name.replace("{split}", split) for name in card.metadata]
    candidates = [folder / name for folder in dict.fromkeys(folders) for name in names]
    return next((path for path in candidates if path.is_file()), candidates[0])


def find_split(card: DatasetCard, split: str, workspace: Workspace) -> SplitSource:
    """A split's CSV, checked, counted and hashed; remembered by its size and time.

    Raises ContractError where it is missing, not a CSV, or without rows or columns.
    """
    data, csv = data_root(card, workspace), csv_path(card, split, workspace)
    if not csv.is_file():
        folders = (
            "the CSVs' folder by --metadata-dir or LARY_ROOT (its data/), the data's root by --data-dir or DATA_DIR"
        )
        how = f"give {folders}" if card.root is None else "correct root: in the dataset card"
        raise ContractError(
            f"{csv}: missing (split {split!r} of {card.key}). Put it there or next to the card, {how}, or correct "
            "metadata: in the dataset card"
        )
    columns = needed_columns(card)
    facts = remembered(
        workspace.cache,
        "metadata",
        [*file_state(csv), *columns],
        lambda: {"rows": count_rows(csv, columns), "sha256": file_sha256(csv)},
    )
    source = Source(
        metadata=MetadataFile(path=f"metadata/{split}.csv", sha256=facts["sha256"], rows=facts["rows"]),
        columns=card.columns,
        media=card.media_of(split),
        host_data=str(data),
        frames=card.frames,
    )
    return SplitSource(split, data, csv, source)


def split_labels(split: SplitSource, column: str, cache: Path) -> SplitLabels:
    """The class labels of a split's CSV; remembered by its state."""
    key = [*file_state(split.csv), column]
    return SplitLabels(split.csv, **remembered(cache, "labels", key, lambda: read_labels(split.csv, column)))


def split_groups(split: SplitSource, grouping: Grouping, cache: Path) -> int:
    """How many groups a split's rows have; remembered by its state. Raises ContractError for a row without one."""
    key = [*file_state(split.csv), grouping.column, grouping.pattern]
    return int(remembered(cache, "groups", key, lambda: {"groups": count_groups(split.csv, grouping)})["groups"])


def wanted_splits(card: DatasetCard, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The evaluated splits: all of the card's, or the chosen ones. Raises ContractError for an unknown one."""
    unknown = [split for split in chosen if split not in card.splits.evaluate]
    if unknown:
        raise ContractError(
            f"dataset {card.key} evaluates no split {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(card.splits.evaluate)} (trained on {card.splits.train}, which is always needed)"
        )
    return tuple(split for split in card.splits.evaluate if not chosen or split in chosen)
