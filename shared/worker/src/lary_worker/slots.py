"""Where decode processes put rows: one anonymous block of shared memory, a slot a row.

Made by memfd and not by name in /dev/shm: nothing is left behind by a killed worker, and a container's
shm limit does not apply (its memory limit does).
"""

import math
import mmap
import os
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from lary_schema.cards import TensorSpec
from numpy.typing import NDArray


class Memory(NamedTuple):
    """The block as arrays."""

    rows: NDArray[Any]
    """(count, *spec.shape)."""
    states: NDArray[np.uint8]
    """(count,): how far the row of a slot is, for whoever finds its process dead; the values are those of `State`."""


class State(IntEnum):
    """How far a row is. What it is before the last two may be lost with its process."""

    GIVEN = 0
    PREPROCESSING = 1
    DONE = 2
    DONE_CLAMPED = 3


def make_memory(spec: TensorSpec, count: int) -> int:
    """Shared memory for `count` rows of `spec`; its file descriptor."""
    fd = os.memfd_create("lary-rows", os.MFD_CLOEXEC)
    os.ftruncate(fd, _rows_bytes(spec, count) + count)
    return fd


def map_memory(fd: int, spec: TensorSpec, count: int) -> Memory:
    """The memory of `make_memory`."""
    block = mmap.mmap(fd, 0)
    rows = np.frombuffer(block, spec.dtype, count * math.prod(spec.shape)).reshape(count, *spec.shape)
    return Memory(rows, np.frombuffer(block, np.uint8, count, _rows_bytes(spec, count)))


def _rows_bytes(spec: TensorSpec, count: int) -> int:
    return count * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
