"""Action chunks: reading them, and what of them is predicted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from lary_schema.mounts import Mounts, resolve_media
from numpy.typing import NDArray

from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata
from lary_probe.scales import Scale, Steps

Chunks = NDArray[np.float64]
"""(n, stride, dim) physical actions."""


def read_chunks(
    metadata: SplitMetadata, latents: Latents, actions: Actions, mounts: Mounts, tick: Callable[[], None]
) -> Chunks:
    """The chunks of the rows with a latent; `tick` is called after each.

    They are the ground truth, so one that cannot be used is a ContractError naming file and row,
    never a smaller set.
    """
    folder = mounts.data / actions.folder.replace("{split}", metadata.split.name)
    chunks = np.empty((len(latents), actions.stride, actions.dim))
    for place, row in enumerate(latents.rows.tolist()):
        cell = metadata.cell(row, actions.column)
        try:
            path = resolve_media(cell, folder, mounts.data, metadata.split.source.host_data, actions.implied_folder)
            chunks[place] = _read_chunk(path, actions.stride, actions.dim)
        except ContractError as error:
            raise ContractError(f"{metadata.path}: row {row}: {error}") from None
        tick()
    return chunks


def _read_chunk(path: Path, stride: int, dim: int) -> Chunks:
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ContractError(f"action file {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise ContractError(f"action file {path} is no plain .npy array: {error}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ContractError(f"action file {path} is no plain .npy array of numbers")
    if values.shape not in ((stride, dim), (stride * dim,)):
        raise ContractError(
            f"action file {path} has shape {values.shape}, expected {(stride, dim)} or {(stride * dim,)}"
        )
    if not np.isfinite(values).all():
        raise ContractError(f"action file {path} holds values that are not finite")
    chunk: Chunks = values.astype(np.float64).reshape(stride, dim)
    return chunk


def relative_actions(chunks: Chunks) -> Steps:
    """(n, 1, dim): the last step of each chunk minus its first."""
    return chunks[:, -1:] - chunks[:, :1]


def standardised(steps: Steps, scale: Scale) -> NDArray[np.float32]:
    """(n, steps * dim), step by step."""
    values = steps - scale.mean
    values /= scale.std
    return values.reshape(len(values), -1).astype(np.float32)
