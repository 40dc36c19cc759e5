"""What is decoded for some frames of a clip gives the frames of a whole decode, and refuses no more than that."""

import random
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from lary_worker import decode
from lary_worker.decode import decode_in_order, read_clip
from lary_worker.faults import RowFaultError
from lary_worker.needed import UnfitError
from numpy.typing import NDArray

CLIPS = Path(__file__).parents[4] / "shared" / "data" / "clips"
COUNT = 60
Pictures = NDArray[np.uint8]


def pictures(count: int, height: int, width: int) -> Pictures:
    """Smooth colours that move, so that B pictures are worth it, and no two alike."""
    y, x = np.mgrid[:height, :width]
    moved = [[3 * (x + 2 * t), 2 * (y + t), x + y + 4 * t] for t in range(count)]
    return np.stack([np.stack(one, -1) % 256 for one in moved]).astype(np.uint8)


def write(
    path: Path, codec: str = "libx264", size: tuple[int, int] = (48, 64), rate: Any = 30,
    container: dict[str, str] | None = None, pix_fmt: str = "yuv420p", step: Callable[[int], int] = int, **options: str,
) -> Path:  # fmt: skip
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        stream.options = {"threads": "1"} | options
        for number, picture in enumerate(pictures(COUNT, *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = step(number), 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def x264(**parameters: Any) -> dict[str, str]:
    named = {"scenecut": 0} | {name.replace("_", "-"): value for name, value in parameters.items()}
    return {"x264-params": ":".join(f"{name}={value}" for name, value in named.items())}


SKIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "plain.mkv": {},
    "runs.mp4": x264(keyint=12, bframes=2),
    "runs.mkv": x264(keyint=12, bframes=2),
    "runs.mov": {"container": {"movflags": "faststart"}} | x264(keyint=12),
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}} | x264(keyint=12),
    "open.mp4": x264(keyint=12, bframes=3, open_gop=1),
    "pyramid.mp4": x264(keyint=60, bframes=7, b_pyramid="strict"),
    "slices.mp4": x264(keyint=60, bframes=3, slices=3),
    "no-b.mp4": x264(keyint=12, bframes=0),
    "intra.mkv": x264(keyint=1),
    "headers.mp4": x264(keyint=12, bframes=3, repeat_headers=1, aud=1),
    "ntsc.mkv": {"rate": Fraction(30000, 1001)} | x264(keyint=12, bframes=3),
    "ntsc.mp4": {"rate": Fraction(30000, 1001)} | x264(keyint=12, bframes=3),
    "ten-bits.mp4": {"pix_fmt": "yuv420p10le"} | x264(keyint=12, bframes=3),
    "odd.mkv": {"pix_fmt": "yuv444p", "size": (47, 63)} | x264(keyint=12, bframes=3),
}
"""Clips of which something can be left out."""
WHOLE: dict[str, dict[str, Any]] = {
    "varying.mp4": {"step": lambda t: t + t // 7} | x264(keyint=12, bframes=3),
    "varying.mkv": {"step": lambda t: t + t % 7 // 6} | x264(keyint=12, bframes=3),
    "interlaced.mp4": {"flags": "+ildct+ilme"} | x264(keyint=12, tff=1),
    "stream.ts": x264(keyint=12, bframes=3),
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx"},
    "grey.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "rgb.mov": {"codec": "png", "pix_fmt": "rgb24"},
    "palette.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
"""Clips that are decoded as a whole, and colours of other kinds."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Pictures]]:
    """A clip and all its frames as they were read before anything was left out, made on first use."""
    root, made = tmp_path_factory.mktemp("clips"), dict[str, tuple[Path, Pictures]]()

    def get(name: str) -> tuple[Path, Pictures]:
        if name not in made:
            is_real = name.startswith("h264")
            path = CLIPS / name if is_real else write(root / name, **(SKIPS | WHOLE)[name])
            made[name] = path, all_frames(path, 24 if is_real else COUNT)
        return made[name]

    return get


def all_frames(path: Path, most: int) -> Pictures:
    """Each converted by a context of its own, with a thread for each core: libswscale's default."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == most:
                break
    return np.stack(found)


def decoded(path: Path, wanted: list[int]) -> list[int]:
    """Positions of the frames that come out of the decoder. Raises UnfitError."""
    with closing(decode._decode(path, "c", frozenset(wanted))) as frames:
        return [position for position, _ in frames]


@pytest.mark.parametrize("name", [*SKIPS, *WHOLE, "h264_720p.mp4"])
def test_frames_are_those_of_a_whole_decode(family: Callable[[str], tuple[Path, Pictures]], name: str) -> None:
    if name.startswith("h264") and not (CLIPS / name).is_file():
        pytest.skip("no real clips here")
    path, whole = family(name)
    draw = random.Random(name)
    for count in (1, 2, 9) if name in SKIPS or name in WHOLE else (9,):
        wanted = [draw.randrange(len(whole)) for _ in range(count)]
        frames, clamped = read_clip(path, "c", wanted, "pyav")
        np.testing.assert_array_equal(frames, whole[wanted])
        assert not clamped


@pytest.mark.parametrize("name", SKIPS)
def test_what_no_wanted_frame_depends_on_is_left_out(family: Callable[[str], tuple[Path, Pictures]], name: str) -> None:
    path, whole = family(name)
    last = len(whole) - 1
    assert len(decoded(path, [last])) < 50
    for wanted in ([0], [20], [3, 40], [last, last + 5]):
        frames, clamped = read_clip(path, "c", wanted, "pyav")
        np.testing.assert_array_equal(frames, whole[np.minimum(wanted, last)])
        assert clamped == (max(wanted) > last)


@pytest.mark.parametrize("name", ["runs.mp4", "runs.mkv", "fragments.mp4", "intra.mkv", "no-b.mp4"])
def test_runs_without_a_wanted_frame_are_left_out(family: Callable[[str], tuple[Path, Pictures]], name: str) -> None:
    path, _ = family(name)
    assert min(decoded(path, [40, 50])) == (40 if name == "intra.mkv" else 36)
    assert decoded(path, [0])[0] == 0


@pytest.mark.parametrize("name", ["varying.mp4", "varying.mkv", "interlaced.mp4"])
def test_clips_whose_times_do_not_say_it_are_decoded_whole(
    family: Callable[[str], tuple[Path, Pictures]], name: str
) -> None:
    with pytest.raises(UnfitError):
        decoded(family(name)[0], [30, 55])


def retimed(source: Path, path: Path, time: Callable[[int], int]) -> Path:
    """A copy whose picture at step t of the rate is shown at step `time(t)`, packets in the order that they have."""
    with av.open(str(source)) as into, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(into.streams.video[0])
        packets = [packet for packet in into.demux(video=0) if packet.size]
        assert packets[0].time_base is not None
        unit = 1 / (30 * packets[0].time_base)
        for number, packet in enumerate(packets):
            at = time(round((packet.pts or 0) / unit))
            packet.pts, packet.dts, packet.stream = round(at * unit), round((number - 4) * unit), copy
            out.mux(packet)
    return path


def read_or_none(path: Path, wanted: list[int]) -> Pictures | None:
    """None for a clip that is refused."""
    try:
        return read_clip(path, "c", wanted, "pyav")[0]
    except RowFaultError:
        return None


TIMES: dict[str, Callable[[int], Callable[[int], int]]] = {
    "a step without a picture": lambda at: lambda t: t + (t >= at),
    "three steps without a picture": lambda at: lambda t: t + 3 * (t >= at),
    "a time that stands twice": lambda at: lambda t: t - (t == at),
    "a time that stands twice, then a step without": lambda at: lambda t: t + (t == at),
    "steps at half the rate": lambda at: lambda t: t if t < at else 2 * t - at,
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("what", TIMES)
def test_odd_times_give_the_frames_of_a_whole_decode(
    family: Callable[[str], tuple[Path, Pictures]], tmp_path: Path, what: str, suffix: str
) -> None:
    """Times are no positions there: whichever frame is wanted behind such a time, it is counted and not looked up."""
    source, _ = family(f"runs{suffix}")
    for at in (14, 17, 20):
        path = retimed(source, tmp_path / f"{at}{suffix}", TIMES[what](at))
        whole = all_frames(path, 30)
        for wanted in ([at - 1, at], [2, at + 1], [at + 3]):
            frames = read_or_none(path, wanted)
            # A time that stands twice may hide that a picture is missing: refused is right, too.
            assert frames is not None or "twice" in what
            assert frames is None or np.array_equal(frames, whole[wanted]), (at, wanted)


def b_picture(path: Path, position: int) -> tuple[int, int]:
    """Where a packet lies in a file, and its size."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    packet = sorted(packets, key=lambda one: one.pts or 0)[position]
    assert packet.pos is not None
    return packet.pos, packet.size


def test_damage_in_a_picture_that_is_left_out(family: Callable[[str], tuple[Path, Pictures]], tmp_path: Path) -> None:
    """It changes no wanted frame; whoever wants that frame, or reads the clip as a whole, is refused."""
    path, whole = family("runs.mp4")
    left_out = next(at for at in range(1, 12) if at not in decoded(path, [0, 11]))
    at, size = b_picture(path, left_out)
    data = path.read_bytes()
    damaged = tmp_path / "c.mp4"
    damaged.write_bytes(data[: at + 6] + bytes(byte ^ 0x5A for byte in data[at + 6 : at + size]) + data[at + size :])
    np.testing.assert_array_equal(read_clip(damaged, "c", [0, 11, 40], "pyav")[0], whole[[0, 11, 40]])
    with pytest.raises(RowFaultError, match="c: "):
        read_clip(damaged, "c", [0, left_out, 40], "pyav")
    with pytest.raises(RowFaultError, match="c: "), closing(decode_in_order(damaged, "c")) as frames:
        list(frames)


@pytest.mark.parametrize("name", ["plain.mp4", "runs.mp4", "runs.mkv", "open.mp4", "fragments.mp4"])
def test_no_damaged_clip_is_read_wrong_that_a_whole_decode_refuses(
    family: Callable[[str], tuple[Path, Pictures]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flipped bytes, holes, missing parts and cuts: as before, or right."""
    path, whole = family(name)
    data, draw, damaged = path.read_bytes(), random.Random(name), tmp_path / path.name
    wanted = [5, 29, 44]

    def outcome() -> str:
        try:
            return "right" if np.array_equal(read_clip(damaged, "c", wanted, "pyav")[0], whole[wanted]) else "wrong"
        except RowFaultError as fault:
            return fault.detail

    for number in range(16):
        at, length = draw.randrange(len(data)), draw.choice([1, 1, 40, 256])
        put = [bytes([data[at] ^ draw.randrange(1, 256)]), bytes(length), b""][number % 3]
        damaged.write_bytes(data[:at] if number == 15 else data[:at] + put + data[at + max(1, length) :])
        now = outcome()
        with monkeypatch.context() as patch:
            patch.setattr(decode, "may_leave_out", lambda *_: False)
            before = outcome()
        assert now in (before, "right"), (number, at)
