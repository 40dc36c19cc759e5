"""`manifest folder`: every file below the root is a clip, or is counted and named with a reason."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lary_data import folder_walk, resuming
from lary_data.folder_walk import HIDDEN, LOOP, LOOSE, NO_CLIP, NOT_REGULAR, walk
from lary_data.pool import Done
from lary_data.tools.manifest import command
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import DatasetCard
from lary_worker.faults import RowFaultError


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def inline(function: Any, tasks: Any, workers: int, timeout_s: float) -> Iterator[Any]:
        for task in tasks:
            try:
                yield Done(task, function(task))
            except RowFaultError as fault:
                yield Done(task, None, str(fault))

    monkeypatch.setattr(resuming, "run_tasks", inline)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import av
    import numpy as np

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        for t in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * t, np.uint8), "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def root(tmp_path: Path, clip: Path) -> Path:
    """Two classes of two clips."""
    for name in ("pull/a.mp4", "pull/b.mp4", "push/a.mp4", "push/s1/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / "in" / name)
    return tmp_path / "in"


def call(root: Path, out: Path, *further: str) -> Result:
    return CliRunner().invoke(
        command, ["folder", str(root), "--key", "k", "--out", str(out), "--frames", "3", *further]
    )


def rows(out: Path) -> dict[str, dict[str, str]]:
    found = {}
    for split in ("train", "val"):
        with (out / f"k_metadata_{split}.csv").open(encoding="utf-8", newline="") as file:
            found |= {row["video_path"]: row | {"split": split} for row in csv.DictReader(file)}
    return found


def left_out(out: Path) -> dict[str, str]:
    path = out / "k_left_out.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


SOUND = {"pull/a.mp4", "pull/b.mp4", "push/a.mp4", "push/s1/b.mp4"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loose.mp4", LOOSE), ("notes.txt", NO_CLIP), ("push/c.mpg", NO_CLIP), ("push/c.TS", NO_CLIP),
        ("push/c.gif", NO_CLIP), ("push/c.mp4.part", NO_CLIP), ("push/mp4", NO_CLIP), ("lift/c.mpeg", NO_CLIP),
        ("push/.c.mp4", HIDDEN), (".git/c.mp4", HIDDEN), ("push/.cache/c.mp4", HIDDEN), ("push/c", NO_CLIP),
    ],
)  # fmt: skip
def test_a_file_that_is_no_clip_is_named(tmp_path: Path, root: Path, clip: Path, name: str, reason: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    shutil.copy(clip, root / name)
    result = call(root, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert set(rows(tmp_path / "out")) == SOUND
    assert left_out(tmp_path / "out") == {name: reason}
    assert f"1 file is left out, see {tmp_path}/out/k_left_out.csv:\n  1 {reason}: {name}" in result.stderr
    assert ("class 'lift' has no clip: it is left out" in result.stderr) == name.startswith("lift/")
    (root / name).unlink()
    assert call(root, tmp_path / "out").exit_code == 0
    assert left_out(tmp_path / "out") == {}


@pytest.mark.parametrize("suffix", [".MP4", ".mKv", ".webm", ".AVI", ".mov", ".m4v"])
def test_the_case_of_a_suffix_is_no_matter(root: Path, suffix: str) -> None:
    (root / f"push/c{suffix}").write_bytes(b"x")
    assert f"push/c{suffix}" in walk(root, root / "out").clips


@pytest.mark.parametrize(("suffix", "codec"), [("webm", "libvpx"), ("mkv", "mpeg4"), ("avi", "mpeg4")])
def test_cut_clips_of_a_folder_are_failed_clips(
    tmp_path: Path, root: Path, write_clip: Any, suffix: str, codec: str
) -> None:
    """They are no shorter clips: their rows stand in the CSV without indices and with the reason."""
    path = root / f"push/c.{suffix}"
    write_clip(path, 24, codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = call(root, tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError)
    row = rows(tmp_path / "out")[f"push/c.{suffix}"]
    assert (row["sample_indices"], "is cut" in row["sampling"]) == ("", True)
    assert f"failed: push/c.{suffix}: " in result.stderr


def test_linked_files_and_folders_are_clips(tmp_path: Path, root: Path) -> None:
    real = tmp_path / "real"
    shutil.move(root / "push", real)
    (root / "push").mkdir()
    (root / "push/session").symlink_to(real)
    (root / "lift").symlink_to(real)
    (root / "pull/c.mp4").symlink_to(real / "a.mp4")
    result = call(root, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert set(rows(tmp_path / "out")) == {
        "pull/a.mp4", "pull/b.mp4", "pull/c.mp4", "push/session/a.mp4", "push/session/s1/b.mp4", "lift/a.mp4",
        "lift/s1/b.mp4",
    }  # fmt: skip
    assert left_out(tmp_path / "out") == {}


@pytest.mark.parametrize("target", ["..", "../..", ".", "../../push"])
def test_a_link_to_a_folder_around_it_ends(tmp_path: Path, root: Path, target: str) -> None:
    (root / "push/s1/loop").symlink_to(target)
    found = walk(root, tmp_path / "out")
    loops = [entry for entry in found.left_out if entry.reason == LOOP]
    assert loops
    assert set(found.clips) >= SOUND
    assert len(found.clips) <= len(SOUND) + 2


def test_links_that_lead_nowhere(tmp_path: Path, root: Path) -> None:
    (root / "push/c.mp4").symlink_to("/nonexistent/blob")
    (root / "push/notes").symlink_to("/nonexistent/notes")
    (root / "lift").symlink_to("/nonexistent/class")
    result = call(root, tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError)
    assert left_out(tmp_path / "out") == {"push/notes": NO_CLIP, "lift": NO_CLIP}
    assert rows(tmp_path / "out")["push/c.mp4"]["sampling"] == "failed: push/c.mp4: No such file or directory"
    assert call(root, tmp_path / "out", "--max-failed", "0.5").exit_code == 0


def test_a_pipe_is_no_clip(tmp_path: Path, root: Path) -> None:
    os.mkfifo(root / "push/c.mp4")
    assert call(root, tmp_path / "out").exit_code == 0
    assert left_out(tmp_path / "out") == {"push/c.mp4": NOT_REGULAR}


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("push/s1"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(folder_walk.os, "scandir", scandir)
    found = walk(root, tmp_path / "out")
    assert [tuple(entry) for entry in found.left_out] == [("push/s1", "cannot be read: Permission denied")]
    assert set(found.clips) == SOUND - {"push/s1/b.mp4"}


@pytest.mark.parametrize(
    ("name", "cell", "why"),
    [
        (b"push/caf\xe9.mp4", r"push/caf\xe9.mp4", "the name is not UTF-8"),
        (b"push/\xff\xfe/c.mp4", r"push/\xff\xfe/c.mp4", "the name is not UTF-8"),
        (b"li\xe9t/c.mp4", r"li\xe9t/c.mp4", "the name is not UTF-8"),
        (b"push/a\nb.mp4", r"push/a\nb.mp4", "the name has a line break"),
        (b"push/a\rb.mp4", r"push/a\rb.mp4", "the name has a line break"),
    ],
)
def test_a_name_that_no_csv_holds_is_a_failed_clip(
    tmp_path: Path, root: Path, clip: Path, name: bytes, cell: str, why: str
) -> None:
    cell = cell.replace(r"\n", r"\x0a").replace(r"\r", r"\x0d")
    path = root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, path)
    result = call(root, tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError), result.output
    found = rows(tmp_path / "out")
    assert set(found) == SOUND | {cell}
    assert found[cell]["sampling"] == f"failed: {cell}: {why}, so no CSV can hold it; rename the file"
    assert found[cell]["sample_indices"] == ""


def test_our_own_folder_inside_is_not_looked_into(tmp_path: Path, root: Path) -> None:
    for _ in range(2):
        result = call(root, root / "set")
        assert result.exit_code == 0, result.output
        assert left_out(root / "set") == {}
        assert set(rows(root / "set")) == SOUND


@pytest.mark.parametrize(("one", "other"), [("push", "push "), ("o\u0308ffnen", "\u00f6ffnen"), ("a  b", "a b")])
def test_classes_that_look_alike_are_refused(tmp_path: Path, root: Path, clip: Path, one: str, other: str) -> None:
    for label in (one, other):
        (root / label).mkdir(exist_ok=True)
        shutil.copy(clip, root / label / "z.mp4")
    result = call(root, tmp_path / "out")
    assert isinstance(result.exception, ContractError)
    assert "would be two classes; rename one" in str(result.exception)


def test_groups_stay_whole(tmp_path: Path, clip: Path) -> None:
    for label in ("pull", "push"):
        for video in range(4):
            for part in range(2):
                path = tmp_path / f"in/{label}/video{video}_{part}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(clip, path)
    result = call(tmp_path / "in", tmp_path / "out", "--group", r"(?P<group>video\d+)_", "--val", "0.5")
    assert result.exit_code == 0, result.output
    found = rows(tmp_path / "out")
    assert {row["group"] for row in found.values()} == {f"video{video}" for video in range(4)}
    assert all(Path(name).name.startswith(row["group"]) for name, row in found.items())
    splits = {(row["group"], row["split"]) for row in found.values()}
    assert len(splits) == 4
    assert {split for _, split in splits} == {"train", "val"}
    card = DatasetCard.load(tmp_path / "out/k.yaml")
    assert card.group is not None
    assert (card.group.column, card.group.pattern) == ("group", None)
    missing = call(tmp_path / "in", tmp_path / "other", "--group", r"(?P<group>session\d+)")
    assert "finds no group in it" in str(missing.exception)
    assert "has no part" in str(call(tmp_path / "in", tmp_path / "other", "--group", r"video").exception)
    assert "no regular expression" in str(call(tmp_path / "in", tmp_path / "other", "--group", r"(").exception)


# --- cards are people's -------------------------------------------------------------------------


def test_an_edited_card_is_never_overwritten(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(root, out).exit_code == 0
    card = out / "k.yaml"
    written = card.read_bytes()
    assert call(root, out).exit_code == 0, "one that nobody touched is written again"
    assert card.read_bytes() == written
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    edits = [
        written.replace(b"title: k", b"title: mine"),
        written + b"# a note\n",
        b"\n".join(line for line in written.splitlines() if b"sha256" not in line),
        written.replace(b"\n", b"\r\n", 1),
        b"",
        b"\xff",
    ]
    for edited in edits:
        card.write_bytes(edited)
        done = call(root, out, "--val", "0.5")
        assert isinstance(done.exception, ContractError)
        assert "was edited" in str(done.exception)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == kept | {"k.yaml": edited}
    card.unlink()
    assert call(root, out).exit_code == 0


def test_keys_of_the_catalog_are_refused(
    root: Path, tmp_path: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert call(root, tmp_path / "first").exit_code == 0
    publish(root, DatasetCard.load(tmp_path / "first/k.yaml"))
    done = call(root, out)
    assert isinstance(done.exception, ContractError)
    assert "the catalog has a dataset of that key already" in str(done.exception)
    assert not out.exists()
    # The set itself, found by its --catalog folder, may be made again.
    assert call(root, tmp_path / "first").exit_code == 0


def test_rows_for_each_split_and_class(root: Path, tmp_path: Path) -> None:
    said = call(root, tmp_path / "out").stderr
    assert "train: 2 rows\nval: 2 rows\n" in said
    assert "  class    train      val\n  pull         1        1\n  push         1        1\n" in said
    said = call(root, tmp_path / "grouped", "--group", "(?P<group>[ab]).mp4$").stderr
    assert "train: 2 rows, 1 groups (group)\nval: 2 rows, 1 groups (group)\n" in said


def test_classes_are_text(root: Path, tmp_path: Path) -> None:
    for old, new in (("pull", "NA"), ("push", "007")):
        (root / old).rename(root / new)
    said = call(root, tmp_path / "out").stderr
    assert "  007          1        1\n  NA           1        1\n" in said


def test_the_schema_that_editors_use_takes_the_card(root: Path, tmp_path: Path) -> None:
    import jsonschema
    import yaml

    call(root, tmp_path / "out")
    first, *_ = (tmp_path / "out/k.yaml").read_text(encoding="utf-8").splitlines()
    mark, name = first.split("$schema=")
    assert mark == "# yaml-language-server: "
    schema = json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
    card = yaml.safe_load((tmp_path / "out/k.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(card, schema)
    for wrong in (card | {"titel": "x"}, {k: v for k, v in card.items() if k != "task"}, card | {"task": "guess"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
