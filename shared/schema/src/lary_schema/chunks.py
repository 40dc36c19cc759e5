"""Action files: one .npy per row with a chunk of steps. Needs `lary-schema[store]`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lary_schema.base import ContractError


class UnfitChunkError(ContractError):
    """A whole array of numbers, and not the chunk that was expected."""


def read_chunk(path: Path, stride: int, dim: int, name: str | None = None) -> NDArray[np.float64]:
    """(stride, dim) physical actions; the file may hold them flat. Errors call it by `name`, else by its path.

    Raises UnfitChunkError for another shape and for values that are not finite, ContractError for a file that
    cannot be read or is no plain array of numbers.
    """
    called = f"action file {name or path}"
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ContractError(f"{called} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise ContractError(f"{called} is no plain .npy array: {error}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ContractError(f"{called} is no plain .npy array of numbers")
    if values.shape not in ((stride, dim), (stride * dim,)):
        raise UnfitChunkError(f"{called} has shape {values.shape}, expected {(stride, dim)} or {(stride * dim,)}")
    if not np.isfinite(values).all():
        raise UnfitChunkError(f"{called} holds values that are not finite")
    return values.astype(np.float64).reshape(stride, dim)
