"""What is wrong with one file: it is read to its end, as the bench would and stricter."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import av
from lary_schema.base import ContractError
from lary_schema.chunks import UnfitChunkError, read_chunk
from lary_worker.decode import decode_in_order, read_images
from lary_worker.faults import RowFaultError

Kind = Literal["video", "image", "actions"]
Status = Literal["ok", "missing", "corrupt", "mismatch", "timeout"]
"""`mismatch`: it can be read, and is not what the CSV or the card says."""
Verdict = tuple[Status, str]
_DURATION_SLACK_S = 1.0
"""How much earlier than its container says a clip may end: players' durations are rounded."""


class Check(NamedTuple):
    """A file, and what the dataset expects of it."""

    kind: Kind
    path: str
    name: str
    """The CSV's own text: what errors say."""
    last: int = -1
    """Of a clip: the highest frame index that a row names."""
    shape: tuple[int, int] = (0, 0)
    """Of actions: (stride, dim)."""


def check_file(check: Check) -> Verdict:
    """The verdict on one file, with what is wrong in words."""
    path = Path(check.path)
    if not path.exists():
        return "missing", f"{check.name}: no such file"
    try:
        return _READERS[check.kind](path, check)
    except RowFaultError as fault:
        return "corrupt", fault.detail


def _video(path: Path, check: Check) -> Verdict:
    count, end = 0, 0.0
    with closing(decode_in_order(path, check.name)) as frames:
        for frame in frames:
            count += 1
            if frame.time is not None:
                end = max(end, frame.time)
    promised = _promised_duration(path)
    # The last frame is shown as long as the others.
    end *= count / max(1, count - 1)
    if promised is not None and end + _DURATION_SLACK_S < promised:
        return "corrupt", f"{check.name}: ends at {end:.1f} s of {promised:.1f} s, after {count} frames"
    if check.last >= count:
        return "mismatch", f"{check.name}: has {count} frames, a row samples frame {check.last}"
    return "ok", ""


def _promised_duration(path: Path) -> float | None:
    """Seconds, of Matroska and WebM alone: a cut one ends without an error. Others raise, or have edit lists."""
    with av.open(str(path)) as container:
        stamp = container.streams.video[0].metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = stamp.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _image(path: Path, check: Check) -> Verdict:
    # OpenCV 5 refuses cut files, cut JPEGs among them, and damaged PNGs. Nobody's reader sees changed bytes in a JPEG.
    read_images([path], [check.name])
    return "ok", ""


def _actions(path: Path, check: Check) -> Verdict:
    try:
        read_chunk(path, *check.shape, name=check.name)
    except UnfitChunkError as error:
        return "mismatch", str(error)
    except ContractError as error:
        return "corrupt", str(error)
    return "ok", ""


_READERS: dict[Kind, Callable[[Path, Check], Verdict]] = {"video": _video, "image": _image, "actions": _actions}
