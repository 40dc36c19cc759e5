"""Action files: one .npy per row with a chunk of steps. Needs `lary-schema[store]`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lary_schema.base import ContractError


def read_chunk(path: Path, stride: int, dim: int) -> NDArray[np.float64]:
    """(stride, dim) physical actions; the file may hold them flat.

    Raises ContractError naming the file for one that cannot be read, is no plain array of numbers, has another
    shape, or holds values that are not finite.
    """
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
    return values.astype(np.float64).reshape(stride, dim)
