"""LARYBench's .npz files: what a file holds is not a matter of luck."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_data.npz import read_latent, read_sums
from lary_schema.metadata import RowError

TOKENS = np.ones((3, 4), np.float32)


def write(path: Path, *members: tuple[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in members:
            buffer = io.BytesIO()
            np.save(buffer, values)
            archive.writestr(name, buffer.getvalue())
    return path


@pytest.mark.parametrize(
    "codes",
    [
        np.array([2**63], np.uint64), np.array([2**64 - 1, 0], np.uint64), np.array([-1], np.int64),
        np.array([[3, -7]], np.int8), np.array([-(2**63)], ">i8"),
    ],
)  # fmt: skip
def test_negative_codes_are_a_failed_row(tmp_path: Path, codes: Any) -> None:
    path = write(tmp_path / "a.npz", ("tokens.npy", TOKENS), ("indices.npy", codes))
    with pytest.raises(RowError, match="codes from 0 on expected"):
        read_latent(path)


@pytest.mark.parametrize("dtype", ["u1", "<u8", ">i4", "i8"])
def test_codes_of_every_width(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "a.npz", ("tokens.npy", TOKENS), ("indices.npy", np.array([0, 127], dtype)))
    latent, _ = read_latent(path)
    assert latent.indices is not None
    assert latent.indices.dtype == np.int64
    assert latent.indices.tolist() == [0, 127]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", ["tokens.npy", "indices.npy", "other.npy"])
@pytest.mark.parametrize("read", [read_sums, read_latent])
def test_duplicate_members_are_a_failed_row(tmp_path: Path, twice: str, read: Any) -> None:
    path = write(
        tmp_path / "a.npz", ("tokens.npy", TOKENS), ("indices.npy", np.arange(2)), ("other.npy", TOKENS),
        (twice, 2 * TOKENS),
    )  # fmt: skip
    with pytest.raises(RowError, match=f"holds {twice} more than once"):
        read(path)


def test_a_header_that_lies_is_a_failed_row(tmp_path: Path) -> None:
    for shape in [(10**9, 10**9), (10**30, 4), (4, 4), (-3, 4)]:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("tokens.npy", buffer.getvalue() + TOKENS.tobytes())
        with pytest.raises(RowError, match="no whole"):
            read_latent(tmp_path / "a.npz")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    for path in (tmp_path / "a.npz", tmp_path):
        with pytest.raises(RowError, match="no regular file"):
            read_sums(path)
