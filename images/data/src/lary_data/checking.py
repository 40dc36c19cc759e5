"""What is wrong with one file: it is read to its end, as the bench would and stricter."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

from lary_schema.base import ContractError
from lary_schema.chunks import UnfitChunkError, read_chunk
from lary_worker.decode import decode_in_order, read_images, upright
from lary_worker.faults import RowFaultError

Kind = Literal["video", "image", "actions", "nuisance"]
Status = Literal["ok", "missing", "corrupt", "mismatch", "timeout"]
"""`mismatch`: it can be read, and is not what the CSV or the card says."""
Verdict = tuple[Status, str]


class Check(NamedTuple):
    """A file, and what the dataset expects of it."""

    kind: Kind
    path: str
    name: str
    """The CSV's own text: what errors say."""
    last: int = -1
    """Of a clip: the highest frame index that a row names."""
    shape: tuple[int, int] = (0, 0)
    """Of actions and of nuisance: (stride, dim)."""


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
    count, sizes = 0, list[str]()
    with closing(decode_in_order(path, check.name)) as frames:
        for frame in frames:
            size = f"{frame.width}x{frame.height}"
            if size not in sizes:
                sizes.append(size)
            # Once: all pictures of a clip are shown alike.
            if count == 0:
                upright(frame, check.name)
            count += 1
    if len(sizes) > 1:
        return "mismatch", f"{check.name}: its frames change their size ({', '.join(sizes)})"
    if check.last >= count:
        return "mismatch", f"{check.name}: has {count} frames, a row samples frame {check.last}"
    return "ok", ""


def _image(path: Path, check: Check) -> Verdict:
    """Of a good one the detail is its size, which that of its pair has to be."""
    _, height, width, _ = read_images([path], [check.name]).shape
    return "ok", f"{width}x{height}"


def _chunk(path: Path, check: Check) -> Verdict:
    try:
        read_chunk(path, *check.shape, name=check.name)
    except UnfitChunkError as error:
        return "mismatch", str(error)
    except ContractError as error:
        return "corrupt", str(error)
    return "ok", ""


_READERS: dict[Kind, Callable[[Path, Check], Verdict]] = {
    "video": _video,
    "image": _image,
    "actions": _chunk,
    "nuisance": _chunk,
}
