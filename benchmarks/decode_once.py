"""Four small extractions of one image over the same 480p clips: each decodes for itself, or rows are kept and shared.

    python benchmarks/decode_once.py --rounds 5 --save

`alone` and `shared` are seconds of four jobs one after the other, `frame-diff` and `pixels` each in float16 and
float32, each in a process of its own; `started` is the same four with nothing left to do, `decode` reading and resizing
all rows once, in this process. All processor time is that of ended processes, also of those whose parent ended first.
`over_ideal` is `shared` over one `decode` and all that `alone` spends besides decoding four times, both without
`started`; the goal is 1.15. `row` weighs the alternatives for nine frames of 480p: bytes and seconds of keeping them
decoded, as 224 x 224 input, and that compressed (needs ffmpeg and psutil).
"""

import ctypes
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Seconds, arguments, medians, ratio, report, run, spent
from extract import CARD, of_train
from jobs_in_one_process import done, emptied
from lary_baseline.patches import resize_area
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.files import write_job
from lary_orch.plan.jobs import Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.base import Opening
from lary_orch.runtimes.choose import process_runtime
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.workspace import Workspace
from lary_schema.kept_frames import KeptFrames, create
from lary_schema.values import ExtractionSettings
from lary_worker.decode import read_clip
from lary_worker.preprocessing import resize_cubic

CLIPS, FRAMES = 4, 60
PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
INDICES = [number * (FRAMES - 1) // 8 for number in range(9)]


def make_clips(folder: Path) -> list[Path]:
    """H.264 of 854 x 480 by libx264's defaults, two seconds of moving patterns each."""
    folder.mkdir()
    for number in range(CLIPS):
        source = f"testsrc2=s=854x480:r=30:d=9,trim=start={number},setpts=PTS-STARTPTS"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(FRAMES)]
        command += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1", str(folder / f"{number}.mp4")]
        run(command, check=True)
    return sorted(folder.iterdir())


def make_jobs(folder: Path, clips: list[Path], rows: int) -> Iterator[tuple[Job, Workspace, Any]]:
    """The training extraction of each model and dtype."""
    (folder / "cards").mkdir()
    (folder / "cards/many.yaml").write_text(CARD.replace("demo_motion", "clips"))
    indices = ",".join(map(str, INDICES))
    for split, count in {"train": rows, "val": 1}.items():
        lines = [f'{clips[row % CLIPS].name},"{indices}",{row % 2}' for row in range(count)]
        (folder / f"many_{split}.csv").write_text("\n".join(["video_path,sample_indices,action", *lines]) + "\n")
    workspace = Workspace.locate(folder / "work", data=folder)
    runtime = process_runtime(workspace, "current")
    for dtype in ("float16", "float32"):
        settings = ExtractionSettings(dtype=dtype)
        for model in ("frame-diff", "pixels"):
            request = Request(
                (model,), ("many",), load_protocol("smoke"), settings=settings, workers=1, control=False, threads=1
            )
            plan = make_plan(request, workspace, Catalog.load([folder / "cards"]), runtime, lambda _: None)
            job = of_train(plan.extracts)
            write_job(job, workspace)
            yield job, workspace, runtime


def adopt_orphans() -> None:
    """A process below this one whose parent ends becomes this one's child (Linux), so that its time is counted."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap() -> None:
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def seconds_of(jobs: list[Job], workspace: Workspace, runtime: Any, log: Path, way: str) -> Seconds:
    """Of all jobs, one after the other, until the last of their processes has ended."""
    opened: list[Any] = []
    runtime._frames = workspace.cache / "frames" if way == "shared" else None

    def one_by_one(opening: Opening, start: Any, at_end: Any) -> None:
        opening.make_jobs()
        opened.extend((start, at_end))

    runtime.open(Opening(workspace.run(jobs[0].run), 3, [Slot()], lambda: jobs, lambda _: None, one_by_one))  # type: ignore[arg-type]
    start, at_end = opened
    for job in jobs if way != "started" else ():
        emptied(job)

    def work() -> None:
        for job in jobs:
            done(start, job, log)
        at_end()
        reap()

    return spent(work)


def decode_all(clips: list[Path], rows: int) -> None:
    for row in range(rows):
        resize_area(read_clip(clips[row % CLIPS], "clip", INDICES, "pyav")[0], 32)


def bytes_and_seconds(clip: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Of one row."""
    decoded = read_clip(clip, "clip", INDICES, "pyav")[0]
    resized = resize_cubic(decoded)
    path, into = folder / "x.rows", np.empty_like(resized)
    create(path, rounds + 1, resized.nbytes)

    def keep(_row: int) -> bool:
        into[:] = resized
        return False

    def per_row(work: Callable[[int], Any]) -> float:
        seconds = []
        for row in range(rounds):
            start = time.process_time()
            work(row)
            seconds.append(time.process_time() - start)
        return round(median(seconds) * 1e3, 3)

    writer, reader = (KeptFrames(path, rounds + 1, resized.nbytes) for _ in range(2))
    for one in (writer, reader):
        one.fill(rounds, [str(clip)], memoryview(into).cast("B"), lambda: keep(0))

    def through(kept: KeptFrames) -> float:
        return per_row(lambda row: kept.fill(row, [str(clip)], memoryview(into).cast("B"), lambda: keep(row)))

    return {
        "decoded_mb": round(decoded.nbytes / 1e6, 2),
        "input_224_mb": round(resized.nbytes / 1e6, 3),
        "input_224_zlib_1_mb": round(len(zlib.compress(resized.tobytes(), 1)) / 1e6, 3),
        "decode_ms": per_row(lambda _: read_clip(clip, "clip", INDICES, "pyav")),
        "resize_224_ms": per_row(lambda _: resize_cubic(decoded)),
        "write_224_ms": through(writer),
        "read_224_ms": through(reader),
        "zlib_1_ms": per_row(lambda _: zlib.compress(resized.tobytes(), 1)),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder / "clips")
        row = bytes_and_seconds(clips[0], folder, 15)
        made = list(make_jobs(folder, clips, options.rows))
        jobs = [job for job, _, _ in made]
        _, workspace, runtime = made[0]
        adopt_orphans()
        seconds: dict[str, list[Seconds]] = {"alone": [], "shared": [], "started": [], "decode": []}
        for job in jobs:
            done(runtime.start, job, folder / "log")
        for _ in range(options.rounds):
            seconds["decode"].append(spent(partial(decode_all, clips, options.rows)))
            for way in ("alone", "shared", "started"):
                seconds[way].append(seconds_of(jobs, workspace, runtime, folder / "log", way))
    found = {way: medians(taken) for way, taken in seconds.items()}
    middle = {way: figures["processor_s"] for way, figures in found.items()}
    ideal = middle["alone"] - middle["started"] - (len(jobs) - 1) * middle["decode"]
    figures = {
        "rows": options.rows,
        "rounds": options.rounds,
        "seconds": found,
        "over_ideal": round((middle["shared"] - middle["started"]) / ideal, 3),
        "alone_over_shared": ratio(found, "alone", "shared"),
        "row": row,
    }  # fmt: skip
    report("decode_once", figures, options.save)


if __name__ == "__main__":
    main()
