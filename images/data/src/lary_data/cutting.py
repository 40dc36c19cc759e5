"""Clips cut out of videos by ffmpeg, each whole or absent."""

import glob
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lary_schema.atomic import PARTIAL_SUFFIX, replacing
from lary_schema.base import ContractError
from lary_worker.decode import decode_in_order
from lary_worker.faults import RowFaultError
from lary_worker.parent import die_with_parent

from lary_data.annotations import Clip
from lary_data.pool import TaskFaultError, run_tasks
from lary_data.progress import progress


class Cut(NamedTuple):
    """A clip, and where it goes."""

    clip: Clip
    out: str
    ffmpeg: str


class CutReport(NamedTuple):
    """How the clips ended."""

    kept: int
    """Were there."""
    cut: int
    failed: list[str]
    """Clip and reason."""


def find_ffmpeg() -> str:
    """Raises ContractError where there is none in PATH."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise ContractError("ffmpeg is not in PATH; install it (Debian: apt-get install ffmpeg), then run this again")
    return found


def cut_clips(clips: Sequence[Clip], folder: Path, workers: int, timeout_s: float) -> CutReport:
    """Cut what is not in `folder` yet."""
    ffmpeg = find_ffmpeg()
    missing = [clip for clip in clips if not _is_there(folder / clip.name)]
    cuts = [Cut(clip, str(folder / clip.name), ffmpeg) for clip in missing]
    failed = []
    with progress("cutting", len(cuts), "clips") as tick:
        for done in run_tasks(_cut, cuts, workers, timeout_s):
            if done.result is None:
                failed.append(f"{done.task.clip.name}: {done.fault}")
            tick(len(failed))
    return CutReport(len(clips) - len(missing), len(missing) - len(failed), sorted(failed))


def ffmpeg_arguments(clip: Clip, out: Path) -> list[str]:
    """Of the cut, as LARYBench makes it: even sides by padding, x264 ultrafast at crf 23, no sound.

    A reversed clip is cut from the video too, so it needs no forward clip. One thread: its bytes would else depend
    on the machine's cores.
    """
    pad = "pad=ceil(iw/2)*2:ceil(ih/2)*2"
    return [
        "-nostdin", "-y", "-loglevel", "error",
        "-ss", str(clip.start_s), "-t", str(clip.duration_s), "-i", f"file:{clip.source}",
        "-vf", f"{pad},reverse" if clip.reversed else pad,
        "-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-threads", "1", "-an",
        "-f", "mp4", f"file:{out}",
    ]  # fmt: skip


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _cut(cut: Cut) -> bool:
    if not Path(cut.clip.source).is_file():
        raise TaskFaultError(f"{cut.clip.source}: no such video")
    out = Path(cut.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in out.parent.glob(f"{glob.escape(out.name)}.*{PARTIAL_SUFFIX}"):
        left_behind.unlink(missing_ok=True)
    with replacing(out) as draft:
        _run([cut.ffmpeg, *ffmpeg_arguments(cut.clip, draft)])
        _require_frame(draft, cut.clip)
    return True


def _require_frame(file: Path, clip: Clip) -> None:
    """ffmpeg is content to write nothing where the video ended before the clip begins."""
    try:
        with closing(decode_in_order(file, clip.name)) as frames:
            next(frames)
    except RowFaultError:
        raise TaskFaultError(f"{clip.source}: no frame at {clip.start_s:g} s, {clip.duration_s:g} s long") from None


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        # The pool kills a process that takes too long, and ffmpeg with it. This process has no second thread.
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise TaskFaultError(f"ffmpeg ended with {done.returncode}: {lines[-1] if lines else 'without a word'}")
