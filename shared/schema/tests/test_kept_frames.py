"""Rows that several extractions share: made once, never another row's, never of other files, never wrong."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_schema import kept_frames
from lary_schema.kept_frames import KeptFrames

ROWS, ROW_BYTES = 5, 64


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{row}.mp4" for row in range(ROWS)]
    for row, path in enumerate(files):
        path.write_bytes(bytes([row]) * 10)
    return files


class Reader:
    """An extraction: what it gets, and how often it had to decode."""

    def __init__(self, file: Path, media: list[Path], shift: int = 0) -> None:
        self.kept = KeptFrames.open(str(file), ROWS, ROW_BYTES)
        self.media, self.shift, self.made = media, shift, list[int]()

    def read(self, row: int, *, clamped: bool = False, fault: Exception | None = None) -> tuple[bytes, bool]:
        into = bytearray(ROW_BYTES)

        def make() -> bool:
            self.made.append(row)
            if fault is not None:
                raise fault
            into[:] = self.pixels(row)
            return clamped

        assert self.kept is not None
        found = self.kept.fill(row, [str(self.media[row])], memoryview(into), make)
        return bytes(into), found

    def pixels(self, row: int) -> bytes:
        return (self.media[row].read_bytes() * ROW_BYTES)[: ROW_BYTES - 1] + bytes([self.shift])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "frames" / "x.rows"
    kept_frames.create(path, ROWS, ROW_BYTES)
    return path


@pytest.fixture
def opened(file: Path, media: list[Path]) -> Iterator[Callable[..., Reader]]:
    readers = list[Reader]()

    def make(shift: int = 0) -> Reader:
        readers.append(Reader(file, media, shift))
        return readers[-1]

    yield make
    for reader in readers:
        assert reader.kept is not None
        reader.kept.__exit__(None, None, None)


def test_each_row_is_made_once_but_the_one_that_is_compared(opened: Callable[..., Reader]) -> None:
    first, second, third = opened(), opened(), opened()
    wanted = [first.read(row, clamped=row == 3) for row in range(ROWS)]
    for reader in (second, third):
        assert [reader.read(row, clamped=row == 3) for row in reversed(range(ROWS))] == wanted[::-1]
        assert reader.made == [ROWS - 1]
    assert first.made == list(range(ROWS))
    assert wanted[3][1]


def test_a_row_of_other_files_is_made_anew(opened: Callable[..., Reader], media: list[Path]) -> None:
    opened().read(0)
    reader = opened()
    reader.read(0)
    opened().read(1)
    media[1].write_bytes(b"another clip")
    assert reader.read(1)[0] == reader.pixels(1)
    assert reader.made == [0, 1]
    last = opened()
    last.read(0)
    assert last.read(1)[0] == reader.pixels(1)
    assert last.made == [0]


@pytest.mark.parametrize("seconds", [-11_644_473_600, -1, 0, 10**9, 2**33])
def test_an_edit_that_keeps_size_and_time_is_another_file(
    opened: Callable[..., Reader], media: list[Path], seconds: int
) -> None:
    """Also where the time lies before 1970: unpackers write such."""
    os.utime(media[1], (seconds, seconds))
    first, reader = opened(), opened()
    assert first.read(1)[0] == first.pixels(1)
    reader.read(0)
    assert reader.read(1)[0] == reader.pixels(1)
    assert reader.made[-1] == 1
    content = media[1].read_bytes()
    media[1].write_bytes(content[::-1] if content != content[::-1] else bytes(len(content)))
    os.utime(media[1], (seconds, seconds))
    last = opened()
    last.read(0)
    last.read(1)
    assert last.read(1)[0] == last.pixels(1)
    assert 1 in last.made


def test_a_row_that_fails_is_not_kept(opened: Callable[..., Reader]) -> None:
    first, second = opened(), opened()
    for reader in (first, second):
        with pytest.raises(ValueError, match="no clip"):
            reader.read(2, fault=ValueError("no clip"))
        assert reader.made == [2]
    # Its lock is free again.
    assert first.read(2) == second.read(2)


def test_other_pixels_under_the_same_name_are_not_taken(opened: Callable[..., Reader]) -> None:
    first, other = opened(), opened(shift=1)
    for row in range(ROWS):
        first.read(row)
    assert [other.read(row)[0] for row in range(ROWS)] == [other.pixels(row) for row in range(ROWS)]
    assert other.made == list(range(ROWS))
    assert opened().read(0)[0] == first.pixels(0)


def test_files_that_are_gone_are_the_decoders_to_refuse(opened: Callable[..., Reader], media: list[Path]) -> None:
    opened().read(0)
    media[0].unlink()
    reader = opened()
    with pytest.raises(FileNotFoundError):
        reader.read(0)
    assert reader.made == [0]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_file_gives_no_wrong_row(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("kept")
    media = [folder / str(row) for row in range(ROWS)]
    for row, path in enumerate(media):
        path.write_bytes(bytes([row + 1]) * 10)
    file = folder / "x.rows"
    kept_frames.create(file, ROWS, ROW_BYTES)
    first = Reader(file, media)
    wanted = [first.read(row, clamped=row == 1) for row in range(ROWS)]
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, ROWS - 1))
        in_record = data.draw(st.booleans())
        at = row * 40 + data.draw(st.integers(0, 39)) if in_record else 4096 + data.draw(st.integers(0, 319))
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    reader = Reader(file, media)
    assert [reader.read(row, clamped=row == 1) for row in range(ROWS)] == wanted


@pytest.mark.parametrize("break_it", ["full", "short"])
def test_a_full_volume_costs_nothing_but_the_sharing(
    opened: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch, break_it: str
) -> None:
    first, second = opened(), opened()
    first.read(0)

    def pwrite(_fd: int, content: bytes, _at: int) -> int:
        if break_it == "full":
            raise OSError(28, "No space left on device")
        return len(content) // 2

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        assert first.read(1)[0] == first.pixels(1)
    assert first.read(2)[0] == first.pixels(2)
    assert [second.read(row)[0] for row in range(3)] == [first.pixels(row) for row in range(3)]
    assert second.made == [0, 1, 2]


SCRIPT = """
import sys, time
from lary_schema.kept_frames import KeptFrames
file, media, rows, row_bytes, hang = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
kept, made = KeptFrames.open(file, rows, row_bytes), []
for row in range(rows):
    into = bytearray(row_bytes)
    def make():
        made.append(row)
        if hang:
            print("makes", flush=True)
            time.sleep(1000)
        time.sleep(0.01)
        into[:] = bytes([row]) * row_bytes
        return False
    kept.fill(row, [f"{media}/{row}.mp4"], memoryview(into), make)
    assert into == bytes([row]) * row_bytes
print(len(made))
"""


def process(file: Path, media: list[Path], *, hang: bool = False) -> subprocess.Popen[str]:
    numbers = map(str, (ROWS, ROW_BYTES, int(hang)))
    command = [sys.executable, "-c", SCRIPT, str(file), str(media[0].parent), *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_side_by_side_make_each_row_once(file: Path, media: list[Path]) -> None:
    """Both want the rows in the same order, so one waits for each row that the other is making."""
    both = [process(file, media) for _ in range(2)]
    made = [int(one.communicate()[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    # Each makes the first row that it finds as well, to compare it.
    assert ROWS <= sum(made) <= ROWS + 2


def test_a_process_that_dies_holds_no_row(file: Path, media: list[Path], opened: Callable[..., Reader]) -> None:
    dying = process(file, media, hang=True)
    assert dying.stdout is not None
    assert dying.stdout.readline() == "makes\n"
    dying.kill()
    dying.communicate()
    reader = opened()
    assert reader.read(0)[0] == reader.pixels(0)
    assert reader.made == [0]


def test_a_file_of_another_split_is_not_opened(file: Path) -> None:
    assert KeptFrames.open(str(file), ROWS + 1, ROW_BYTES) is None
    assert KeptFrames.open(str(file), ROWS, ROW_BYTES + 4096) is None
    assert KeptFrames.open("", ROWS, ROW_BYTES) is None
    assert KeptFrames.open(str(file.with_name("none")), ROWS, ROW_BYTES) is None


def test_what_is_there_is_kept_when_the_file_is_made_again(file: Path, opened: Callable[..., Reader]) -> None:
    opened().read(0)
    kept_frames.create(file, ROWS, ROW_BYTES)
    reader = opened()
    reader.read(0)
    assert struct.unpack_from("<IB", file.read_bytes())[1] == 1
    kept_frames.create(file, ROWS + 200, ROW_BYTES)
    assert not any(file.read_bytes())
