"""Rows of models that read actions: which file of the CSV, and its numbers. No media is opened."""

from pathlib import Path

import numpy as np
from lary_schema.base import ContractError
from lary_schema.chunks import read_chunk
from lary_schema.files import is_lfs_pointer
from lary_schema.jobs import ActionRows, ExtractJob
from lary_schema.metadata import Row, RowError, read_rows
from lary_schema.mounts import Mounts
from numpy.typing import NDArray

from lary_worker.faults import RowFaultError, from_os_error
from lary_worker.rows import Metadata


class ActionMetadata(Metadata):
    """The metadata CSV of a job whose rows are action files."""

    def __init__(self, job: ExtractJob, actions: ActionRows, mounts: Mounts) -> None:
        super().__init__(job, mounts)
        self._column = actions.column
        self._media = mounts.data / actions.folder
        self._implied_folder = actions.implied_folder
        self._is_clip = False

    def verify(self) -> None:
        """Compare the file with the plan. Raises ContractError saying what differs."""
        super().verify()
        next(read_rows(self._path, (self._column,)), None)

    def _cells(self, row: Row) -> tuple[str, ...]:
        try:
            return (row[self._column],)
        except RowError as error:
            raise RowFaultError("bad_row", str(error)) from None

    def require_media(self) -> None:
        """Refuse to fail row after row where the whole folder is not there. Raises ContractError."""
        if not self._media.is_dir():
            raise ContractError(f"{self._media}: the folder of the actions is missing; mount it, or give --data")


def metadata_of(job: ExtractJob, mounts: Mounts) -> Metadata:
    """The rows of a job: of frames, or of actions."""
    actions = job.values.actions
    return Metadata(job, mounts) if actions is None else ActionMetadata(job, actions, mounts)


def read_actions(path: Path, name: str, stride: int, dim: int) -> NDArray[np.float64]:
    """(stride, dim) physical actions of a row; `name` is the CSV's own text. Raises RowFaultError."""
    try:
        if is_lfs_pointer(path):
            raise RowFaultError("missing_file", f"{name}: is a Git LFS pointer; fetch the file with `git lfs pull`")
        return read_chunk(path, stride, dim, name)
    except OSError as error:
        raise from_os_error(error, name, missing=True) from None
    except ContractError as error:
        if isinstance(error.__cause__, OSError):
            raise from_os_error(error.__cause__, name, missing=True) from None
        raise RowFaultError("decode_error", str(error)) from None
