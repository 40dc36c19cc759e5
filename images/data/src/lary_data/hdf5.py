"""HDF5 files, by h5py: what is missing or damaged is named with its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from lary_schema.files import is_lfs_pointer, pointer_fault
from numpy.typing import NDArray

from lary_data.pool import TaskFaultError


@contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    """The file, to read. Raises TaskFaultError where it is not whole or no HDF5; errors of the volume stay OSError."""
    if not path.is_file():
        raise TaskFaultError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    if is_lfs_pointer(path):
        raise TaskFaultError(pointer_fault(path))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        if error.errno is not None:
            raise
        raise TaskFaultError(f"{path}: not a whole HDF5 file: {_said(error)}") from None
    except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise TaskFaultError(f"{path}: cannot be read: {_said(error)}") from None


def array(group: "h5py.Group", name: str, where: str) -> NDArray[Any]:
    """A dataset as an array. Raises TaskFaultError naming what is there instead."""
    return np.asarray(dataset(group, name, where)[()])


def dataset(group: "h5py.Group", name: str, where: str) -> Any:
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise TaskFaultError(f"{where}: no {name}; there: {', '.join(sorted(group)) or 'nothing'}")
    return found


def text(value: Any) -> str:
    """An attribute as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _said(error: BaseException) -> str:
    return str(error).partition("\n")[0]
