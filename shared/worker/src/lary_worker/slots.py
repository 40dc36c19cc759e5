"""Where decode processes put rows: one anonymous block of shared memory, a slot a row.

Made by memfd and not by name in /dev/shm: nothing is left behind by a killed worker, and a container's
shm limit does not apply (its memory limit does).
"""

import math
import mmap
import os
from typing import Any

import numpy as np
from lary_schema.cards import TensorSpec
from numpy.typing import NDArray


def make_memory(spec: TensorSpec, count: int) -> int:
    """Shared memory for `count` rows of `spec`; its file descriptor."""
    fd = os.memfd_create("lary-rows", os.MFD_CLOEXEC)
    os.ftruncate(fd, max(1, count * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize))
    return fd


def map_memory(fd: int, spec: TensorSpec, count: int) -> NDArray[Any]:
    """The memory of `make_memory` as an array (count, *spec.shape)."""
    block = mmap.mmap(fd, 0)
    return np.frombuffer(block, spec.dtype, count * math.prod(spec.shape)).reshape(count, *spec.shape)
