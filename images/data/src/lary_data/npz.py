"""One row's latent as LARYBench keeps it: an .npz with `tokens` and `indices`."""

import io
import math
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lary_schema.base import ContractError
from lary_schema.damage import DAMAGED_ARCHIVE
from lary_schema.metadata import RowError
from numpy.lib import format as npy
from numpy.typing import NDArray

TOKENS, INDICES = "tokens", "indices"


class Latent(NamedTuple):
    """The arrays of one file in their own shapes and dtypes."""

    tokens: NDArray[Any]
    indices: NDArray[np.int64] | None
    """None: the model has no codes (LARYBench writes an empty array)."""


class Sums(NamedTuple):
    """CRC-32 and size of both arrays, from the archive's directory: what a file holds, not how it is packed."""

    tokens: int
    tokens_bytes: int
    indices: int
    indices_bytes: int


def read_sums(path: Path) -> Sums:
    """The checksums of a file's arrays; reads its directory alone.

    Raises RowError, which does not name the file, for one that is missing, cut or has no tokens.
    """
    with _archive(path) as archive:
        return _sums(archive)


def read_latent(path: Path) -> tuple[Latent, Sums]:
    """A file's arrays and their checksums, which reading has proved.

    Raises RowError for a file that is missing, damaged, ambiguous or has no tokens or negative codes, ContractError
    for one that holds pickled objects or arrays of another kind: those are not LARYBench's.
    """
    with _archive(path) as archive:
        sums = _sums(archive)
        tokens = _read(archive, path, TOKENS)
        if tokens.dtype.kind != "f" or tokens.ndim not in (2, 3) or not tokens.size:
            raise ContractError(
                f"{path}: tokens are {tokens.dtype} {tokens.shape}; floats (N, D) or (T, N, D) expected"
            )
        indices = _read(archive, path, INDICES) if sums.indices_bytes else None
    return Latent(tokens, None if indices is None or not indices.size else _codes(indices, path)), sums


def write_latent(path: Path, latent: Latent, *, compress: bool) -> None:
    """Write a file as LARYBench does; not synced. The same latent gives the same bytes."""
    # LARYBench's own value for a model without codes.
    indices = np.array([]) if latent.indices is None else latent.indices
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, tokens=latent.tokens, indices=indices)
    path.write_bytes(buffer.getbuffer())


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open file; what reading it raises becomes a RowError."""
    if path.exists() and not path.is_file():
        raise RowError("no regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise RowError("no such file") from None
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise RowError(f"no whole .npz: {error}") from None


def _sums(archive: zipfile.ZipFile) -> Sums:
    members = {info.filename: (info.CRC, info.file_size) for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        names = Counter(info.filename for info in archive.infolist())
        raise RowError(f"holds {', '.join(name for name, count in names.items() if count > 1)} more than once")
    if f"{TOKENS}.npy" not in members:
        raise RowError(f"no array {TOKENS!r}; it has {', '.join(sorted(members)) or 'nothing'}")
    return Sums(*members[f"{TOKENS}.npy"], *members.get(f"{INDICES}.npy", (0, 0)))


def _read(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[Any]:
    content = archive.read(f"{name}.npy")
    start = _header_end(content)
    shape, fortran, dtype = _header(content[:start])
    if dtype.hasobject:
        raise ContractError(
            f"{path}: {name} holds pickled objects, which can run code when they are read; "
            "such a file is refused. Extract the row again, or empty its la_path"
        )
    if math.prod(shape) * dtype.itemsize != len(content) - start or min(shape, default=0) < 0:
        raise ValueError(f"{name} has another size than its header says")
    values = np.frombuffer(content, dtype, offset=start)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _header_end(content: bytes) -> int:
    """Where the values of an .npy begin: after magic, version, and the header by its length."""
    length = struct.Struct("<H" if content[6:7] == b"\x01" else "<I")
    start = npy.MAGIC_LEN
    return start + length.size + int(length.unpack_from(content, start)[0])


@lru_cache(64)
def _header(prefix: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; remembered, since parsing it takes longer than reading a small array."""
    member = io.BytesIO(prefix)
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return shape, fortran, dtype


def _codes(indices: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if indices.dtype.kind not in "iu" or indices.ndim not in (1, 2):
        raise ContractError(f"{path}: indices are {indices.dtype} {indices.shape}; integers (L,) or (T, L) expected")
    if indices.size and (indices.min() < 0 or indices.max() > np.iinfo(np.int64).max):
        raise RowError(f"indices from {indices.min()} to {indices.max()}; codes from 0 on expected")
    return indices.astype(np.int64)
