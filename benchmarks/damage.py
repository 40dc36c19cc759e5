"""Damaged clips of many kinds: how many are read right, refused, or read wrong.

    python benchmarks/damage.py --each 40 --save

Needs ffmpeg in PATH, which makes the undamaged clips. `wrong`: the frames differ from the undamaged clip's and nothing
was said.
"""

import argparse
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from common import report, run
from lary_worker.decode import decode_in_order, upright
from lary_worker.faults import RowFaultError

CODECS: dict[str, tuple[str, ...]] = {
    "h264": ("-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p"),
    "hevc": ("-c:v", "libx265", "-x265-params", "log-level=error:keyint=12", "-pix_fmt", "yuv420p"),
    "vp8": ("-c:v", "libvpx", "-b:v", "300k"),
    "vp9": ("-c:v", "libvpx-vp9", "-b:v", "300k", "-deadline", "realtime", "-cpu-used", "8"),
    "av1": ("-c:v", "libsvtav1", "-preset", "10", "-pix_fmt", "yuv420p"),
    "mpeg2": ("-c:v", "mpeg2video", "-bf", "2", "-b:v", "500k"),
    "mpeg4": ("-c:v", "mpeg4", "-bf", "2", "-b:v", "500k"),
    "mjpeg": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "5"),
    "mpeg1": ("-c:v", "mpeg1video", "-bf", "2", "-b:v", "500k"),
    "wmv1": ("-c:v", "wmv1", "-b:v", "500k"),
    "wmv2": ("-c:v", "wmv2", "-b:v", "500k"),
    "msmpeg4": ("-c:v", "msmpeg4", "-b:v", "500k"),
    "theora": ("-c:v", "libtheora", "-q:v", "6"),
    "gif": ("-c:v", "gif"),
    "ffv1": ("-c:v", "ffv1", "-level", "3", "-pix_fmt", "yuv420p"),
}
CONTAINERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mp4": (("h264", "hevc", "vp9", "av1", "mpeg2", "mpeg4", "mjpeg"), ()),
    "fast.mp4": (("h264", "hevc", "mpeg4", "mjpeg"), ("-movflags", "faststart")),
    "frag.mp4": (("h264", "hevc", "av1"), ("-movflags", "frag_keyframe+empty_moov")),
    "mov": (("h264", "mpeg4", "mjpeg"), ()),
    "mkv": (("h264", "hevc", "vp8", "vp9", "av1", "mpeg2", "mpeg4", "mjpeg", "ffv1"), ()),
    "webm": (("vp8", "vp9", "av1"), ()),
    "live.webm": (("vp8", "vp9"), ("-f", "webm", "-live", "1")),
    "ts": (("h264", "hevc", "mpeg2"), ()),
    "mpg": (("mpeg1", "mpeg2"), ()),
    "flv": (("h264",), ()),
    "wmv": (("wmv1", "wmv2", "msmpeg4"), ()),
    "ogv": (("theora", "vp8"), ()),
    "gif": (("gif",), ()),
    "avi": (("h264", "mpeg2", "mpeg4", "mjpeg", "ffv1"), ()),
}
"""Container -> codecs, and options of its writer."""
HOLE = 256


def make_clips(folder: Path, frames: int, wanted: Sequence[str] = tuple(CONTAINERS)) -> dict[str, dict[str, Path]]:
    """Container -> codec -> an undamaged clip of 128x96 pixels."""
    source = ("-f", "lavfi", "-i", f"testsrc2=size=128x96:rate=30:duration={frames / 30}")
    made: dict[str, dict[str, Path]] = {}
    for container, (codecs, options) in ((name, CONTAINERS[name]) for name in wanted):
        for codec in codecs:
            path = folder / f"{codec}.{container}"
            coding = (*CODECS[codec], "-g", "12", *options)
            if container == "avi" and codec == "h264":
                coding = ("-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", "-g", "12")
            command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *source, *coding, str(path)]
            run(command, check=True, stderr=subprocess.DEVNULL)
            made.setdefault(container, {})[codec] = path
    return made


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(1, len(data))]


def hole(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) - HOLE)
    return data[:at] + bytes(HOLE) + data[at + HOLE :]


def flip(data: bytes, draw: random.Random) -> bytes:
    return _flipped(data, draw.randrange(len(data)), draw)


def header(data: bytes, draw: random.Random) -> bytes:
    """A flipped byte in the index of an MP4, else in the first 400 bytes."""
    moov = data.find(b"moov")
    at = draw.randrange(400) if moov < 0 else moov - 4 + draw.randrange(int.from_bytes(data[moov - 4 : moov]))
    return _flipped(data, at, draw)


def drop(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) // 10, len(data) * 8 // 10)
    return data[:start] + data[start + draw.randrange(1, len(data) // 10) :]


def _flipped(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut, "hole": hole, "drop": drop, "header": header, "flip": flip,
}  # fmt: skip


def read(path: Path) -> list[str] | str:
    """A hash of every frame, or why the clip is refused."""
    try:
        with closing(decode_in_order(path, path.name)) as frames:
            return [sha256(upright(frame, path.name).tobytes()).hexdigest() for frame in frames]
    except RowFaultError as fault:
        return fault.detail


def verdict(found: list[str] | str, whole: list[str]) -> str:
    if isinstance(found, str):
        return "refused"
    return "right" if found == whole else "wrong"


def measure(clips: dict[str, dict[str, Path]], damages: Sequence[str], each: int, seed: int) -> dict[str, object]:
    """Container -> codec -> damage -> counts."""
    counts: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for container, codecs in clips.items():
        for codec, path in codecs.items():
            data, whole = path.read_bytes(), read(path)
            if isinstance(whole, str):
                raise SystemExit(f"false alarm: {whole}")
            for damage in damages:
                draw, found = random.Random(f"{seed}/{path.name}/{damage}"), Counter[str]()
                damaged = path.with_name(f"damaged.{path.name}")
                for _ in range(each):
                    damaged.write_bytes(DAMAGES[damage](data, draw))
                    found[verdict(read(damaged), whole)] += 1
                damaged.unlink()
                counts.setdefault(container, {}).setdefault(codec, {})[damage] = dict(found)
    return {"counts": counts, "totals": _totals(counts)}


def _totals(counts: dict[str, dict[str, dict[str, dict[str, int]]]]) -> dict[str, dict[str, dict[str, int]]]:
    totals: dict[str, dict[str, dict[str, int]]] = {}
    for container, codecs in counts.items():
        for damages in codecs.values():
            for damage, found in damages.items():
                empty = dict.fromkeys(("right", "refused", "wrong"), 0)
                cell = totals.setdefault(container, {}).setdefault(damage, empty)
                for name, count in found.items():
                    cell[name] += count
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=40, help="damaged copies of each clip and kind of damage")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damage", action="append", choices=list(DAMAGES), help="only these")
    parser.add_argument("--container", action="append", choices=list(CONTAINERS), help="only these")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        raise SystemExit("ffmpeg is not in PATH")
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder), options.frames, options.container or list(CONTAINERS))
        found = measure(clips, options.damage or list(DAMAGES), options.each, options.seed)
    report("damage", {"each": options.each, "frames": options.frames, "seed": options.seed, **found}, options.save)


if __name__ == "__main__":
    main()
