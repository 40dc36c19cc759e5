"""`check`: damage of every kind is found, named and counted with the rows that name it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_data import integrity
from lary_data.references import references
from lary_data.tools.check import command
from lary_schema.base import ContractError
from lary_schema.cards import Actions, DatasetCard, Labels, Normalisation, PairColumns, SplitRoles, VideoColumns
from lary_schema.datasets import DatasetFiles

CLIPS = DatasetCard(
    key="clips", title="clips", task="classification", columns=VideoColumns(), metadata=("clips_{split}.csv",),
    media="media", splits=SplitRoles(train="train", evaluate=()), frames=3, labels=Labels(), license="x", source="x",
)  # fmt: skip
PAIRS = DatasetCard(
    key="pairs", title="pairs", task="regression", columns=PairColumns(implied_folder="images"),
    metadata=("pairs_{split}.csv",), media="pairs_{split}", splits=SplitRoles(train="train", evaluate=("val",)),
    actions=Actions(
        folder="pairs_{split}", implied_folder="actions", stride=2, dim=3, names=("x", "y", "z"),
        normalisation=Normalisation(kind="train"),
    ), license="x", source="x",
)  # fmt: skip


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["--workers", "1", *map(str, arguments)], catch_exceptions=False)


def write_clips(root: Path, write_clip) -> None:
    """One good clip, and one of every kind of damage."""
    media = root / "media"
    write_clip(media / "good ü.mp4", 12)
    write_clip(media / "short.mp4", 12)
    whole = (media / "good ü.mp4").read_bytes()
    (media / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (media / "text.mp4").write_text("a text")
    write_clip(media / "flipped.mp4", 12)
    flipped = bytearray((media / "flipped.mp4").read_bytes())
    at = flipped.index(b"mdat") + len(flipped) // 2
    flipped[at : at + 400] = bytes(400)
    (media / "flipped.mp4").write_bytes(flipped)
    write_clip(media / "long.webm", 120, codec="libvpx-vp9", fps=30)
    webm = (media / "long.webm").read_bytes()
    (media / "cut.webm").write_bytes(webm[: len(webm) // 3])
    lines = [
        ("good ü.mp4", "0,5,11"), ("short.mp4", "0,1,2"), ("short.mp4", "0,5,12"), ("cut.mp4", "0,1,2"),
        ("text.mp4", "0,1,2"), ("text.mp4", "0,1,2"), ("flipped.mp4", "0,1,2"), ("long.webm", "0,1,2"),
        ("cut.webm", "0,1,2"), ("gone.mp4", "0,1,2"), ("good ü.mp4", "0,1"), ("../x.mp4", "0,1,2"), ("", "0,1,2"),
    ]  # fmt: skip
    rows = "".join(f'{name},"{indices}"\n' for name, indices in lines)
    (root / "clips_train.csv").write_text("video_path,sample_indices\n" + rows, encoding="utf-8")


def test_clips_are_decoded_to_the_end(tmp_path: Path, write_clip, publish) -> None:
    write_clips(tmp_path, write_clip)
    publish(tmp_path, CLIPS)
    result = call("-d", "clips", "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    (split,) = json.loads((tmp_path / "r.json").read_text())["splits"]
    assert (split["dataset"], split["split"], split["state"], split["rows"]) == ("clips", "train", "checked", 13)
    assert split["counts"] == {"ok": 2, "mismatch": 1, "corrupt": 4, "missing": 1}
    bad = {Path(file["path"]).name: file for file in split["bad_files"]}
    assert {name: (file["status"], file["rows"], file["references"]) for name, file in bad.items()} == {
        "short.mp4": ("mismatch", [1, 2], 2),
        "cut.mp4": ("corrupt", [3], 1),
        "text.mp4": ("corrupt", [4, 5], 2),
        "flipped.mp4": ("corrupt", [6], 1),
        "cut.webm": ("corrupt", [8], 1),
        "gone.mp4": ("missing", [9], 1),
    }
    assert bad["short.mp4"]["detail"] == "short.mp4: has 12 frames, a row samples frame 12"
    assert "of 4.0 s" in bad["cut.webm"]["detail"]
    assert [row["row"] for row in split["bad_rows"]] == [10, 11, 12]
    assert "2 sample indices, 3 expected" in split["bad_rows"][0]["detail"]
    assert "clips/train: 13 rows, 8 files: 4 corrupt, 1 mismatch, 1 missing, 2 ok, 3 rows name no file" in result.stdout
    assert "missing  gone.mp4: no such file (row 9)" in result.stdout


def write_pairs(root: Path, png) -> None:
    for split in ("train", "val"):
        folder = root / f"pairs_{split}"
        for t in range(4):
            png(folder / "images" / "ep" / f"{t}.jpg", t)
        (folder / "actions" / "ep").mkdir(parents=True)
        for name in ("a", "b", "c", "d"):
            np.save(folder / "actions" / "ep" / f"{name}.npy", np.ones((2, 3), np.float32))
        rows = "".join(f"ep/{t}.jpg,images/ep/{t + 1}.jpg,ep/{'abc'[t]}.npy\n" for t in range(3))
        (root / f"pairs_{split}.csv").write_text("src_img,tgt_img,action\n" + rows)


def test_images_and_actions_are_read_whole(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    publish(tmp_path, PAIRS)
    assert call("-d", "pairs").exit_code == 0
    val = tmp_path / "pairs_val"
    image = val / "images/ep/1.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    (val / "images/ep/3.jpg").write_text("a text")
    np.save(val / "actions/ep/a.npy", np.ones((3, 3)))
    np.save(val / "actions/ep/b.npy", np.full(6, np.nan))
    np.save(val / "actions/ep/c.npy", np.array([{}], dtype=object))
    result = call("-d", "pairs", "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    train, split = json.loads((tmp_path / "r.json").read_text())["splits"]
    assert train["counts"] == {"ok": 7}
    assert split["counts"] == {"ok": 2, "corrupt": 3, "mismatch": 2}
    found = {Path(file["path"]).name: (file["status"], file["rows"]) for file in split["bad_files"]}
    assert found == {
        "1.jpg": ("corrupt", [0, 1]), "3.jpg": ("corrupt", [2]), "a.npy": ("mismatch", [0]),
        "b.npy": ("mismatch", [1]), "c.npy": ("corrupt", [2]),
    }  # fmt: skip
    details = {Path(file["path"]).name: file["detail"] for file in split["bad_files"]}
    assert details["a.npy"] == "action file ep/a.npy has shape (3, 3), expected (2, 3) or (6,)"
    assert details["b.npy"] == "action file ep/b.npy holds values that are not finite"
    assert details["1.jpg"] == "images/ep/1.jpg: not an image, or truncated"
    assert call("-d", "pairs", "--split", "train").exit_code == 0


def test_flat_actions_are_as_good(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    np.save(tmp_path / "pairs_val/actions/ep/a.npy", np.ones(6))
    publish(tmp_path, PAIRS)
    assert call("-d", "pairs").exit_code == 0


def test_a_named_dataset_must_have_its_csvs_and_others_need_not(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    publish(tmp_path, PAIRS)
    publish(tmp_path, CLIPS)
    assert call().exit_code == 0
    result = call("-d", "clips")
    assert result.exit_code == 1
    assert "clips/train: no CSV at" in result.stdout
    for name in ("train", "val"):
        (tmp_path / f"pairs_{name}.csv").unlink()
    with pytest.raises(ContractError, match="no CSV of any dataset"):
        call()


def test_a_bad_csv_does_not_stop_the_others(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    (tmp_path / "pairs_train.csv").write_text("src_img,tgt_img\n")
    publish(tmp_path, PAIRS)
    result = call("-d", "pairs")
    assert result.exit_code == 1
    assert "pairs_train.csv: no column 'action'" in result.stdout
    assert "pairs/val: 3 rows, 7 files: 7 ok" in result.stdout


def test_a_missing_folder_is_said_once(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    (tmp_path / "pairs_val").rename(tmp_path / "elsewhere")
    publish(tmp_path, PAIRS)
    result = call("-d", "pairs")
    assert result.exit_code == 1
    assert f"pairs/val: {tmp_path}/pairs_val: the folder of the media is missing" in result.stdout
    assert "pairs/train: 3 rows, 7 files: 7 ok" in result.stdout


def test_more_bad_files_than_are_listed_are_counted(tmp_path: Path, png, publish, monkeypatch) -> None:
    write_pairs(tmp_path, png)
    for image in (tmp_path / "pairs_val" / "images" / "ep").iterdir():
        image.unlink()
    publish(tmp_path, PAIRS)
    monkeypatch.setattr(integrity, "FILES_LISTED", 1)
    result = call("-d", "pairs", "--split", "val", "--json", tmp_path / "r.json")
    (split,) = json.loads((tmp_path / "r.json").read_text())["splits"]
    assert split["counts"] == {"missing": 4, "ok": 3}
    assert (len(split["bad_files"]), split["unlisted"]) == (1, 3)
    assert "and 3 more" in result.stdout


def test_a_hung_reader_is_killed(tmp_path: Path, write_clip, publish, patience) -> None:
    """A pipe that nobody writes to: opening it never returns."""
    import os

    write_clip(tmp_path / "media" / "a.mp4", 4)
    os.mkfifo(tmp_path / "media" / "b.mp4")
    (tmp_path / "clips_train.csv").write_text('video_path,sample_indices\nb.mp4,"0,1,2"\na.mp4,"0,1,2"\n')
    publish(tmp_path, CLIPS)
    result = call("-d", "clips", "--workers", 2, "--timeout", patience(1))
    assert result.exit_code == 1
    assert "2 files: 1 ok, 1 timeout" in result.stdout
    assert "timeout  b.mp4: not done within 10000 s (row 0)" in result.stdout


def test_a_second_check_reads_what_changed_or_was_bad(tmp_path: Path, png, publish, monkeypatch) -> None:
    write_pairs(tmp_path, png)
    (tmp_path / "pairs_val/images/ep/0.jpg").write_text("a text")
    publish(tmp_path, PAIRS)
    report = tmp_path / "r.json"
    assert call("-d", "pairs", "--json", report).exit_code == 1
    read: list[str] = []

    def spy(function, tasks, workers, timeout_s):
        read.extend(task.path for task in tasks)
        return iter(())

    monkeypatch.setattr("lary_data.resuming.run_tasks", spy)
    png(tmp_path / "pairs_train/images/ep/2.jpg", 9)
    call("-d", "pairs", "--json", report)
    assert sorted(Path(path).relative_to(tmp_path).as_posix() for path in read) == [
        "pairs_train/images/ep/2.jpg",
        "pairs_val/images/ep/0.jpg",
    ]


def test_a_sample_is_the_same_rows_every_time(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{i + 1}.png,{i}.npy\n" for i in range(300))
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("src_img,tgt_img,action\n" + rows)
    csv = {split: tmp_path / f"{split}.csv" for split in ("train", "val")}
    files = DatasetFiles(card=PAIRS, data=tmp_path, csv=csv)
    found = references(files, "train", 20)
    chosen = sorted({row for rows in found.rows_of.values() for row in rows})
    assert (found.rows, len(chosen)) == (20, 20)
    assert chosen[-1] > 150
    assert references(files, "train", 20).rows_of == found.rows_of
    assert references(files, "val", 20).rows_of.values() != found.rows_of.values()
    assert references(files, "train", None).rows == 300
    assert len(references(files, "train", None).files) == 301 + 300


def test_many_rows_of_a_bad_file_are_counted_and_the_first_listed(tmp_path: Path, png, publish) -> None:
    write_pairs(tmp_path, png)
    count = integrity.ROWS_SHOWN + 5
    (tmp_path / "pairs_val.csv").write_text("src_img,tgt_img,action\n" + "ep/0.jpg,ep/gone.jpg,ep/a.npy\n" * count)
    publish(tmp_path, PAIRS)
    call("-d", "pairs", "--split", "val", "--json", tmp_path / "r.json")
    (bad,) = json.loads((tmp_path / "r.json").read_text())["splits"][0]["bad_files"]
    assert (bad["references"], bad["rows"]) == (count, list(range(integrity.ROWS_SHOWN)))
