"""A container's output: lines out of pieces, and logs that cannot fill the disk."""

from pathlib import Path

import pytest
from docker.errors import DockerException
from hypothesis import given
from hypothesis import strategies as st
from lary_orch.runtimes.docker import engine_errors
from lary_schema.base import ContractError
from lary_schema.output import BoundedLog, Lines


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"))), st.integers(1, 7))
def test_lines_are_whole_however_the_bytes_arrive(texts: list[str], size: int) -> None:
    data = "".join(text + "\n" for text in texts).encode()
    lines = Lines()
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    assert [*found, *lines.end()] == [text + "\n" for text in texts]


def test_the_last_line_needs_no_end() -> None:
    lines = Lines()
    assert list(lines.feed(b"a\nb")) == ["a\n"]
    assert list(lines.end()) == ["b\n"]


def test_an_endless_line_does_not_stay_in_memory() -> None:
    lines = Lines(limit=8)
    pieces = [line for _ in range(100) for line in lines.feed(b"xxxx")]
    assert sum(len(piece) - 1 for piece in pieces) >= 400 - 12
    assert max(map(len, pieces)) < 20


def test_bytes_that_are_no_text_are_no_error() -> None:
    assert list(Lines().feed(b"\xff\xfe\n")) == ["\ufffd\ufffd\n"]


def test_a_log_keeps_the_end_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "stderr.log"
    with BoundedLog(path, limit=100) as log:
        for number in range(1000):
            log.write(f"line {number}\n".encode())
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["stderr.log", "stderr.log.1"]
    assert sum(file.stat().st_size for file in files) <= 200
    older, newer = files[1].read_text(), files[0].read_text()
    assert newer.endswith("line 999\n")
    first = int(older.split()[1])
    assert older + newer == "".join(f"line {number}\n" for number in range(first, 1000)), "no line is lost between them"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("('Connection aborted.', FileNotFoundError(2, 'No such file or directory'))", "No such file or directory"),
        ("('Connection aborted.', PermissionError(13, 'Permission denied'))", "Permission denied"),
        ("[Errno 111] Connection refused", None),
    ],
)
def test_an_engine_that_is_not_there_is_a_sentence(text: str, said: str | None) -> None:
    """And no text of the libraries below it; what to do follows."""
    with pytest.raises(ContractError) as caught, engine_errors("docker"):
        raise DockerException(f"Error while fetching server API version: {text}")
    first, remedy = str(caught.value).splitlines()
    if said is not None:
        assert first == f"docker: the container engine cannot be reached: {said}"
    else:
        assert first.endswith(text)
    assert "--runtime process" in remedy
