"""Metadata CSVs: what is accepted, what is refused, and what costs one row alone."""

import os
from pathlib import Path

import pytest
from lary_schema.base import ContractError
from lary_schema.metadata import Row, RowError, count_rows, parse_indices, read_rows


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_in_order_whatever_the_line_ends_and_marks(tmp_path: Path) -> None:
    text = '\ufeffvideo_path,action\r\nein clip ü/a b.mp4,"put, cup"\r\nc.mp4,x\r\n'
    rows = list(read_rows(write(tmp_path / "m.csv", text), ["video_path"]))
    assert [row.index for row in rows] == [0, 1]
    assert (rows[0]["video_path"], rows[0]["action"]) == ("ein clip ü/a b.mp4", "put, cup")
    assert count_rows(tmp_path / "m.csv") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "a header and no rows"),
        ("a,b,a\n1,2,3\n", "repeated column 'a'"),
        ("a,b\n1,2\n", r"no column 'video_path'; it has 'a', 'b'"),
        (b"video_path\n\xff\xfe\n", "not a UTF-8 CSV"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(ContractError, match=message) as caught:
        count_rows(path, [] if "rows" in message or "empty" in message else ["video_path"])
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"absent\.csv: cannot be read: No such file"):
        count_rows(tmp_path / "absent.csv")


def test_a_bad_cell_costs_its_row(tmp_path: Path) -> None:
    short, empty, good = read_rows(write(tmp_path / "m.csv", "a,b\n1\n,2\n3,4\n"))
    with pytest.raises(RowError, match="more or fewer cells"):
        short["a"]
    with pytest.raises(RowError, match="column 'a' is empty"):
        empty["a"]
    assert (empty["b"], empty.get("a"), short.get("a"), good.get("absent"), good["a"]) == ("2", None, None, None, "3")


def test_indices() -> None:
    assert parse_indices("0,1, 2", 3) == [0, 1, 2]
    assert parse_indices("[4, 4, 9]", 3) == [4, 4, 9]
    with pytest.raises(RowError, match="2 sample indices, 9 expected"):
        parse_indices("0,1", 9)
    with pytest.raises(RowError, match="not comma-separated integers"):
        parse_indices("0;1", 2)
    with pytest.raises(RowError, match="negative"):
        parse_indices("-1,2", 2)


def test_a_row_knows_its_place() -> None:
    assert Row(7, {"a": "x"}).index == 7


def test_a_pointer_or_a_pipe_in_place_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ContractError, match=r"a\.csv: is a Git LFS pointer"):
        list(read_rows(tmp_path / "a.csv"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ContractError, match=r"pipe\.csv: is no regular file"):
        list(read_rows(tmp_path / "pipe.csv"))
