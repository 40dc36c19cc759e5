"""A metadata CSV split into train and val: every row in exactly one of them, by a seed."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO
from urllib.parse import quote

import numpy as np
from lary_schema.atomic import replacing
from lary_schema.base import ContractError
from lary_schema.groups import Grouping, group_of
from lary_schema.metadata import read_cells, read_rows
from numpy.typing import NDArray

from lary_data.manifest import GROUP_COLUMN

SEPARATOR = "\x1f"
Mask = NDArray[np.bool_]
"""(rows,): whether a row is of val."""


@dataclass(frozen=True)
class Split:
    """Which rows are held out."""

    val: Mask
    singles: tuple[str, ...] = ()
    """Classes with one row, which is trained on."""


def made(keys: Sequence[str], ratio: float, seed: int, by: Literal["class", "group"] | None) -> Split:
    """The split of rows whose classes, or whose groups, are `keys`; a seed gives the same one every time."""
    rng = np.random.default_rng(seed)
    if by == "class":
        return stratified(keys, ratio, rng)
    return grouped(keys, ratio, rng) if by == "group" else plain(len(keys), ratio, rng)


def plain(rows: int, ratio: float, rng: np.random.Generator) -> Split:
    """`ratio` of the rows, any of them."""
    return Split(_marked(rows, rng.permutation(rows)[: _share(rows, ratio)]))


def stratified(labels: Sequence[str], ratio: float, rng: np.random.Generator) -> Split:
    """`ratio` of the rows, and about that of every class; no class is without a row in train.

    The rows that rounding leaves over go to the classes with the largest remainders, the larger class first.
    """
    names, codes, counts = _coded(labels)
    wanted = counts * ratio
    held = np.floor(wanted).astype(np.int64)
    order = np.lexsort((-counts, held - wanted))
    left = _share(len(codes), ratio) - int(held.sum())
    # What a class of one row leaves over is no reason to give another one a whole row more than its share.
    room = order[(held + 1 < counts)[order] & (wanted - held > 1e-9)[order]]
    held[room[:left]] += 1
    shuffled = rng.permutation(len(codes))
    grouped = shuffled[np.argsort(codes[shuffled], kind="stable")]
    starts = np.cumsum(counts) - counts
    picked = [grouped[start : start + count] for start, count in zip(starts, held, strict=True)]
    singles = tuple(name for name, count in zip(names, counts, strict=True) if count == 1)
    return Split(_marked(len(codes), np.concatenate(picked)), singles)


def grouped(groups: Sequence[str], ratio: float, rng: np.random.Generator) -> Split:
    """Whole groups (episodes), drawn until val is as near to `ratio` of the rows as the next one lets it be.

    Raises ContractError for fewer than two groups.
    """
    names, codes, counts = _coded(groups)
    if len(names) < 2:
        raise ContractError("all rows are one group, which cannot be split; --group needs further columns")
    order = rng.permutation(len(names))
    sums = np.cumsum(counts[order])
    # At least one group on either side.
    taken = 1 + int(np.argmin(np.abs(sums[:-1] - len(codes) * ratio)))
    return Split(np.isin(codes, order[:taken]))


def _coded(keys: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The different keys in order, (rows,) each row's position among them, and how often each is there."""
    names = sorted(set(keys))
    position = {name: at for at, name in enumerate(names)}
    codes = np.fromiter((position[key] for key in keys), np.int64, len(keys))
    return names, codes, np.bincount(codes)


def _share(rows: int, ratio: float) -> int:
    """Rows of val: rounded, at least one on either side. Raises ContractError for a single row."""
    if rows < 2:
        raise ContractError("a CSV with one row cannot be split")
    return min(max(1, round(rows * ratio)), rows - 1)


def _marked(rows: int, picked: NDArray[np.int64]) -> Mask:
    mask = np.zeros(rows, np.bool_)
    mask[picked] = True
    return mask


# --- files ------------------------------------------------------------------------------------


def read_keys(source: Path, columns: Sequence[str]) -> list[str]:
    """Each row's cells of some columns, as one key. Raises ContractError naming a row of the wrong length."""
    cells = read_cells(source, columns)
    header = next(cells)
    positions = [header.index(column) for column in columns]
    keys = []
    for row, values in enumerate(cells):
        if len(values) != len(header):
            raise ContractError(f"{source}: row {row}: {len(values)} cells, the header has {len(header)}; correct it")
        keys.append(SEPARATOR.join(values[position] for position in positions))
    return keys


def read_groups(source: Path, groupings: Sequence[Grouping]) -> list[str]:
    """Each row's group, as a dataset card with `group:` has it; of several groupings, their groups joined by `/`.

    Raises ContractError naming a row without one.
    """
    columns = [grouping.column for grouping in groupings]
    if len(groupings) == 1:
        return [group_of(row, groupings[0], str(source)) for row in read_rows(source, columns)]
    return [
        "/".join(quote(group_of(row, grouping, str(source)), safe=" ") for grouping in groupings)
        for row in read_rows(source, columns)
    ]


def default_names(source: Path) -> tuple[str, str]:
    """`x_all.csv` gives `x_train.csv` and `x_val.csv`, `x.csv` as well."""
    parts = source.stem.split("_")
    if "all" not in parts:
        parts.append("all")
    position = parts.index("all")
    train, val = ("_".join([*parts[:position], name, *parts[position + 1 :]]) + ".csv" for name in ("train", "val"))
    return train, val


def write(
    source: Path, val: Mask, targets: tuple[Path, Path], *, overwrite: bool, groups: Sequence[str] | None = None
) -> None:
    """Write (train, val), rows in their order, cells as they are; `groups` become a further column.

    Raises ContractError where a target is the source, or is there already, and where the column is.
    """
    for target in targets:
        if target.resolve() == source.resolve():
            raise ContractError(f"{target}: is the CSV that is split; name another output")
        if target.exists() and not overwrite:
            raise ContractError(f"{target}: is there already; --overwrite replaces it")
    cells = read_cells(source)
    header = next(cells)
    if groups is not None and GROUP_COLUMN in header:
        raise ContractError(f"{source}: has a column {GROUP_COLUMN!r} already; rename it, or split by it")
    further = [[]] * len(val) if groups is None else [[group] for group in groups]
    with ExitStack() as stack:
        writers = [csv.writer(stack.enter_context(_published(target)), lineterminator="\n") for target in targets]
        for writer in writers:
            writer.writerow([*header, *([] if groups is None else [GROUP_COLUMN])])
        for held, values, more in zip(val.tolist(), cells, further, strict=True):
            writers[held].writerow([*values, *more])


@contextmanager
def _published(path: Path) -> Iterator[TextIO]:
    """A text file that appears whole at the end of the block, or not at all."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        yield file
