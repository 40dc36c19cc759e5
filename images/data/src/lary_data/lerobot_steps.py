"""The rows of a LeRobot dataset's tables, held against what `meta/` says of them: which episodes are all there.

Only the columns that number the rows are read, and at every call: what one call refuses, the next one does too.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault
from numpy.typing import NDArray

from lary_data.lerobot import Episode, LeRobot

Faults = dict[int, str]
"""Episode -> why it is left out."""
Times = NDArray[np.float64]
_NUMBERS = ("episode_index", "frame_index")
TIME = "timestamp"


@dataclass
class Steps:
    """What the tables hold."""

    times: dict[int, Times] = field(default_factory=dict)
    """Episode that is all there -> (length,) the time of each of its rows, in seconds."""
    faults: Faults = field(default_factory=dict)
    rows: int = 0
    """Of all tables."""
    untimed: list[str] = field(default_factory=list)
    """Tables without a column `timestamp`: their rows' times are the row's number by fps."""


class _Table(NamedTuple):
    """The numbers of a table's rows, sorted by episode and frame."""

    episodes: NDArray[np.int64]
    frames: NDArray[np.int64]
    times: Times | None


def read_steps(dataset: LeRobot, tolerance_s: float) -> Steps:
    """Read every table. An episode whose rows are not those that `meta/` says is a fault; so is one of a table's rows
    that `meta/` does not list there.

    Raises ContractError where all tables together have another number of rows than `meta/info.json` says, and the
    lengths of the episodes have it neither.
    """
    by_file: dict[str, list[Episode]] = defaultdict(list)
    for episode in dataset.episodes:
        by_file[episode.data].append(episode)
    steps = Steps()
    for file, episodes in by_file.items():
        try:
            table = _read(Path(file))
        except ContractError as error:
            steps.faults |= dict.fromkeys((episode.number for episode in episodes), str(error))
            continue
        steps.rows += len(table.episodes)
        if table.times is None:
            steps.untimed.append(file)
        _check_episodes(table, episodes, file, 1 / dataset.fps, tolerance_s, steps)
    for number in steps.faults:
        steps.times.pop(number, None)
    _check_total(dataset, steps)
    return steps


def _check_total(dataset: LeRobot, steps: Steps) -> None:
    said, lengths = dataset.total_frames, sum(episode.length for episode in dataset.episodes)
    if said is not None and said not in (lengths, steps.rows):
        raise ContractError(
            f"{dataset.root / 'meta' / 'info.json'}: total_frames is {said}; the episodes' lengths add up to "
            f"{lengths}, the tables have {steps.rows} rows. Complete the dataset, or correct the number"
        )


def _read(path: Path) -> _Table:
    """Raises ContractError for a file that is no table of numbered rows."""
    try:
        if not path.is_file():
            raise ContractError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
        if is_lfs_pointer(path):
            raise ContractError(pointer_fault(path))
        timed = TIME in pyarrow.parquet.read_schema(path).names
        columns = [*_NUMBERS, *([TIME] if timed else [])]
        table = pyarrow.parquet.read_table(path, columns=columns).select(columns)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise ContractError(f"{path}: no table with {', '.join(_NUMBERS)}: {error}") from None
    episodes, frames = (_integers(path, table, name) for name in _NUMBERS)
    order = np.lexsort((frames, episodes))
    times = _numbers(path, table, TIME)[order] if timed else None
    return _Table(episodes[order], frames[order], times)


def _integers(path: Path, table: "pyarrow.Table", name: str) -> NDArray[np.int64]:
    if not pyarrow.types.is_integer(table.schema.field(name).type):
        raise ContractError(f"{path}: {name} holds {table.schema.field(name).type}, integers expected")
    if table[name].null_count:
        raise ContractError(f"{path}: {name} is empty in {table[name].null_count} rows")
    values: NDArray[np.int64] = table[name].to_numpy().astype(np.int64)
    return values


def _numbers(path: Path, table: "pyarrow.Table", name: str) -> Times:
    """Empty cells are NaN."""
    kind = table.schema.field(name).type
    if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)):
        raise ContractError(f"{path}: {name} holds {kind}, numbers of seconds expected")
    values: Times = table[name].to_numpy().astype(np.float64)
    return values


def _check_episodes(
    table: _Table, episodes: list[Episode], file: str, step_s: float, tolerance_s: float, steps: Steps
) -> None:
    known = {episode.number for episode in episodes}
    for number in sorted(set(np.unique(table.episodes).tolist()) - known):
        steps.faults.setdefault(number, f"{file} holds rows of it, which meta/ does not list there")
    for episode in episodes:
        first, stop = np.searchsorted(table.episodes, [episode.number, episode.number + 1])
        frames = table.frames[first:stop]
        times = np.asarray(frames * step_s if table.times is None else table.times[first:stop], np.float64)
        if fault := _fault(frames, times, episode.length, step_s, tolerance_s):
            steps.faults[episode.number] = f"{file}: episode {episode.number}: {fault}"
        else:
            steps.times[episode.number] = times


def _fault(frames: NDArray[np.int64], times: Times, length: int, step_s: float, tolerance_s: float) -> str | None:
    """What is wrong with the rows of an episode."""
    if not np.array_equal(frames, np.arange(length)):
        return f"its {len(frames)} rows are not frames 0 to {length - 1}, which meta/ says"
    if not np.isfinite(times).all():
        return f"a {TIME} is empty or not finite"
    wrong = np.flatnonzero(np.abs(np.diff(times) - step_s) > tolerance_s)
    if len(wrong):
        at = int(wrong[0])
        return f"{TIME} goes from {times[at]:g} to {times[at + 1]:g} s at frame {at}, the step is {step_s:g} s by fps"
    return None
