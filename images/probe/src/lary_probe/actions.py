"""Action chunks: reading them, and what of them is predicted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from lary_schema.chunks import read_chunk
from lary_schema.media import action_files
from lary_schema.mounts import Mounts
from numpy.typing import NDArray

from lary_probe.kept_actions import BLOCK, KeptActions
from lary_probe.metadata import SplitMetadata
from lary_probe.scales import Scale, Steps

Chunks = NDArray[np.float64]
"""(n, stride, dim) physical actions."""


def read_chunks(
    metadata: SplitMetadata,
    rows: NDArray[np.int64],
    actions: Actions,
    mounts: Mounts,
    tick: Callable[[], None],
    kept: KeptActions,
    first: int = 0,
) -> Chunks:
    """The chunks of some rows of the CSV, rising; `tick` is called now and then.

    `first` is the position in `kept` of the split's first row. Chunks are the ground truth, so one that cannot be used
    is a ContractError naming file and row, never a smaller set.
    """
    chunks = np.empty((len(rows), actions.stride, actions.dim))
    for start in range(0, len(rows), BLOCK):
        here = rows[start : start + BLOCK]
        paths, fault = _paths(metadata, here.tolist(), actions, mounts)
        into = chunks[start : start + len(paths)]
        for index in kept.fill(first + here[: len(paths)], paths, into):
            try:
                into[index] = read_chunk(paths[index], actions.stride, actions.dim)
            except ContractError as error:
                raise _of_row(metadata, int(here[index]), error) from None
            tick()
        if fault is not None:
            raise fault
        tick()
    return chunks


def _paths(
    metadata: SplitMetadata, rows: list[int], actions: Actions, mounts: Mounts
) -> tuple[list[Path], ContractError | None]:
    """The files of rows, up to the first cell that names none, and what is wrong with that one."""
    split, found = metadata.split, list[Path]()
    files = action_files(actions, split.name, mounts.data, split.source.host_data)
    for row in rows:
        try:
            cell = metadata.cell(row, actions.column)
        except ContractError as error:
            return found, error
        try:
            found.append(files.find(cell))
        except ContractError as error:
            return found, _of_row(metadata, row, error)
    return found, None


def _of_row(metadata: SplitMetadata, row: int, error: ContractError) -> ContractError:
    return ContractError(f"{metadata.path}: row {row}: {error}")


def relative_actions(chunks: Chunks) -> Steps:
    """(n, 1, dim): the last step of each chunk minus its first."""
    return chunks[:, -1:] - chunks[:, :1]


def standardised(steps: Steps, scale: Scale) -> NDArray[np.float32]:
    """(n, steps * dim), step by step."""
    values = steps - scale.mean
    values /= scale.std
    return values.reshape(len(values), -1).astype(np.float32)
