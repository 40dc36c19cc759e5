"""Files and folders that are whole or absent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lary_schema.atomic import PARTIAL_SUFFIX, discard, making, publish_text
from lary_schema.linked import linked_files, linked_folder

Stops = Callable[[Callable[[], object]], Iterator[int]]
FILES = {"a.txt": "one", "deep/er/b.txt": "two", "deep/c.txt": ""}


def fill(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "link").symlink_to("nowhere")


def make(folder: Path) -> None:
    with making(folder) as draft:
        fill(draft)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def drafts(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{PARTIAL_SUFFIX}"))


def test_a_folder_is_whole_or_absent_wherever_the_machine_stops(tmp_path: Path, stopped_at_every_change: Stops) -> None:
    stops = 0
    for _ in stopped_at_every_change(lambda: make(tmp_path / "root/made")):
        stops += 1
        assert not (tmp_path / "root/made").exists()
        assert set((tmp_path / "root").glob("*")) == set(drafts(tmp_path))
    assert stops > 6
    assert content(tmp_path / "root/made") == FILES
    assert (tmp_path / "root/made/link").is_symlink()


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, stopped_at_every_change: Stops) -> None:
    file = tmp_path / "file"
    publish_text(file, "old")
    for _ in stopped_at_every_change(lambda: publish_text(file, "new")):
        assert file.read_text() in ("old", "new")
    assert file.read_text() == "new"


def test_what_is_discarded_is_whole_or_gone(tmp_path: Path, stopped_at_every_change: Stops) -> None:
    folder, seen = tmp_path / "made", set()

    def act() -> None:
        if folder.exists():
            discard(folder)

    make(folder)
    for _ in stopped_at_every_change(act):
        assert not folder.exists() or content(folder) == FILES
        seen.add(folder.exists())
        if not folder.exists():
            make(folder)
    assert seen == {True, False}


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), making(tmp_path / "made") as draft:
        fill(draft / str(1 / len(list(draft.iterdir()))))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["file", "file/more"])
def test_a_file_in_the_place_of_a_folder_is_named_for_what_it_is(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    for act in (make, lambda path: publish_text(path, "text")):
        with pytest.raises(NotADirectoryError, match=r"Not a directory.*file"):
            act(tmp_path / below / "made")


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    make(tmp_path / "made")
    (tmp_path / "file").write_text("mine")
    for name in ("made", "file"):
        with pytest.raises(OSError, match=r"exist|empty|director"), making(tmp_path / name) as draft:
            (draft / "x").touch()
    assert content(tmp_path / "made") == FILES
    assert (tmp_path / "file").read_text() == "mine"
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "b" * 231, "-o", "two words", "\udcff" * 9])
def test_every_name_that_a_disk_takes(tmp_path: Path, name: str) -> None:
    publish_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
    (tmp_path / name).unlink()
    make(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_a_folder_of_links_is_whole_or_absent(
    tmp_path: Path, stopped_at_every_change: Stops, before: str | None
) -> None:
    """The mount of weights; one whose links lead elsewhere is replaced."""
    links = {"a/b": tmp_path / "w", "c": tmp_path / "w"}
    made = linked_folder(links, tmp_path)
    if before is None:
        discard(made)
    else:
        (made / "c").unlink()
        (made / "c").symlink_to(before)
    for _ in stopped_at_every_change(lambda: linked_folder(links, tmp_path)):
        if made.exists():
            found = linked_files(made)
            assert found in (links, links | {"c": Path(before or "")})
    assert linked_files(made) == links
