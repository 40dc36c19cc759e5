"""Action files: every plain array of numbers is read, everything else is one message."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from lary_schema.base import ContractError
from lary_schema.chunks import UnfitChunkError, read_chunk

VALUES = np.array([[1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "f2", "i1", "<u8", ">i4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_numbers_of_every_kind(tmp_path: Path, dtype: str, order: str, flat: bool, version: tuple[int, int]) -> None:
    values = VALUES.astype(dtype, order="C" if order == "C" else "F")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, values.ravel() if flat else values, version)
    found = read_chunk(tmp_path / "a.npy", 2, 3)
    assert found.dtype == np.float64
    assert found.tolist() == VALUES.tolist()


def npy(values: object, **changes: object) -> bytes:
    """An .npy file whose header says something else than its values."""
    buffer = io.BytesIO()
    array = np.asarray(values)
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | changes
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


LIES = {
    "a longer shape": npy(VALUES, shape=(4, 3)),
    "a shape of exabytes": npy(VALUES, shape=(10**9, 10**9)),
    "a shape beyond 64 bits": npy(VALUES, shape=(10**30, 3)),
    "a negative shape": npy(VALUES, shape=(-2, -3)),
    "a shape of a text": npy(VALUES, shape="23"),
    "another dtype": npy(VALUES, descr="<f2"),
    "no dtype": npy(VALUES, descr="<x9"),
    "objects": npy(VALUES, descr="|O"),
    "bytes behind": npy(VALUES) + b"x",
    "cut": npy(VALUES)[:-1],
    "no values": npy(VALUES)[: -VALUES.nbytes],
    "cut in the header": npy(VALUES)[:40],
    "cut in the magic": npy(VALUES)[:5],
    "empty": b"",
    "text": b"1,2,3\n4,5,6\n",
    "a long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{",
    "a nested header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
    "a later version": b"\x93NUMPY\x09\x00" + npy(VALUES)[8:],
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "texts": npy(np.array([["a"] * 3] * 2)),
    "complex": npy(VALUES.astype(complex)),
    "times": npy(VALUES.astype("m8[s]")),
    "records": npy(np.zeros((2, 3), [("x", "f4")]), descr=[("x", "<f4")]),
}


@pytest.mark.parametrize("case", LIES)
def test_what_is_no_plain_array_is_one_message(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.npy").write_bytes(LIES[case])
    with pytest.raises(ContractError, match=r"action file named is no plain \.npy array") as caught:
        read_chunk(tmp_path / "a.npy", 2, 3, "named")
    assert not isinstance(caught.value, UnfitChunkError)


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, a=VALUES)
    with pytest.raises(ContractError, match="no plain"):
        read_chunk(tmp_path / "a.npy", 2, 3)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ContractError, match="no regular file"):
        read_chunk(tmp_path / "pipe", 2, 3)
    with pytest.raises(ContractError, match="no regular file"):
        read_chunk(tmp_path, 2, 3)
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        read_chunk(tmp_path / "absent", 2, 3)


@pytest.mark.parametrize("values", [np.ones((3, 2)), np.ones(5), np.ones(()), np.full((2, 3), np.nan)])
def test_another_chunk_does_not_fit(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UnfitChunkError):
        read_chunk(tmp_path / "a.npy", 2, 3)
