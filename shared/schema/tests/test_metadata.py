"""Metadata CSVs: what is accepted, what is refused, and what costs one row alone."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_schema.base import ContractError
from lary_schema.metadata import Row, RowError, count_rows, parse_indices, read_cells, read_rows


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


def test_a_row_knows_its_line() -> None:
    assert Row(7, {"a": "x"}).index == 7


def test_a_pointer_or_a_pipe_in_place_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ContractError, match=r"a\.csv: is a Git LFS pointer"):
        list(read_rows(tmp_path / "a.csv"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ContractError, match=r"pipe\.csv: is no regular file"):
        list(read_rows(tmp_path / "pipe.csv"))


# --- files that cannot be trusted, rows that fail alone ---------------------------------------

H = "video_path,note,action\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (H + 'a,b,c\nd,e,"f\ng,h,i\n', "line 3 opens a quote that is never closed"),
        (H + '"a,b,c\n' + "d,e,f\n" * 5, "line 2 opens a quote that is never closed"),
        (H + "a,b,c\nd," + "x" * 140_000 + ",f\n", "line 3 holds a cell of more than 131072 characters"),
        (H + 'a,b,c\nd,"' + "x" * 140_000 + '",f\n', "line 3 holds a cell of more than 131072 characters"),
        (H + 'a,b,c\nd,"e,f\n' + "g,h,i\n" * 30_000, "line 3 opens a quote that is never closed"),
        (H + 'a,b,"c"d\n', "line 2 has a quote in the wrong place"),
        (H + 'a,b,c\nd,e,"say \\"hi\\""\n', "line 3 has a quote in the wrong place"),
        (H + 'a,b,"c\nd",e,f\n', "lines 2 to 3 are one row"),
        (H + 'a,"b,c\nd,e",f\n', "lines 2 to 3 are one row, with a line break in column 'note'"),
        (H + 'a,b,c\n"d\ne",f,g\n', "lines 3 to 4 are one row, with a line break in column 'video_path'"),
        (H + 'a,b,"c\rd"\n', "one row, with a line break in column 'action'"),
        (H + "a,b,c\nd,\0,f\n", "line 3 holds NUL bytes"),
        (H + "a,b,c\n\ufeff" + H + "d,e,f\n", "line 3 holds a byte order mark"),
        (H.encode() + b"a,b,c\nd,\xe9,f\n", "byte 0xe9 in line 3; save it as UTF-8"),
        ((H + "a,b,c\n").encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ('video_path,"no\nte",action\na,b,c\n', "a column's name holds a line break"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer.*git lfs pull"),
        ("\n \n,\n", "is empty; a header line is expected"),
    ],
)
def test_a_file_that_may_have_lost_rows_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(ContractError, match=message) as caught:
        count_rows(path, ["video_path", "action"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\n\n" + H + "a,b,c\n\n\nd,e,f\n",
        "\ufeff\r\n" + H.replace("\n", "\r\n") + "a,b,c\r\nd,e,f",
        H.replace("\n", "\r") + "a,b,c\rd,e,f\r",
        " \n" + H + 'a,"two\nlines",c\nd,5" pipe,f\n',
        H + 'a,"b ""x"" b",c\nd,"1,2",f\n',
        H + "a,b\nd,e,f,g\n",
    ],
)
def test_what_is_unusual_and_whole_is_read(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "m.csv", text)
    assert count_rows(path, ["video_path", "action"]) == 2
    assert [row.index for row in read_rows(path)] == [0, 1]


CELL = st.text(alphabet=st.sampled_from("a,\" é'\t;5"), max_size=5)
TABLE = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=6)
)


def _text(table: list[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f"c{number}" for number in range(len(table[0]))])
    writer.writerows([[cell or "-" for cell in cells] for cells in table])
    return out.getvalue()


def test_a_column_alone_holds_no_line_breaks(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="lines 2 to 3 are one row"):
        count_rows(write(tmp_path / "m.csv", 'name\n"a\nb"\n'))


@settings(max_examples=150, deadline=None)
@given(table=TABLE)
def test_what_a_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "whole.csv", _text(table))
    cells = list(read_cells(path))
    assert cells[1:] == [[cell or "-" for cell in row] for row in table]


@settings(max_examples=400, deadline=None)
@given(table=TABLE, at=st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_stray_quotes_never_swallow_a_row(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], at: list[int]
) -> None:
    text = _text(table)
    for number in at:
        at = number % (len(text) + 1)
        text = text[:at] + '"' + text[at:]
    path = write(tmp_path_factory.getbasetemp() / "stray.csv", text)
    try:
        found = count_rows(path)
    except ContractError as error:
        assert str(path) in str(error)  # noqa: PT017 - refused or whole, both are right
    else:
        # Two quotes at the end are a row of their own.
        assert found >= len(table)


@pytest.mark.parametrize(
    "cell",
    [
        "np.int64(3), np.int64(4)", "[np.int64(3), np.int64(4)]", "1_0,2", "+1,2", "1.0,2", "[1,2", "1,2]", "[[1,2]]",
        "(1,2)", "1,,2", "1,2,", ",1,2", "", "\u0663,\u0664", "1 2", "0x1,2", "1e1,2", "9" * 13 + ",2", "nan,1",
    ],
)  # fmt: skip
def test_sample_indices_are_digits_alone(cell: str) -> None:
    with pytest.raises(RowError, match="write them as 0,4,8"):
        parse_indices(cell, 2)


def test_a_long_cell_is_not_shown_whole() -> None:
    with pytest.raises(RowError) as caught:
        parse_indices("x" * 100_000, 2)
    assert len(str(caught.value)) < 400


def test_a_column_of_texts_may_have_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'video,words\na.mp4,"0 - 1, push\n1 - 2, pull"\nb.mp4,"x"\n')
    rows = list(read_rows(path, ("video",), texts=("words",)))
    assert [row["words"] for row in rows] == ["0 - 1, push\n1 - 2, pull", "x"]
    with pytest.raises(ContractError, match="are one row"):
        list(read_rows(path, ("video", "words")))
    with pytest.raises(ContractError, match="no column 'other'"):
        list(read_rows(path, ("video",), texts=("other",)))
    write(path, 'video,words\n"a.mp4,1 - 2\nb.mp4",x\n')
    with pytest.raises(ContractError, match="are one row"):
        list(read_rows(path, ("video",), texts=("words",)))
    write(path, 'video,words\na.mp4,"0 - 1\nb.mp4",1 - 2\n')
    with pytest.raises(ContractError, match="are one row"):
        list(read_rows(path, ("video",), texts=("words",)))
