"""What a file is, known without reading it whole."""

from pathlib import Path

import pytest
from lary_schema.base import path_sha256
from lary_schema.files import is_lfs_pointer, visible_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("content", "pointer"), [(POINTER, True), (POINTER[:22], False), (b" " + POINTER, False), (b"", False)]
)
def test_a_pointer_is_known_by_its_first_bytes(tmp_path: Path, content: bytes, pointer: bool) -> None:
    (tmp_path / "file").write_bytes(content)
    assert is_lfs_pointer(tmp_path / "file") == pointer


def test_only_files_are_pointers(tmp_path: Path) -> None:
    assert not is_lfs_pointer(tmp_path)
    assert not is_lfs_pointer(tmp_path / "absent")


def test_hidden_files_are_not_part_of_a_folder(tmp_path: Path) -> None:
    root = tmp_path / ".hidden_itself"
    for name in ("b", "a/c", "a/.d", ".e/f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert [path.relative_to(root).as_posix() for path in visible_files(root)] == ["a/c", "b"]
    assert visible_files(root / "b") == [root / "b"]
    before = path_sha256(root)
    (root / "a/.d").write_text("other")
    assert path_sha256(root) == before
    (root / "a/c").write_text("other")
    assert path_sha256(root) != before
