"""Frames of a video next to a table of steps: as many as there are steps."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from lary_schema.files import is_lfs_pointer, pointer_fault
from lary_worker.decode import decode_in_order, upright
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray

from lary_data.pool import TaskFaultError


def video_frames(path: Path, length: int, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Decode a video to its end. Raises TaskFaultError for one that is missing, damaged, or of another length."""
    if not path.is_file():
        raise TaskFaultError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    if is_lfs_pointer(path):
        raise TaskFaultError(pointer_fault(path))
    chosen, count = frozenset(wanted), 0
    try:
        with closing(decode_in_order(path, path.name)) as frames:
            for frame in frames:
                if count in chosen:
                    yield upright(frame, path.name)
                count += 1
    except RowFaultError as fault:
        raise TaskFaultError(f"{path}: {fault.detail}") from None
    if count != length:
        raise TaskFaultError(f"{path}: {count} frames, its table has {length} steps")
