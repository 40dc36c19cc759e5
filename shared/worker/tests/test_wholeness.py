"""Damaged clips are refused or read right; whole ones of odd kinds are read. A generated family, small and seeded."""

import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from lary_worker.decode import decode_in_order, read_clip, read_images, upright
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray
from PIL import Image

CASES = Path(__file__).parents[4] / "shared" / "cases"
Pictures = NDArray[np.uint8]
FAMILY = [
    ("mp4", "libx264", {}), ("mp4", "libx265", {}), ("mp4", "mpeg4", {}), ("mp4", "mjpeg", {}),
    ("mp4", "mpeg2video", {}),
    ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}), ("mp4", "libx264", {"movflags": "faststart"}),
    ("mp4", "mjpeg", {"movflags": "faststart"}), ("mov", "libx264", {}), ("mov", "mjpeg", {}),
    ("mkv", "libx264", {}), ("mkv", "libx265", {}), ("mkv", "libvpx", {}), ("mkv", "mpeg4", {}), ("mkv", "ffv1", {}),
    ("webm", "libvpx", {}), ("webm", "libvpx-vp9", {}), ("webm", "libvpx", {"live": "1"}),
    ("ts", "libx264", {}), ("ts", "libx265", {}), ("ts", "mpeg2video", {}), ("mpg", "mpeg2video", {}),
    ("gif", "gif", {}), ("flv", "libx264", {}), ("flv", "flv", {}), ("mpg", "mpeg1video", {}),
    ("wmv", "wmv2", {}), ("wmv", "msmpeg4", {"packet_size": "1000"}), ("asf", "wmv1", {"packet_size": "1000"}),
    ("asf", "libx264", {}),
    ("ogv", "libvpx", {}), ("ogg", "libvpx", {"page_duration": "20000"}), ("mov", "png", {}),
    ("avi", "mpeg4", {}), ("avi", "mjpeg", {}), ("avi", "mpeg2video", {}), ("avi", "ffv1", {}),
]  # fmt: skip
"""Container, encoder, options of the container's writer."""
IDS = ["-".join((suffix, codec, *options.values())) for suffix, codec, options in FAMILY]
HOLE = 256


def pictures(count: int, height: int = 48, width: int = 64) -> Pictures:
    """Noise that moves, so that every picture costs bytes and none is like another."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    still = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(still, (3 * t, t), (1, 0)) for t in range(count)])


def write(
    path: Path, codec: str, options: dict[str, str] | None = None, frames: int = 24, **codec_options: str
) -> Path:
    coding = {"g": "8", "threads": "1"} | ({"x265-params": "log-level=none:pools=none"} if codec == "libx265" else {})
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
        stream.options = coding | codec_options
        for picture in pictures(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def read(path: Path) -> list[str]:
    with closing(decode_in_order(path, "c")) as frames:
        return [sha256(upright(frame, "c").tobytes()).hexdigest() for frame in frames]


def outcome(path: Path, whole: list[str]) -> str:
    try:
        return "right" if read(path) == whole else "wrong"
    except RowFaultError as fault:
        is_named = fault.reason == "decode_error" and str(path.parent) not in fault.detail
        return "refused" if is_named else "badly named"


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(1, len(data))]


def hole(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) - HOLE)
    return data[:at] + bytes(HOLE) + data[at + HOLE :]


def drop(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) // 10, len(data) * 8 // 10)
    return data[:start] + data[start + draw.randrange(1, len(data) // 10) :]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, list[str]]]:
    """A clip of the family and what it shows, made on first use."""
    root, made = tmp_path_factory.mktemp("family"), dict[int, tuple[Path, list[str]]]()

    def get(number: int) -> tuple[Path, list[str]]:
        if number not in made:
            suffix, codec, options = FAMILY[number]
            path = write(root / f"{number}.{suffix}", codec, options)
            made[number] = path, read(path)
        return made[number]

    return get


@pytest.mark.parametrize("number", range(len(FAMILY)), ids=IDS)
@pytest.mark.parametrize("damage", [cut, hole, drop])
def test_no_damaged_clip_is_read_wrong(
    tmp_path: Path,
    family: Callable[[int], tuple[Path, list[str]]],
    number: int,
    damage: Callable[[bytes, random.Random], bytes],
) -> None:
    path, whole = family(number)
    assert len(set(whole)) == 24
    if path.suffix == ".gif" and damage is drop:
        pytest.skip("a GIF's chain of blocks may happen to fit again behind a missing part (docs/media.md)")
    draw, damaged, found = random.Random(f"{IDS[number]} {damage.__name__}"), tmp_path / path.name, Counter[str]()
    for _ in range(8):
        damaged.write_bytes(damage(path.read_bytes(), draw))
        found[outcome(damaged, whole)] += 1
    assert not found["wrong"] + found["badly named"]
    # A hole may lie where nothing depends on it (padding, times).
    assert found["refused"] >= (2 if damage is hole else 7)


@pytest.mark.parametrize(
    "number", [i for i, (suffix, _, o) in enumerate(FAMILY) if suffix in ("mkv", "webm") and not o]
)
def test_any_changed_byte_behind_a_matroska_header_is_seen_or_harmless(
    tmp_path: Path, family: Callable[[int], tuple[Path, list[str]]], number: int
) -> None:
    """FFmpeg writes a CRC-32 into each part of an .mkv, none into a .webm: there, pictures themselves may differ."""
    path, whole = family(number)
    data, draw = path.read_bytes(), random.Random(number)
    for _ in range(12):
        at = draw.randrange(64, len(data))
        changed = data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :]
        (tmp_path / path.name).write_bytes(changed)
        if path.suffix == ".mkv":
            assert outcome(tmp_path / path.name, whole) != "wrong", at
        else:
            with suppress(RowFaultError):
                assert len(read(tmp_path / path.name)) == len(whole)


@pytest.mark.parametrize(
    "number", [i for i, (suffix, _, o) in enumerate(FAMILY) if suffix in ("mkv", "avi") or "movflags" in o]
)
def test_what_lies_before_a_cut_is_read_right(
    tmp_path: Path, family: Callable[[int], tuple[Path, list[str]]], number: int
) -> None:
    """Rows that need only the part before the damage have it; the last frame is clamped to in no damaged clip."""
    path, _ = family(number)
    data = path.read_bytes()
    damaged = tmp_path / path.name
    damaged.write_bytes(data[: len(data) * 9 // 10])
    expected = read_clip(path, "c", [0, 3, 6], "pyav")[0]
    np.testing.assert_array_equal(read_clip(damaged, "c", [0, 3, 6], "pyav")[0], expected)
    for last in (23, 10**6):
        with pytest.raises(RowFaultError, match="is cut: byte"):
            read_clip(damaged, "c", [0, last], "pyav")


# --- whole clips of odd kinds -------------------------------------------------------------------


def copied(source: Path, path: Path, start: float = 0.0, **options: str) -> Path:
    """Packets from the keyframe before `start` on."""
    with av.open(str(source)) as into, av.open(str(path), "w", options=options) as out:
        stream = into.streams.video[0]
        into.seek(int(start * 1e6))
        target = out.add_stream_from_template(stream)
        for packet in into.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                out.mux(packet)
    return path


def unseekable(path: Path, container: str, codec: str) -> Path:
    """As written into a pipe: sizes and durations are not known when the header is written."""

    class Pipe:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def write(self, data: bytes) -> int:
            self.parts.append(bytes(data))
            return len(data)

    pipe = Pipe()
    with av.open(pipe, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in pictures(24):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    path.write_bytes(b"".join(pipe.parts))
    return path


def varying(path: Path, codec: str) -> Path:
    """Ten pictures at once, then one a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.options = {"g": "8"}
        for number, picture in enumerate(pictures(14)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if number < 10 else 10 + 25 * (number - 9)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def long_last(path: Path, codec: str) -> Path:
    """The last picture is shown for 5 s: the container's duration promises no more pictures by that."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        packets = [p for each in pictures(24) for p in stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24"))]
        packets += stream.encode()
        last = max(packets, key=lambda packet: packet.pts or 0)
        last.duration = round(5 / last.time_base)
        for packet in packets:
            container.mux(packet)
    return path


def with_sound(path: Path, codec: str, sound: str, seconds: float) -> Path:
    with av.open(str(path), "w") as container:
        stream, audio = container.add_stream(codec, rate=25), container.add_stream(sound, rate=48000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in pictures(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        for number in range(int(seconds * 50)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, 960 * number
            container.mux(audio.encode(silence))
        container.mux(audio.encode())
    return path


def flat(path: Path, codec: str) -> Path:
    """One grey picture all the time: what comes nearest to a row of zeros."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        stream.options = {"qmin": "31", "qmax": "31", "threads": "1"}
        grey = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), 128, np.uint8), format="rgb24")
        for number in range(24):
            grey.pts = number
            container.mux(stream.encode(grey))
        container.mux(stream.encode())
    return path


OPEN = {"x264-params": "open-gop=1:keyint=8:bframes=3:scenecut=0"}
WHOLE: dict[str, tuple[str, Callable[[Path, Path], Any], int | None]] = {
    "open-gop.mp4": ("mp4", lambda p, _: write(p, "libx264", **OPEN), 24),
    "open-gop.ts": ("ts", lambda p, _: write(p, "libx264", **OPEN), 24),
    "cut-by-copy.mp4": ("mp4", lambda p, t: copied(write(t, "libx264", **OPEN), p, 0.5), None),
    "cut-by-copy.mkv": ("mkv", lambda p, t: copied(write(t, "libx264", **OPEN), p, 0.5), None),
    "pipe.webm": ("webm", lambda p, _: unseekable(p, "webm", "libvpx"), 24),
    "pipe.mkv": ("mkv", lambda p, _: unseekable(p, "matroska", "libx264"), 24),
    "pipe.avi": ("avi", lambda p, _: unseekable(p, "avi", "mpeg4"), 24),
    "pipe.ts": ("ts", lambda p, _: unseekable(p, "mpegts", "libx264"), 24),
    "pipe.wmv": ("wmv", lambda p, _: unseekable(p, "asf", "wmv2"), 24),
    "pipe.ogv": ("ogv", lambda p, _: unseekable(p, "ogg", "libvpx"), 24),
    "pipe.mpg": ("mpg", lambda p, _: unseekable(p, "mpeg", "mpeg2video"), 24),
    "sound.wmv": ("wmv", lambda p, _: with_sound(p, "wmv2", "aac", 1), 24),
    "sound.ogv": ("ogv", lambda p, _: with_sound(p, "libvpx", "libopus", 1), 24),
    "sound.mpg": ("mpg", lambda p, _: with_sound(p, "mpeg2video", "mp2", 1), 24),
    "sound.vob": ("vob", lambda p, _: with_sound(p, "mpeg2video", "ac3", 3), 24),
    "two-b-frames.wmv": ("wmv", lambda p, _: write(p, "libx264", bf="2"), 24),
    "two-b-frames.mxf": ("mxf", lambda p, _: write(p, "libx264", bf="2"), 24),
    "two-b-frames-mpeg2.mxf": ("mxf", lambda p, _: write(p, "mpeg2video", bf="2"), 24),
    "flat.wmv": ("wmv", lambda p, _: flat(p, "wmv2"), 24),
    "flat.flv": ("flv", lambda p, _: flat(p, "flv"), 24),
    "variable.mp4": ("mp4", lambda p, _: varying(p, "libx264"), 14),
    "variable.mkv": ("mkv", lambda p, _: varying(p, "libx264"), 14),
    "variable.webm": ("webm", lambda p, _: varying(p, "libvpx"), 14),
    "variable.ts": ("ts", lambda p, _: varying(p, "libx264"), 14),
    "long-last.mkv": ("mkv", lambda p, _: long_last(p, "libx264"), 24),
    "long-last.webm": ("webm", lambda p, _: long_last(p, "libvpx"), 24),
    "long-last.flv": ("flv", lambda p, _: long_last(p, "libx264"), 24),
    "long-sound.mp4": ("mp4", lambda p, _: with_sound(p, "libx264", "aac", 3), 24),
    "short-sound.mkv": ("mkv", lambda p, _: with_sound(p, "libx264", "aac", 0.2), 24),
    "long-sound.ts": ("ts", lambda p, _: with_sound(p, "libx264", "aac", 3), 24),
    "interlaced.mp4": ("mp4", lambda p, _: write(p, "libx264", flags="+ildct+ilme", **{"x264-params": "tff=1"}), 24),
    "alternate-reference.webm": (
        "webm", lambda p, _: write(p, "libvpx", None, **{"auto-alt-ref": "1", "lag-in-frames": "16"}), 24,
    ),
    "one-picture.mp4": ("mp4", lambda p, _: write(p, "libx264", frames=1), 1),
    "one-picture.webm": ("webm", lambda p, _: write(p, "libvpx", frames=1), 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_clips_are_read_whole(tmp_path: Path, kind: str) -> None:
    suffix, make, count = WHOLE[kind]
    path = tmp_path / f"c.{suffix}"
    make(path, tmp_path / "source.mp4")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = [sha256(frame.tobytes()).hexdigest() for frame in frames]
    assert read(path) == expected
    assert count in (None, len(expected))


@pytest.mark.parametrize("suffix", ["ts", "webm"])
def test_streams_one_after_the_other(tmp_path: Path, suffix: str) -> None:
    container, codec = ("mpegts", "libx264") if suffix == "ts" else ("webm", "libvpx")
    one = unseekable(tmp_path / f"a.{suffix}", container, codec).read_bytes()
    both = tmp_path / f"b.{suffix}"
    both.write_bytes(one + one)
    whole = read(tmp_path / f"a.{suffix}")
    assert read(both)[: len(whole)] == whole


def test_bytes_behind_a_whole_mp4_are_no_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "c.mp4", "libx264")
    whole = read(path)
    for tail in (bytes(1000), b"TAG" + b"x" * 125, b"\xff" * 9):
        (tmp_path / "t.mp4").write_bytes(path.read_bytes() + tail)
        assert read(tmp_path / "t.mp4") == whole


def test_a_last_picture_that_is_shown_for_long_is_not_missing_pictures() -> None:
    path = CASES / "longlast_mkv" / "t_longlast.mkv"
    if not path.is_file():
        pytest.skip("shared/cases is not there")
    assert len(read(path)) == 24


@pytest.mark.parametrize(
    "name",
    [*(f"cut_d_{kind}" for kind in ("h264_ts", "hevc_mp4", "mjpeg_mp4", "mpeg4_mp4", "vp8_webm")),
     "hole_d_h264_ts", "hole_d_vp8_webm"],
)  # fmt: skip
def test_damaged_clips_that_were_taken(name: str) -> None:
    if not (CASES / name).is_dir():
        pytest.skip("shared/cases is not there")
    (damaged,) = [p for p in (CASES / name).iterdir() if p.stem.endswith(("_cut", "_hole"))]
    (whole,) = [p for p in (CASES / name).iterdir() if p != damaged and p.name != "README"]
    assert len(read(whole)) == 60
    with pytest.raises(RowFaultError, match=r"is cut|is damaged") as caught:
        read(damaged)
    assert caught.value.reason == "decode_error"


def test_a_codec_that_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "c.mkv", "ffv1", {"write_crc32": "0"})
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_FFVX"))
    with pytest.raises(RowFaultError, match="coded in a way that is not known"):
        read(path)


# --- images -------------------------------------------------------------------------------------


def encoded(kind: str, **options: Any) -> bytes:
    import io

    out = io.BytesIO()
    Image.fromarray(pictures(1, 240, 320)[0]).save(out, format=kind, **options)
    return out.getvalue()


IMAGES = {
    "jpeg": encoded("JPEG", quality=90), "jpeg-optimised": encoded("JPEG", optimize=True),
    "jpeg-progressive": encoded("JPEG", progressive=True),
    "jpeg-restarts": encoded("JPEG", restart_marker_rows=1), "png": encoded("PNG"),
}  # fmt: skip


def image(tmp_path: Path, data: bytes) -> Pictures:
    (tmp_path / "i").write_bytes(data)
    return read_images([tmp_path / "i"], ["i"])


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_whole_or_refused(tmp_path: Path, kind: str) -> None:
    data, draw = IMAGES[kind], random.Random(kind)
    expected = image(tmp_path, data)
    np.testing.assert_array_equal(image(tmp_path, data + bytes(100) + b"more"), expected)
    for _ in range(10):
        at = draw.randrange(1, len(data) - 2)
        for damaged in (data[:at], data[:at] + bytes(len(data) - at)):
            with pytest.raises(RowFaultError, match=r"i: (not an image, or truncated|is cut|is damaged)") as caught:
                image(tmp_path, damaged)
            assert caught.value.reason == "decode_error"


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_holes_in_images(tmp_path: Path, kind: str) -> None:
    data, draw = IMAGES[kind], random.Random(kind)
    expected = image(tmp_path, data)
    for _ in range(20):
        at = draw.randrange(len(data) - HOLE)
        try:
            found = image(tmp_path, data[:at] + bytes(HOLE) + data[at + HOLE :])
        except RowFaultError:
            continue
        np.testing.assert_array_equal(found, expected)


def test_any_changed_byte_of_a_png_is_seen(tmp_path: Path) -> None:
    data, draw = IMAGES["png"], random.Random(0)
    for _ in range(30):
        at = draw.randrange(len(data))
        with pytest.raises(RowFaultError):
            image(tmp_path, data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :])


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 5}])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_jpeg_is_no_hole(tmp_path: Path, options: dict[str, Any], level: int) -> None:
    """Of equal blocks an optimised JPEG is mostly zero bytes."""
    Image.new("RGB", (1600, 1200), (level,) * 3).save(tmp_path / "i", format="JPEG", **options)
    assert read_images([tmp_path / "i"], ["i"]).shape == (1, 1200, 1600, 3)
    Image.new("L", (1600, 1200), level).save(tmp_path / "i", format="JPEG", **options)
    assert read_images([tmp_path / "i"], ["i"]).shape == (1, 1200, 1600, 3)


def test_a_png_with_a_chunk_of_its_own(tmp_path: Path) -> None:
    data, text = IMAGES["png"], b"Comment\0hello"
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    np.testing.assert_array_equal(image(tmp_path, data[:33] + chunk + data[33:]), image(tmp_path, data))


def test_the_jpeg_that_was_taken(tmp_path: Path) -> None:
    path = CASES / "jpeg_zero_tail" / "zerotail_big.jpg"
    if not path.is_file():
        pytest.skip("shared/cases is not there")
    with pytest.raises(RowFaultError, match="without its end"):
        read_images([path], ["i"])


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    for name in ("c.mp4", "i.png"):
        (tmp_path / name).write_text(text)
    for call in (
        lambda: read_clip(tmp_path / "c.mp4", "n", [0], "pyav"), lambda: read_images([tmp_path / "i.png"], ["n"]),
    ):  # fmt: skip
        with pytest.raises(RowFaultError, match=r"n: is a Git LFS pointer.*git lfs pull") as caught:
            call()
        assert caught.value.reason == "missing_file"
