"""The files that a dataset's CSVs name, each once, and the rows that name it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from lary_schema.base import ContractError
from lary_schema.cards import VideoColumns
from lary_schema.datasets import DatasetFiles
from lary_schema.metadata import Row, RowError, parse_indices, read_rows

from lary_data.checking import Check, Kind


@dataclass
class References:
    """What a split's rows name."""

    rows: int = 0
    files: dict[tuple[Kind, str], Check] = field(default_factory=dict)
    rows_of: dict[tuple[Kind, str], list[int]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """The two images of each pair, and the rows that name it."""
    bad_rows: list[tuple[int, str]] = field(default_factory=list)
    """Rows that name no file, with what is wrong with them."""


def references(files: DatasetFiles, split: str, sample: int | None) -> References:
    """All that a split's CSV names; of `sample` rows alone, the same ones at every call, where that is given.

    Raises ContractError for a CSV that cannot be read or a column is missing.
    """
    reader = _Reader(files, split)
    rows = read_rows(files.csv[split], reader.columns)
    found = References()
    for row in rows if sample is None else _sampled(rows, sample, f"{files.card.key}/{split}"):
        found.rows += 1
        try:
            checks = list(reader.checks(row))
        except (RowError, ContractError) as error:
            found.bad_rows.append((row.index, str(error)))
            continue
        for check in checks:
            key = (check.kind, check.path)
            before = found.files.get(key, check)
            found.files[key] = before if before.last >= check.last else check
            found.rows_of.setdefault(key, []).append(row.index)
        if len(images := [check.path for check in checks if check.kind == "image"]) == 2:
            found.pairs.setdefault((images[0], images[1]), []).append(row.index)
    return found


def _sampled(rows: Iterator[Row], count: int, seed: str) -> list[Row]:
    """`count` rows, each set of them as likely as another (reservoir sampling), in their order."""
    draw = random.Random(seed)
    kept: list[Row] = []
    for row in rows:
        if len(kept) < count:
            kept.append(row)
        elif (position := draw.randrange(row.index + 1)) < count:
            kept[position] = row
    return sorted(kept, key=lambda row: row.index)


class _Reader:
    def __init__(self, files: DatasetFiles, split: str) -> None:
        card = files.card
        self._card = card
        self._media = files.media(split)
        columns = card.columns
        self._indices = columns.indices if isinstance(columns, VideoColumns) else None
        self._inputs = [columns.video] if isinstance(columns, VideoColumns) else [columns.source, columns.target]
        self._chunks = files.chunks(split)
        numbers = [block.column for block in card.chunks.values()]
        self.columns = [*self._inputs, *([self._indices] if self._indices else []), *numbers]

    def checks(self, row: Row) -> Iterator[Check]:
        """Raises RowError or ContractError for a row that names no usable path."""
        for column in self._inputs:
            path = str(self._media.find(row[column]))
            if self._indices is not None:
                indices = parse_indices(row[self._indices], self._card.frames)
                yield Check("video", path, row[column], last=max(indices))
            else:
                yield Check("image", path, row[column])
        for reads, block in self._card.chunks.items():
            cell = row[block.column]
            path = str(self._chunks[reads].find(cell))
            yield Check(reads, path, cell, shape=(block.stride, block.dim))
