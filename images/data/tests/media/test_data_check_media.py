"""`check`, `sample-frames`: what a run would refuse is found before it."""

import json
import math
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from lary_data.sampling import sample_clip
from lary_data.tools.check import command
from lary_schema.cards import DatasetCard, Labels, PairColumns, SplitRoles, VideoColumns
from lary_worker.faults import RowFaultError

CLIPS = DatasetCard(
    key="clips", title="clips", task="classification", columns=VideoColumns(), metadata=("clips_{split}.csv",),
    media="media", splits=SplitRoles(train="train", evaluate=()), frames=3, labels=Labels(), license="x", source="x",
)  # fmt: skip
PAIRS = CLIPS.model_copy(update={"key": "pairs", "columns": PairColumns(), "metadata": ("pairs_{split}.csv",)})
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


def check(root: Path, key: str) -> dict[str, tuple[str, str, list[int]]]:
    """Bad file -> status, detail, rows."""
    report = root / "r.json"
    result = CliRunner().invoke(command, ["--workers", "1", "-d", key, "--json", str(report)], catch_exceptions=False)
    (split,) = json.loads(report.read_text())["splits"]
    bad = {Path(file["path"]).name: (file["status"], file["detail"], file["rows"]) for file in split["bad_files"]}
    assert result.exit_code == (1 if bad else 0), result.output
    assert sum(split["counts"].values()) - split["counts"].get("ok", 0) == len(bad)
    return bad


def write(path: Path, size: tuple[int, int], matrix: list[int] | None = None) -> bytes:
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for value in range(0, 200, 25):
            frame = np.full((height, width, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_clips_that_a_run_would_refuse(tmp_path: Path, publish) -> None:
    media = tmp_path / "media"
    whole = write(media / "good.mp4", (64, 48))
    (media / "pointer.mp4").write_text(POINTER)
    small = write(media / "part.ts", (64, 48))
    (media / "two.ts").write_bytes(small + write(media / "part.ts", (96, 48)))
    turned = [round(math.cos(math.radians(45)) * 65536)] * 5
    write(media / "turned.mp4", (64, 48), [turned[0], turned[0], 0, -turned[0], turned[0], 0, 0, 0, 1 << 30])
    (media / "cut.mp4").write_bytes(whole[:-30])
    names = ["good.mp4", "pointer.mp4", "two.ts", "turned.mp4", "cut.mp4"]
    rows = "".join(f'{name},"0,1,2"\n' for name in names)
    (tmp_path / "clips_train.csv").write_text("video_path,sample_indices,action\n" + rows.replace('"\n', '",x\n'))
    publish(tmp_path, CLIPS)
    bad = check(tmp_path, "clips")
    assert sorted(bad) == sorted(names[1:])
    assert bad["two.ts"][:2] == ("mismatch", "two.ts: its frames change their size (64x48, 96x48)")
    assert "is a Git LFS pointer" in bad["pointer.mp4"][1]
    assert "about 45 degrees" in bad["turned.mp4"][1]
    assert {bad[name][0] for name in ("pointer.mp4", "turned.mp4", "cut.mp4")} == {"corrupt"}
    # What was good is remembered, what was bad is read again.
    assert check(tmp_path, "clips") == bad


def test_pairs_of_two_sizes(tmp_path: Path, png, publish) -> None:
    media = tmp_path / "media"
    for number in range(3):
        png(media / f"{number}.png", number)
    from PIL import Image

    with Image.open(media / "0.png") as image:
        width, height = image.size
        image.resize((width // 2, height)).save(media / "narrow.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(media / "turned.jpg", exif=exif)
    (media / "pointer.png").write_text(POINTER)
    pairs = [("0", "1"), ("1", "2"), ("0", "narrow"), ("1", "narrow"), ("narrow", "2"), ("0", "pointer")]
    lines = [f"{a}.png,{b}.png,x" for a, b in pairs] + ["0.png,turned.jpg,x"]
    (tmp_path / "pairs_train.csv").write_text("src_img,tgt_img,action\n" + "\n".join(lines) + "\n")
    publish(tmp_path, PAIRS)
    bad = check(tmp_path, "pairs")
    assert {name: (status, rows) for name, (status, _, rows) in bad.items()} == {
        "narrow.png": ("mismatch", [2, 3]), "2.png": ("mismatch", [4]), "pointer.png": ("corrupt", [5]),
        "turned.jpg": ("mismatch", [6]),
    }  # fmt: skip
    said = f"narrow.png: is {width // 2}x{height}, and 0.png, which it is a pair with, {width}x{height}"
    assert bad["narrow.png"][1] == said


@pytest.mark.parametrize("suffix", ["webm", "mkv", "ts", "avi"])
def test_damaged_clips_are_not_sampled(tmp_path: Path, write_clip, suffix: str) -> None:
    codec = {"webm": "libvpx", "mkv": "libx264", "ts": "mpeg2video", "avi": "mpeg4"}[suffix]
    path = tmp_path / f"c.{suffix}"
    write_clip(path, 30, codec=codec, fps=30)
    assert len(sample_clip(path, "c", 9, "uniform").indices) == 9
    data, draw = path.read_bytes(), random.Random(suffix)
    for _ in range(4):
        path.write_bytes(data[: draw.randrange(len(data) // 3, len(data) - 1)])
        for method in ("uniform", "motion"):
            with pytest.raises(RowFaultError):
                sample_clip(path, "c", 9, method)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path, publish) -> None:
    """The CSV cannot name such a file; a data root may be below such a folder."""
    root = tmp_path / os.fsdecode(b"\xfcbung")
    whole = write(tmp_path / "good.mp4", (64, 48))
    (root / "media").mkdir(parents=True)
    (root / "media" / "good.mp4").write_bytes(whole)
    assert len(sample_clip(root / "media" / "good.mp4", "c", 3, "uniform").indices) == 3
    (root / "media" / "cut.mp4").write_bytes(whole[:-30])
    with pytest.raises(RowFaultError, match=r"is cut"):
        sample_clip(root / "media" / "cut.mp4", "c", 3, "uniform")
