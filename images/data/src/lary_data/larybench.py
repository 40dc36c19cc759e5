"""LARYBench's files of latents: what they are called, where they lie, and which row each belongs to.

A CSV is the dataset's own with one more column, `la_path`: the row's .npz below LARY_LA_DIR, or its bare name,
or nothing where the extraction failed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath

from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.datasets import DatasetFiles
from lary_schema.metadata import Row, read_rows

LA_PATH = "la_path"


def csv_name(card: DatasetCard, split: str, model: str) -> str:
    """The CSV of one model's latents; image pairs of a regression set have their stride in it."""
    stride = f"_{card.actions.stride}" if card.actions else ""
    return f"{split}_la_{card.key}{stride}_{model}.csv"


def folder_name(dataset: str, split: str, model: str) -> str:
    """Where a model's .npz files lie below LARY_LA_DIR."""
    return f"{dataset}/{split}/{model}"


def file_name(row: int) -> str:
    return f"latent_action_{row:08d}.npz"


def find_csvs(card: DatasetCard, split: str, model: str, folders: Iterable[Path]) -> list[Path]:
    """The CSV of a model's latents of a split, or its partitions (`_0`, `_1`, ...) in order.

    They are those of the first folder that has any. Raises ContractError where none has, or where more than one
    could be meant.
    """
    stride = rf"(_{card.actions.stride})?" if card.actions else r"(_\d+)?"
    name = re.compile(rf"{re.escape(split)}_la_{re.escape(card.key)}{stride}_{re.escape(model)}(_(?P<part>\d+))?\.csv")
    searched = list(dict.fromkeys(folders))
    found = next(filter(None, (_matching(name, folder) for folder in searched)), [])
    if not found:
        where = ", ".join(map(str, searched))
        raise ContractError(f"{where}: no {csv_name(card, split, model)}; name the CSV by --csv")
    return _one_or_partitions(found)


def _matching(name: re.Pattern[str], folder: Path) -> list[tuple[Path, re.Match[str]]]:
    files = sorted(path for path in folder.glob("*_la_*.csv") if path.is_file())
    return [(path, match) for path in files if (match := name.fullmatch(path.name))]


def _one_or_partitions(found: Sequence[tuple[Path, re.Match[str]]]) -> list[Path]:
    parts = sorted((int(match["part"]), path) for path, match in found if match["part"])
    whole = [path for path, match in found if not match["part"]]
    if len(whole) == 1 and not parts:
        return whole
    if parts and not whole and [number for number, _ in parts] == list(range(len(parts))):
        return [path for _, path in parts]
    names = ", ".join(str(path) for path, _ in found)
    raise ContractError(
        f"{names}: neither one CSV nor the partitions 0 to {max(len(parts) - 1, 1)}; name yours by --csv"
    )


@dataclass(frozen=True)
class LatentRows:
    """The rows of a dataset's split and the .npz file of each."""

    files: DatasetFiles
    split: str
    csvs: Sequence[Path]
    """LARYBench's CSV, or its partitions in order."""
    npz: "NpzFiles"

    def __iter__(self) -> Iterator[Path | None]:
        """Every row's file, lazily; None where `la_path` is empty.

        Raises ContractError where the CSVs' rows are not the dataset's, one by one.
        """
        card, csv = self.files.card, self.files.csv[self.split]
        target = card.labels or card.actions
        assert target is not None
        inputs = dict.fromkeys(_input_columns(card), card.columns.implied_folder)
        columns = inputs | {target.column: card.actions.implied_folder if card.actions else None}
        ours = read_rows(csv, list(columns))
        theirs = chain.from_iterable(_rows(path, [*columns, LA_PATH]) for path in self.csvs)
        for index, (mine, their) in enumerate(zip_longest(ours, theirs)):
            if mine is None or their is None:
                raise self._other_count()
            path, row = their
            for column, folder in columns.items():
                if not _same(mine.get(column), row.get(column), folder):
                    raise ContractError(
                        f"{path}: row {row.index}: {column} is {row.get(column)!r}, row {index} of {csv} has "
                        f"{mine.get(column)!r}; these latents are of other rows, or in another order"
                    )
            cell = row.get(LA_PATH)
            yield None if cell is None else self.npz.find(cell)

    def _other_count(self) -> ContractError:
        csv, names = self.files.csv[self.split], ", ".join(map(str, self.csvs))
        ours, theirs = (sum(1 for path in paths for _ in read_rows(path)) for paths in ((csv,), self.csvs))
        return ContractError(f"{names}: {theirs} rows, {csv} has {ours}; latents belong to the rows of one CSV")


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Path, Row]]:
    return ((path, row) for row in read_rows(path, columns))


def _input_columns(card: DatasetCard) -> list[str]:
    columns = card.columns
    return [columns.video, columns.indices] if columns.input == "video" else [columns.source, columns.target]


def _same(ours: str | None, theirs: str | None, implied: str | None) -> bool:
    """Whether two cells mean the same file (or label): with or without the implied folder, relative or absolute."""
    if ours == theirs or ours is None or theirs is None:
        return ours == theirs
    one, other = _spelled_out(ours, implied), _spelled_out(theirs, implied)
    if one.is_absolute() == other.is_absolute():
        return one == other
    long, short = (one, other) if one.is_absolute() else (other, one)
    return long.parts[-len(short.parts) :] == short.parts


def _spelled_out(cell: str, implied: str | None) -> PurePosixPath:
    path = PurePosixPath(cell)
    return path if implied is None or implied in path.parts or path.is_absolute() else implied / path


class NpzFiles:
    """Finds the files that `la_path` names."""

    def __init__(self, root: Path, card: DatasetCard, split: str, model: str) -> None:
        self._root = root
        stride = [f"{card.key}/stride_{card.actions.stride}/{split}/{model}"] if card.actions else []
        self._bare = [root / name for name in (folder_name(card.key, split, model), f"{card.key}/{model}", *stride)]
        self._folder: Path | None = None

    def find(self, cell: str) -> Path:
        """The file that a cell means: an absolute path, one below LARY_LA_DIR, or a bare name in a known layout."""
        path = PurePosixPath(cell.replace("\\", "/"))
        if path.is_absolute():
            return Path(path)
        if ".." in path.parts:
            raise ContractError(f"{LA_PATH} {cell!r} contains '..'; write the path without it")
        return self._root / path if len(path.parts) > 1 else self._layout() / path

    def shown(self, path: Path) -> str:
        """A file's name for people; without the root, so that it is the same wherever the files lie."""
        return (path.relative_to(self._root) if path.is_relative_to(self._root) else path).as_posix()

    def _layout(self) -> Path:
        if self._folder is None:
            there = [folder for folder in self._bare if next(folder.glob("*.npz"), None)]
            if len(there) != 1:
                names = ", ".join(map(str, there or self._bare))
                fault = "all hold" if there else "none holds"
                raise ContractError(f"{names}: {fault} .npz files; {LA_PATH} gives bare names, so exactly one has to")
            self._folder = there[0]
        return self._folder
