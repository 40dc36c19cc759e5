"""Frames are those of a full sequential decode, and damage is an error that costs the row."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from lary_worker.decode import read_clip, read_images
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray

CLIPS = Path(__file__).parents[4] / "shared" / "data" / "clips"


def all_frames(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame in order, by another reader."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        more, frame = capture.read()
        if not more:
            return frames
        frames.append(frame[..., ::-1])


def textured(count: int) -> NDArray[np.uint8]:
    """A clip that no two frames of are alike."""
    y, x = np.mgrid[:96, :128]
    return np.stack(
        [np.stack([x * 2 + 3 * t, y * 2 + t, (x * y // 40) + 5 * t], -1) % 256 for t in range(count)]
    ).astype(np.uint8)


def write_edit_list(source: Path, path: Path, start: int) -> None:
    """Copy packets from the keyframe before `start` on; an edit list hides the frames in between."""
    with av.open(str(source)) as into, av.open(str(path), "w") as out:
        stream = into.streams.video[0]
        assert stream.average_rate is not None
        assert stream.time_base is not None
        offset = int(start / stream.average_rate / stream.time_base)
        packets = [p for p in into.demux(stream) if p.dts is not None and p.pts is not None]
        first = max(at for at, p in enumerate(packets) if p.is_keyframe and (p.pts or 0) <= offset)
        copy = out.add_stream_from_template(stream)
        for packet in packets[first:]:
            packet.pts, packet.dts = (packet.pts or 0) - offset, (packet.dts or 0) - offset
            packet.stream = copy
            out.mux(packet)


def write_variable_rate(path: Path, frames: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for at, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = at * 33 + (at % 7) * 4, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def h264(tmp_path: Path, media: Any) -> Path:
    path = tmp_path / "plain.mp4"
    media.clip(path, textured(60))
    return path


def variants(path: Path, media: Any, kind: str) -> Path:
    """A clip of one of the kinds that seeking readers get wrong."""
    if kind == "open-gop":
        media.clip(path / "c.mp4", textured(60), **{"x264-params": "open-gop=1:keyint=12:bframes=3", "g": "12"})
    elif kind == "edit-list":
        media.clip(path / "whole.mp4", textured(60), g="24")
        write_edit_list(path / "whole.mp4", path / "c.mp4", 30)
    elif kind == "variable-rate":
        write_variable_rate(path / "c.mp4", textured(60))
    elif kind == "avi":
        media.clip(path / "c.avi", textured(60), codec="mpeg4", bf="2")
        return path / "c.avi"
    else:
        media.clip(path / "c.mp4", textured(60))
    return path / "c.mp4"


@pytest.mark.parametrize("kind", ["plain", "open-gop", "edit-list", "variable-rate", "avi"])
def test_frames_equal_a_sequential_decode(kind: str, tmp_path: Path, media: Any) -> None:
    clip = variants(tmp_path, media, kind)
    expected = all_frames(clip)
    wanted = [len(expected) - 1, 0, 3, 3, len(expected) // 2, 1]
    frames, clamped = read_clip(clip, "c", wanted, "pyav")
    assert not clamped
    assert frames.shape == (6, 96, 128, 3)
    assert frames.dtype == np.uint8
    for frame, index in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame, expected[index])
    if kind == "edit-list":
        assert len(expected) == 30


@pytest.mark.parametrize("name", ["h264_1080p.mp4", "h264_720p.mp4"])
def test_real_clips_equal_a_sequential_decode(name: str) -> None:
    clip = CLIPS / name
    if not clip.exists():
        pytest.skip(f"no real clip at {clip}")
    wanted = [40, 2, 25]
    capture = cv2.VideoCapture(str(clip))
    expected = {}
    for index in range(max(wanted) + 1):
        assert capture.grab()
        if index in wanted:
            expected[index] = capture.retrieve()[1][..., ::-1]
    frames, _ = read_clip(clip, name, wanted, "pyav")
    for frame, index in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame, expected[index])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_tags_are_followed(degrees: int, tmp_path: Path) -> None:
    clip = tmp_path / "turned.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.set_display_rotation(degrees)
        for frame in textured(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    frames, _ = read_clip(clip, "c", [1], "pyav")
    np.testing.assert_array_equal(frames[0], all_frames(clip)[1])


def test_indices_beyond_the_clip_are_clamped_and_counted(h264: Path) -> None:
    frames, clamped = read_clip(h264, "c", [59, 60, 10**9], "pyav")
    assert clamped
    np.testing.assert_array_equal(frames[1], frames[0])
    np.testing.assert_array_equal(frames[2], frames[0])


def test_decord_reads_a_plain_clip(h264: Path) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    frames, clamped = read_clip(h264, "c", [5, 70], "decord")
    assert clamped
    np.testing.assert_array_equal(frames, read_clip(h264, "c", [5, 70], "pyav")[0])


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """A byte of the coded pictures, changed."""
    at = data.index(b"mdat") + len(data) // 3
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "empty"),
        (truncated, "Invalid data"),
        (flipped, "corrupt|Invalid data"),
        (lambda data: b"not a film\n" * 100, "Invalid data"),
    ],
    ids=["zero-byte", "truncated", "byte-flipped", "text"],
)
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_damaged_clips(h264: Path, damage: Callable[[bytes], bytes], says: str, decoder: Any) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord is not installed")
        if damage is flipped:
            pytest.skip("decord gives wrong frames without an error here: the reason why it is not the default")
        says = "empty|decord cannot read it"
    h264.write_bytes(damage(h264.read_bytes()))
    with pytest.raises(RowFaultError, match=says) as caught:
        read_clip(h264, "clips/ä b.mp4", [0, 30, 59], decoder)
    assert caught.value.reason == "decode_error"
    assert caught.value.detail.startswith("clips/ä b.mp4: ")
    assert str(h264.parent) not in caught.value.detail


def test_damage_behind_the_last_wanted_frame_is_not_looked_at(tmp_path: Path, media: Any) -> None:
    clip = tmp_path / "c.mkv"
    media.clip(clip, textured(60))
    expected = all_frames(clip)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 3 // 4] + b"\0" * (len(data) // 4))
    frames, _ = read_clip(clip, "c", [0, 20], "pyav")
    np.testing.assert_array_equal(frames[1], expected[20])


def test_a_file_without_pictures(tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(RowFaultError, match="sound: no video stream"):
        read_clip(sound, "sound", [0], "pyav")


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("none.mp4", "missing_file", "No such file"),
        (".", "missing_file", "Is a directory"),
        ("x" * 300, "missing_file", "too long"),
        ("a\0b", "bad_path", "no file name"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, name: str, reason: str, says: str) -> None:
    with pytest.raises(RowFaultError, match=says) as caught:
        read_clip(tmp_path / name, name, [0], "pyav")
    assert caught.value.reason == reason
    assert str(tmp_path) not in caught.value.detail


def test_images_are_exact(tmp_path: Path, media: Any) -> None:
    pair = textured(2)
    paths = [tmp_path / "ä src.png", tmp_path / "tgt.png"]
    for path, frame in zip(paths, pair, strict=True):
        media.png(path, frame)
    np.testing.assert_array_equal(read_images(paths, ["s", "t"]), pair)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_truncated_images(tmp_path: Path, kind: str, share: float) -> None:
    _, data = cv2.imencode(kind, textured(1)[0])
    (tmp_path / "i").write_bytes(data.tobytes()[: int(len(data) * share)])
    with pytest.raises(RowFaultError, match="i: not an image, or truncated") as caught:
        read_images([tmp_path / "i"], ["i"])
    assert caught.value.reason == "decode_error"


def test_a_pair_of_two_sizes(tmp_path: Path, media: Any) -> None:
    media.png(tmp_path / "a", textured(1)[0])
    media.png(tmp_path / "b", textured(1)[0][:50])
    with pytest.raises(RowFaultError, match=r"several sizes \(128x50, 128x96\)"):
        read_images([tmp_path / "a", tmp_path / "b"], ["a", "b"])
