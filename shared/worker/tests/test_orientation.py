"""Pictures come out as ffmpeg shows them: every turn and flip, matrices near them, and none that is neither."""

import math
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from lary_worker.decode import read_clip, read_images
from lary_worker.faults import RowFaultError
from lary_worker.orientation import UnfitMatrixError, oriented
from numpy.typing import NDArray
from PIL import Image, ImageOps

Picture = NDArray[np.uint8]
ONE = 1 << 16
# What ffmpeg's autorotation does with each (fftools/ffmpeg_filter.c), by (a, b, c, d) of the matrix.
DIHEDRAL: dict[tuple[int, int, int, int], Callable[[Picture], Picture]] = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: p[::-1, ::-1].transpose(1, 0, 2),
}


def picture() -> Picture:
    """No two of its turns and flips are alike."""
    y, x = np.mgrid[:32, :48]
    return np.stack([x * 5, y * 7, x * y % 256], -1).astype(np.uint8)


def matrix(a: float, b: float, c: float, d: float) -> list[int]:
    return [round(a * ONE), round(b * ONE), 0, round(c * ONE), round(d * ONE), 0, 0, 0, 1 << 30]


def turned(degrees: float, scale: float = 1.0, flip: bool = False) -> list[int]:
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    return matrix(cos, sin, sin if flip else -sin, -cos if flip else cos)


def write(path: Path, numbers: list[int] | None) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        if numbers is not None:
            stream.set_display_matrix(numbers)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("numbers", DIHEDRAL)
def test_all_turns_and_flips(tmp_path: Path, numbers: tuple[int, int, int, int], suffix: str) -> None:
    plain, clip = tmp_path / f"plain.{suffix}", tmp_path / f"c.{suffix}"
    write(plain, None)
    write(clip, matrix(*numbers))
    expected = DIHEDRAL[numbers](read_clip(plain, "c", [1], "pyav")[0][0])
    np.testing.assert_array_equal(read_clip(clip, "c", [1], "pyav")[0][0], expected)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not in PATH")
@pytest.mark.parametrize("numbers", [*map(list, DIHEDRAL), [0, 2, -3, 0], [0.00004, 1, -1, 0.00004], [0, 0, 0, 0]])
def test_it_is_what_ffmpeg_shows(tmp_path: Path, numbers: list[float]) -> None:
    clip = tmp_path / "c.mp4"
    write(clip, matrix(*numbers))
    command = ["ffmpeg", "-v", "error", "-i", clip, "-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout
    _, size, _, pixels = shown.split(b"\n", 3)
    width, height = map(int, size.split())
    ours = read_clip(clip, "c", [0], "pyav")[0][0]
    assert ours.shape == (height, width, 3)
    assert ours.tobytes() == pixels


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("off", [0, 0.002, -0.002, 0.4, -0.4])
@pytest.mark.parametrize("scale", [1, 0.5, 3])
def test_near_right_angles_are_right_angles(quarter: int, off: float, scale: float, flip: bool) -> None:
    exact = tuple(round(v / ONE) for v in turned(90 * quarter, flip=flip)[:5])
    a, b, _, c, d = exact
    expected = DIHEDRAL[(a, b, c, d)](picture())
    np.testing.assert_array_equal(oriented(picture(), turned(90 * quarter + off, scale, flip)), expected)


@pytest.mark.parametrize("degrees", [*range(5, 90, 5), 1, 89, 0.7, 45.0, 134, 225, 271.5])
@pytest.mark.parametrize("flip", [False, True])
def test_other_angles_are_refused(degrees: float, flip: bool) -> None:
    with pytest.raises(UnfitMatrixError, match="no turn by right angles and no flip"):
        oriented(picture(), turned(degrees, flip=flip))


@pytest.mark.parametrize("numbers", [[1, 0.5, 0, 1], [1, 0, 0.3, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
def test_sheared_and_flattened_matrices_are_refused(numbers: list[float]) -> None:
    with pytest.raises(UnfitMatrixError):
        oriented(picture(), matrix(*numbers))


def test_a_refused_matrix_costs_the_row_and_is_named(tmp_path: Path) -> None:
    clip = tmp_path / "c.mp4"
    write(clip, turned(45))
    with pytest.raises(RowFaultError, match=r"a/c.mp4: its display matrix .* about 45 degrees") as caught:
        read_clip(clip, "a/c.mp4", [0], "pyav")
    assert caught.value.reason == "decode_error"


def write_streams(path: Path, defaults: tuple[bool, ...]) -> None:
    """A stream of one brightness each."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, default in enumerate(defaults):
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 48 + 16 * number, 32, "yuv420p"
            stream.disposition = Disposition.default if default else Disposition(0)
            streams.append(stream)
        for _ in range(3):
            for number, stream in enumerate(streams):
                frame = np.full((32, 48 + 16 * number, 3), 60 * (number + 1), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize(
    ("defaults", "chosen"),
    [((True, False), 0), ((False, True), 1), ((False, False), 0), ((True, True), 0), ((False, True, True), 1)],
)
def test_the_default_stream_is_read_or_the_first(tmp_path: Path, defaults: tuple[bool, ...], chosen: int) -> None:
    write_streams(tmp_path / "c.mkv", defaults)
    frames, _ = read_clip(tmp_path / "c.mkv", "c", [0, 2], "pyav")
    assert frames.shape == (2, 32, 48 + 16 * chosen, 3)
    assert abs(int(frames.mean()) - 60 * (chosen + 1)) < 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_images_are_turned_as_their_exif_says(tmp_path: Path, kind: str, tag: int) -> None:
    """As OpenCV's imread does, which LARYBench reads pairs with."""
    path, exif = tmp_path / "i", Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(picture()).save(path, format=kind, exif=exif, lossless=True, quality=95, subsampling=0)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_images([path], ["i"])[0], expected)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mov"])
@pytest.mark.parametrize("tag", [1, 2, 6, 8])
def test_clips_of_jpegs_with_exif(tmp_path: Path, suffix: str, tag: int) -> None:
    """Cameras put it in every picture. PyAV has no name for this kind of side data."""
    path, exif, image = tmp_path / f"c.{suffix}", Image.Exif(), BytesIO()
    exif[0x0112] = tag
    Image.fromarray(picture()).save(image, format="JPEG", exif=exif, quality=95, subsampling=0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        (stream.height, stream.width), stream.pix_fmt = picture().shape[:2], "yuvj444p"
        for time in range(2):
            packet = av.Packet(image.getvalue())
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 10), time, time
            container.mux(packet)
    with Image.open(image) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    frames, _ = read_clip(path, "c", [0, 1], "pyav")
    assert frames.shape == (2, *expected.shape)
    assert np.abs(frames - expected).max() < 12
