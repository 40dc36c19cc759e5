"""Action chunks: reading them, and what of them is predicted."""

from collections.abc import Callable

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from lary_schema.chunks import read_chunk
from lary_schema.media import action_files
from lary_schema.mounts import Mounts
from numpy.typing import NDArray

from lary_probe.metadata import SplitMetadata
from lary_probe.scales import Scale, Steps

Chunks = NDArray[np.float64]
"""(n, stride, dim) physical actions."""


def read_chunks(
    metadata: SplitMetadata, rows: NDArray[np.int64], actions: Actions, mounts: Mounts, tick: Callable[[], None]
) -> Chunks:
    """The chunks of some rows of the CSV; `tick` is called after each.

    They are the ground truth, so one that cannot be used is a ContractError naming file and row,
    never a smaller set.
    """
    split = metadata.split
    files = action_files(actions, split.name, mounts.data, split.source.host_data)
    chunks = np.empty((len(rows), actions.stride, actions.dim))
    for index, row in enumerate(rows.tolist()):
        cell = metadata.cell(row, actions.column)
        try:
            chunks[index] = read_chunk(files.find(cell), actions.stride, actions.dim)
        except ContractError as error:
            raise ContractError(f"{metadata.path}: row {row}: {error}") from None
        tick()
    return chunks


def relative_actions(chunks: Chunks) -> Steps:
    """(n, 1, dim): the last step of each chunk minus its first."""
    return chunks[:, -1:] - chunks[:, :1]


def standardised(steps: Steps, scale: Scale) -> NDArray[np.float32]:
    """(n, steps * dim), step by step."""
    values = steps - scale.mean
    values /= scale.std
    return values.reshape(len(values), -1).astype(np.float32)
