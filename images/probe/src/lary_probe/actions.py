"""Regression targets: action chunks, standardised per dimension.

Relative targets (last step minus first) are another function from a chunk (stride, dim) to a vector,
with their own statistics; they belong beside `absolute_targets`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions, Normalisation
from lary_schema.mounts import Mounts, resolve_media
from numpy.typing import NDArray

from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata

STD_MIN = 1e-6
"""A dimension that moves less counts as constant and is only centred (LARYBench)."""

Chunks = NDArray[np.float64]
"""(n, stride, dim) physical actions."""


class Scale(NamedTuple):
    """What (a - mean) / std subtracts and divides by; both (dim,) or (n, 1, dim)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, mean: NDArray[np.float64], std: NDArray[np.float64]) -> "Scale":
        return cls(mean, np.where(std < STD_MIN, 1.0, std))


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


def train_scale(chunks: Chunks) -> Scale:
    """Mean and population standard deviation of each dimension over all rows and steps."""
    return Scale.of(chunks.mean(axis=(0, 1)), chunks.std(axis=(0, 1)))


def split_scale(actions: Actions, train: Chunks, metadata: SplitMetadata, latents: Latents, mounts: Mounts) -> Scale:
    """What the card's normalisation says for the rows of one split; `train` are train's chunks."""
    normalisation = actions.normalisation
    if normalisation.kind == "train":
        return train_scale(train)
    if normalisation.kind == "fixed":
        return Scale.of(np.asarray(normalisation.mean), np.asarray(normalisation.std))
    return _robot_scale(actions, metadata, latents, mounts)


def absolute_targets(chunks: Chunks, scale: Scale) -> NDArray[np.float32]:
    """(n, stride * dim): every step of the chunk, standardised."""
    return ((chunks - scale.mean) / scale.std).reshape(len(chunks), -1).astype(np.float32)


def _robot_scale(actions: Actions, metadata: SplitMetadata, latents: Latents, mounts: Mounts) -> Scale:
    normalisation = actions.normalisation
    robots = _robot_stats(normalisation, actions.dim, mounts)
    scales = []
    for row in latents.rows.tolist():
        # An empty cell is `nan` in LARYBench's statistics: its tools read it as pandas' missing value.
        robot = metadata.row(row).get(normalisation.robot_column) or "nan"
        if robot not in robots:
            raise ContractError(
                f"{metadata.path}: row {row}: robot type {robot!r} (column {normalisation.robot_column!r}) is not in "
                f"{normalisation.stats}, which has {', '.join(sorted(robots))}; add its statistics there"
            )
        scales.append(robots[robot])
    return Scale(np.stack([s.mean for s in scales])[:, None], np.stack([s.std for s in scales])[:, None])


def _robot_stats(normalisation: Normalisation, dim: int, mounts: Mounts) -> dict[str, Scale]:
    if normalisation.stats is None:
        raise ContractError("normalisation per-robot needs stats: (a file below the data root) in the dataset card")
    path = mounts.data / normalisation.stats
    try:
        robots = json.loads(path.read_text(encoding="utf-8"))["robot_stats"]
        scales = {name: Scale.of(np.array(s["mean"], float), np.array(s["std"], float)) for name, s in robots.items()}
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ContractError(f'{path}: expected {{"robot_stats": {{TYPE: {{"mean": [...], "std": [...]}}}}}}') from None
    for name, scale in scales.items():
        if not scale.mean.shape == scale.std.shape == (dim,):
            raise ContractError(f"{path}: robot type {name!r} needs {dim} means and stds")
    return scales
