"""Action files: one .npy per row with a chunk of steps. Needs `lary-schema[store]`."""

import math
import struct
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault


class UnfitChunkError(ContractError):
    """A whole array of numbers, and not the chunk that was expected."""


def read_chunk(path: Path, stride: int, dim: int, name: str | None = None) -> NDArray[np.float64]:
    """(stride, dim) physical actions; the file may hold them flat. Errors call it by `name`, else by its path.

    Booleans count as 0 and 1. Raises UnfitChunkError for another shape and for values that are not finite,
    ContractError for a file that cannot be read (its cause is the OSError) or is no plain array of numbers.
    """
    called = f"action file {name or path}"
    try:
        values = _read_array(path)
    except OSError as error:
        raise ContractError(f"{called} cannot be read: {error.strerror or error}") from error
    except _NO_ARRAY as error:
        raise ContractError(f"{called} is no plain .npy array: {error}") from None
    if values.dtype.kind not in "fiub":
        raise ContractError(f"{called} is no plain .npy array of numbers")
    if values.shape not in ((stride, dim), (stride * dim,)):
        raise UnfitChunkError(f"{called} has shape {values.shape}, expected {(stride, dim)} or {(stride * dim,)}")
    if not np.isfinite(values).all():
        raise UnfitChunkError(f"{called} holds values that are not finite")
    return values.astype(np.float64).reshape(stride, dim)


_NO_ARRAY = (ValueError, EOFError, TypeError, OverflowError, SyntaxError, RecursionError, TokenError, struct.error)
"""What numpy raises on bytes that are no array."""
_HEADER_MAX = 1 << 16
"""Bytes; numpy parses no more than 10,000."""


def _read_array(path: Path) -> NDArray[Any]:
    """A regular file's array, of the size that its header says: numpy would make room first and read then."""
    if not path.is_file() and path.exists():
        raise ValueError("it is no regular file")
    if is_lfs_pointer(path):
        raise ValueError(pointer_fault(path))
    with path.open("rb") as file:
        shape, fortran, dtype = _parsed(_header(file))
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which can run code when they are read")
        content = file.read()
    promised = math.prod(shape) * dtype.itemsize
    if len(content) != promised:
        raise ValueError(f"its header promises {promised} bytes of values, {len(content)} are there")
    values = np.frombuffer(content, dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _header(file: BinaryIO) -> bytes:
    """From the magic to the end of what describes the array, or what there is of it."""
    begin = file.read(npy.MAGIC_LEN)
    length = file.read(2 if begin[-2:-1] == b"\x01" else 4)
    return begin + length + file.read(min(int.from_bytes(length, "little"), _HEADER_MAX))


@lru_cache(maxsize=64)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Numpy parses it as a Python literal, which takes longer than the rest; the chunks of a set have the same one."""
    file = BytesIO(header)
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    parsed: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return parsed
