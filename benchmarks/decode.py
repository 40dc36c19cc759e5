"""Reading nine spread frames of a clip: as before (every frame decoded, each wanted one converted by a libswscale
context of its own with a thread for each core, then stacked), with one context, and as `read_clip` does.

    python benchmarks/decode.py --rounds 7 --save [CLIP ...]

Processor and wall time of one process, alternated; `before_over` is of medians, before over the other. H.264 clips of
moving patterns under noise by libx264's defaults (needs ffmpeg) unless some are given; the frames of all ways are
compared.
"""

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
from common import arguments, measured, ratio, report, run
from lary_worker.decode import Frames, decode_in_order, read_clip, upright

SIZES = {"240p": (240, 320), "480p": (480, 854), "1080p": (1080, 1920)}
FRAMES, WANTED = 150, 9


def make_clip(path: Path, height: int, width: int) -> Path:
    source = f"testsrc2=s={width}x{height}:r=30:d={FRAMES / 30:g},noise=alls=12:allf=t"
    coding = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, *coding, str(path)]
    run(command, check=True)
    return path


def whole(path: Path, indices: list[int], convert: Callable[[av.VideoFrame], Any]) -> Frames:
    wanted, found = set(indices), []
    with closing(decode_in_order(path, path.name)) as frames:
        for position, frame in enumerate(frames):
            if position in wanted:
                found.append(convert(frame))
            if position == indices[-1]:
                break
    return np.stack(found)


def measure(path: Path, rounds: int) -> dict[str, Any]:
    with av.open(str(path)) as container:
        count = container.streams.video[0].frames
    indices = [number * (count - 1) // WANTED for number in range(WANTED)]
    ways: dict[str, Callable[[], Frames]] = {
        "before": lambda: whole(path, indices, lambda frame: frame.to_ndarray(format="rgb24")),
        "one context": lambda: whole(path, indices, lambda frame: upright(frame, path.name)),
        "now": lambda: read_clip(path, path.name, indices, "pyav")[0],
    }
    first, *others = [way() for way in ways.values()]
    if not all(np.array_equal(first, other) for other in others):
        raise SystemExit(f"{path}: frames differ")
    seconds = measured(ways, rounds)
    ratios = {name: ratio(seconds, "before", name) for name in seconds if name != "before"}
    return {"frames": count, "seconds": seconds, "before_over": ratios}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = options.clips or [make_clip(Path(folder) / f"{name}.mp4", *size) for name, size in SIZES.items()]
        figures = {clip.stem: measure(clip, options.rounds) for clip in clips}
    report("decode", {"wanted": WANTED, "rounds": options.rounds, "clips": figures}, options.save)


if __name__ == "__main__":
    main()
