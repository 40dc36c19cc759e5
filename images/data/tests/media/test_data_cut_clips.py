"""`cut-clips`: the annotated parts, forwards and reversed, each whole or absent."""

import shutil
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_data.annotations import Clip, Span, annotated_clips, parse_spans
from lary_data.cutting import ffmpeg_arguments
from lary_data.tools.cut_clips import command
from lary_schema.base import ContractError, TooManyFailedError
from lary_worker.decode import decode_in_order

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg in PATH")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["--workers", "1", *map(str, arguments)])


def colours(path: Path) -> list[float]:
    """The mean blue of every frame: it grows by 6 a frame in the source."""
    return [float(frame.to_ndarray(format="rgb24")[..., 2].mean()) for frame in decode_in_order(path, path.name)]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("0 - 1.5 pick\n2.25-3 put", [Span(0, 0, 1.5), Span(1, 2.25, 0.75)]),
        ("0-1\\n\\n1 - 2", [Span(0, 0, 1), Span(2, 1, 1)]),
        ("\n\n 4.-5.5: a 6 - 7\nno time\n3 - 3\n5-4", [Span(0, 4, 1.5)]),
        ("1.001 - 1.004", []),
        ("", []),
    ],
)
def test_the_first_pair_of_numbers_in_a_line_is_a_span(text: str, spans: list[Span]) -> None:
    assert parse_spans(text) == spans


def test_names_hold_row_and_line(tmp_path: Path) -> None:
    csv = tmp_path / "seed.csv"
    csv.write_text('video_path,seed_output\n/a/unzipped/part1/add/1068.mp4,"x\n0-1"\n,0-1\n\n/b/7.webm,2-3\n')
    egodex = list(annotated_clips(csv, "EgoDex", Path("/v")))
    assert egodex == [
        Clip("EgoDex/1068/0_1.mp4", "/v/part1/add/1068.mp4", 0, 1, False),
        Clip("EgoDex/1068/0_1_rev.mp4", "/v/part1/add/1068.mp4", 0, 1, True),
        Clip("EgoDex/7/2_0.mp4", "/v/7.webm", 2, 1, False),
        Clip("EgoDex/7/2_0_rev.mp4", "/v/7.webm", 2, 1, True),
    ]
    ssv2 = list(annotated_clips(csv, "SSv2", Path("/v")))
    assert [(clip.name, clip.source) for clip in ssv2 if not clip.reversed] == [
        ("SSv2/0_1.mp4", "/v/1068.mp4"),
        ("SSv2/2_0.mp4", "/v/7.webm"),
    ]


def test_the_arguments_of_ffmpeg() -> None:
    clip = Clip("SSv2/0_0.mp4", "/v/-a:b.webm", 1.5, 2.25, False)
    assert ffmpeg_arguments(clip, Path("/o/x.partial")) == [
        "-nostdin", "-y", "-loglevel", "error", "-ss", "1.5", "-t", "2.25", "-i", "file:/v/-a:b.webm",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "23",
        "-threads", "1", "-an", "-f", "mp4", "file:/o/x.partial",
    ]  # fmt: skip
    reverse = ffmpeg_arguments(clip._replace(reversed=True), Path("/o/x.partial"))
    assert reverse[reverse.index("-vf") + 1] == "pad=ceil(iw/2)*2:ceil(ih/2)*2,reverse"


def write_sources(root: Path, write_clip) -> tuple[object, ...]:
    write_clip(root / "videos" / "part1" / "ü 1.mp4", 40, fps=10)
    (root / "seed.csv").write_text(
        "video_path,seed_output\n/x/unzipped/part1/ü 1.mp4,0.5 - 1.5\n/x/unzipped/part1/gone.mp4,0-1\n"
        "/x/unzipped/part1/ü 1.mp4,100-101\n",
        encoding="utf-8",
    )
    return ("--egodex-csv", root / "seed.csv", "--egodex-root", root / "videos", "--out", root / "out")


@needs_ffmpeg
def test_clips_are_cut_and_failures_named(tmp_path: Path, write_clip) -> None:
    arguments = write_sources(tmp_path, write_clip)
    result = call(*arguments)
    assert isinstance(result.exception, TooManyFailedError)
    folder = tmp_path / "out/EgoDex/ü 1"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "0_0.mp4", "0_0_rev.mp4",
    ]  # fmt: skip
    forward, backward = colours(folder / "0_0.mp4"), colours(folder / "0_0_rev.mp4")
    assert forward == pytest.approx([6 * t for t in range(5, 15)], abs=5)
    assert backward == pytest.approx(forward[::-1], abs=5)
    assert "gone.mp4: no such video" in result.stderr
    assert "no frame at 100 s" in result.stderr
    assert "2 cut, 0 there before, 4 failed" in result.stderr


@needs_ffmpeg
def test_a_reversed_clip_needs_no_forward_one(tmp_path: Path, write_clip) -> None:
    arguments = write_sources(tmp_path, write_clip)
    metadata = tmp_path / "human_1st_metadata_val.csv"
    metadata.write_text("dataset,video_path\nEgoDex,EgoDex/ü 1/0_0_rev.mp4\nEgo4D,Ego4D/1.mp4\n", encoding="utf-8")
    result = call(*arguments, "--metadata", metadata)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").rglob("*.mp4")] == ["0_0_rev.mp4"]
    metadata.write_text("video_path\nEgoDex/ü 1/0_7.mp4\n", encoding="utf-8")
    result = call(*arguments, "--metadata", metadata)
    assert isinstance(result.exception, TooManyFailedError)
    assert "EgoDex/ü 1/0_7.mp4: named by the metadata, but no annotation has it" in result.stderr


@needs_ffmpeg
def test_whole_clips_are_kept_and_odd_sides_padded(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with av.open(str(tmp_path / "v/1.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "bgr0"
        for t in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((47, 63, 3), 20 * t, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "seed.csv").write_text("video_path,seed_output\n1.avi,0-1\n")
    arguments = ("--ssv2-csv", tmp_path / "seed.csv", "--ssv2-root", tmp_path / "v", "--out", tmp_path / "o")
    (tmp_path / "o/SSv2").mkdir(parents=True)
    (tmp_path / "o/SSv2/0_0_rev.mp4").write_text("as it was")
    (tmp_path / "o/SSv2/0_0.mp4.0123.partial").write_text("of a killed run")
    result = call(*arguments)
    assert "1 cut, 1 there before, 0 failed" in result.stderr
    assert (tmp_path / "o/SSv2/0_0_rev.mp4").read_text() == "as it was"
    assert sorted(path.name for path in (tmp_path / "o/SSv2").iterdir()) == ["0_0.mp4", "0_0_rev.mp4"]
    frame = next(decode_in_order(tmp_path / "o/SSv2/0_0.mp4", "clip"))
    assert (frame.width, frame.height) == (64, 48)
    before = (tmp_path / "o/SSv2/0_0.mp4").stat().st_mtime_ns
    assert "0 cut, 2 there before" in call(*arguments).stderr
    assert (tmp_path / "o/SSv2/0_0.mp4").stat().st_mtime_ns == before


def test_a_hung_ffmpeg_is_ended(tmp_path: Path, write_clip, monkeypatch) -> None:
    arguments = write_sources(tmp_path, write_clip)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ffmpeg").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    (tools / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    metadata = tmp_path / "m.csv"
    metadata.write_text("video_path\nEgoDex/ü 1/0_0.mp4\n", encoding="utf-8")
    result = call(*arguments, "--metadata", metadata, "--timeout", 2)
    assert "EgoDex/ü 1/0_0.mp4: not done within 2 s" in result.stderr
    with suppress(FileNotFoundError, ProcessLookupError):
        stat = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat").read_text()
        assert stat.rsplit(")", 1)[1].split()[0] == "Z"


def test_without_ffmpeg_the_error_says_what_to_do(tmp_path: Path, write_clip, monkeypatch) -> None:
    arguments = write_sources(tmp_path, write_clip)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = call(*arguments)
    assert isinstance(result.exception, ContractError)
    assert "ffmpeg is not in PATH; install it" in str(result.exception)


def test_annotations_need_their_videos(tmp_path: Path) -> None:
    (tmp_path / "seed.csv").write_text("video_path,seed_output\n1.webm,0-1\n")
    result = call("--ssv2-csv", tmp_path / "seed.csv", "--out", tmp_path)
    assert "--ssv2-csv needs --ssv2-root" in str(result.exception)
    assert "give --ssv2-csv" in str(call("--out", tmp_path).exception)


def test_rows_and_lines_that_give_no_clip_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seed.csv").write_text(
        'video_path,seed_output\n1.webm,"0 - 1, push\nno numbers\n3 - 2"\n,0 - 1\n2.webm,\n3.webm,"4 - 5\\n- 6 -"\n'
    )
    clips = list(annotated_clips(tmp_path / "seed.csv", "SSv2", tmp_path))
    assert [clip.name for clip in clips if not clip.reversed] == ["SSv2/0_0.mp4", "SSv2/3_0.mp4"]
    said = capsys.readouterr().err
    assert "2 rows have no video_path or no seed_output and give no clip: row 1, 2\n" in said
    assert "3 lines of seed_output name no part of the video" in said
