"""A disk that refuses a write: whole files or none, and a line that says which and what to do."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from lary_schema.atomic import FULL_DISK, making, publish_text, refused, replacing


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The kernel refuses to make a file longer, as a full disk would (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("size", [0, 1, 4096, 49_999])
def test_what_the_kernel_refuses_leaves_the_file_as_it_was(tmp_path: Path, size: int, old: str | None) -> None:
    path = tmp_path / "a" / "file.json"
    if old is not None:
        publish_text(path, old)
    with files_end_at(size), pytest.raises(OSError, match="File too large") as caught:
        publish_text(path, "x" * 50_000)
    assert refused(caught.value) == f"{path}: File too large; make room, and run the same command again"
    assert [one.read_text() for one in path.parent.iterdir()] == ([] if old is None else [old])
    with files_end_at(50_000):
        publish_text(path, "x" * 50_000)
    assert path.stat().st_size == 50_000


def test_a_library_that_writes_is_refused_alike(tmp_path: Path) -> None:
    table = pyarrow.table({"x": list(range(5000))})
    path = tmp_path / "t.parquet"
    with files_end_at(100), pytest.raises(OSError) as caught, replacing(path) as draft:
        pyarrow.parquet.write_table(table, draft)
    said = refused(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.endswith("; make room, and run the same command again")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [*FULL_DISK, errno.EROFS, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("named", [None, "draft", "elsewhere"])
def test_the_error_names_the_file_and_not_its_draft(tmp_path: Path, number: int, named: str | None) -> None:
    path = tmp_path / "file"

    def write(draft: Path) -> None:
        names.append({"draft": str(draft), "elsewhere": "/elsewhere"}.get(str(named)))
        raise OSError(number, os.strerror(number), names[0])

    names: list[str | None] = []
    with pytest.raises(OSError) as caught, replacing(path) as draft:
        write(draft)
    full = number in FULL_DISK
    assert caught.value.filename == (names[0] if named == "elsewhere" or not full else str(path))
    assert ("make room" in refused(caught.value)) == full
    assert refused(OSError(number, "so"), path).startswith(f"{path}: so")


def test_in_a_folder_that_is_made_the_file_is_named_as_it_would_be(tmp_path: Path) -> None:
    folder = tmp_path / "made"

    def write(draft: Path) -> None:
        (draft / "deep").mkdir()
        with replacing(draft / "deep/a.txt") as file, file.open("w") as stream:
            stream.write("x" * 5000)

    with files_end_at(100), pytest.raises(OSError, match="File too large") as caught, making(folder) as draft:
        write(draft)
    assert caught.value.filename == str(folder / "deep/a.txt")
    assert list(tmp_path.iterdir()) == []


def test_two_names_are_both_said() -> None:
    assert refused(OSError(errno.EXDEV, "so", "a", None, b"b")) == "a -> b: so"
    assert refused(OSError("only words")) == "only words"
