"""Relative actions, last step of a chunk minus its first: a file per row, in a folder of their own, and statistics."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from lary_schema.atomic import replacing
from lary_schema.base import ContractError
from lary_schema.chunks import read_chunk
from numpy.typing import NDArray

from lary_data.actions import ActionFile, Missing, Table, actions_of
from lary_data.progress import Tick
from lary_data.statistics import Pooled, pool, robot_column, set_folder

ABSOLUTE, RELATIVE = "regression", "regression_relative"
"""First folder of LARYBench's paths, and what it becomes."""
Outcome = Literal["written", "kept", "replaced"]


class Relatives:
    """Writes the relative action of every row of one set's CSVs, and counts what it did."""

    def __init__(self, tables: Sequence[Table], root: Path, *, overwrite: bool) -> None:
        self.missing = Missing()
        self.total = 0
        # Appended by several threads, which a counter would not stand.
        self._outcomes: list[Outcome] = []
        self._tables = tables
        self._files = tables[0].files
        self._actions = actions_of(self._files)
        self._root = root
        self._overwrite = overwrite

    def run(self, workers: int, tick: Tick) -> Pooled:
        """Write all files; the statistics of the train split's rows."""
        train = self._files.card.splits.train
        first = self._pool([table for table in self._tables if table.split == train], workers, tick)
        self._pool([table for table in self._tables if table.split != train], workers, tick)
        return first

    def _pool(self, tables: Sequence[Table], workers: int, tick: Tick) -> Pooled:
        found = pool(tables, robot_column(self._actions.relative), self._make, workers, tick)
        self.missing += found.missing
        self.total += found.total
        return found

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(self._outcomes)

    def _make(self, file: ActionFile) -> NDArray[np.float64]:
        """(1, dim): what the row's file holds afterwards."""
        target = self._root / relative_path(file.path, self._files.data)
        values = None if self._overwrite else _read(target, self._actions.dim)
        if values is not None:
            self._outcomes.append("kept")
        else:
            chunk = read_chunk(file.path, self._actions.stride, self._actions.dim)
            values = (chunk[-1] - chunk[0]).astype(np.float32)
            self._outcomes.append("replaced" if target.exists() else "written")
            _write(target, values)
        return np.array(values[None], np.float64)


def relative_path(path: Path, data: Path) -> PurePosixPath:
    """Where an action file's relative one belongs below the output root.

    Raises ContractError for a file outside the data root: two of them could get one path.
    """
    if not path.is_relative_to(data):
        raise ContractError(
            f"action file {path} is outside the data root {data}, so there is no path for its relative one"
        )
    return _moved(PurePosixPath(path.relative_to(data)))


def _moved(path: PurePosixPath) -> PurePosixPath:
    parts = path.parts[1:] if path.parts[:1] == (ABSOLUTE,) else path.parts
    return PurePosixPath(RELATIVE, *parts)


def _read(path: Path, dim: int) -> NDArray[np.float32] | None:
    """An earlier call's file; None for none, and for one of another shape or with values that cannot be."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(values, np.ndarray) and values.shape == (dim,) and values.dtype == np.float32
    return values if whole and np.isfinite(values).all() else None


def _write(path: Path, values: NDArray[np.float32]) -> None:
    # Several rows may name one action file, so several threads may write one target at once. Without a sync per
    # file: an unfinished one is noticed by `_read`.
    with replacing(path, sync=False) as draft, draft.open("wb") as file:
        np.save(file, values)


def statistics_json(pooled: Pooled, tables: Sequence[Table]) -> dict[str, Any]:
    """LARYBench's document (`utils/prepare_relative_actions.py`): per robot, or one for all."""
    files = tables[0].files
    common = {
        "action_mode": "relative",
        "definition": "last action step minus first action step",
        "dataset": files.card.key,
    }
    everything = pooled.everything().as_json()
    if robot_column(actions_of(files).relative) is None:
        return common | everything
    return common | {"robot_stats": pooled.robots_json()}


def statistics_path(tables: Sequence[Table], root: Path) -> Path:
    """Where LARYBench looks for the document."""
    files = tables[0].files
    folder = _moved(PurePosixPath(set_folder(actions_of(files).folder)))
    return root / folder / f"relative_action_stats_{files.card.key}.json"
