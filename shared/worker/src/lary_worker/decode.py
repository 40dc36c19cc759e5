"""From files to frames, exactly: what a full sequential decode gives, or an error that costs the row.

Clips are decoded in order, because seeking readers return wrong frames on open-GOP, edit-list and AVI
files without an error. Only the wanted frames are converted, and reading stops after the last of them. Where a clip
shows that it gives the same frames, pictures that they do not depend on are not decoded (`needed`).

Strict about damage before the last wanted frame: a container whose structure is broken there, a packet that
the demuxer marks or the decoder rejects, a packet that gives no picture, or any frame marked as corrupt, also one that
is not wanted, since later frames are predicted from it. Damage behind the last wanted frame is not looked at
(`docs/media.md`).
"""

import errno
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from lary_schema.files import is_lfs_pointer
from lary_schema.jobs import Decoder
from numpy.typing import NDArray

from lary_worker.faults import RowFaultError, from_os_error
from lary_worker.media.binary import DamagedError
from lary_worker.media.still import check_image
from lary_worker.media.strict import decode, make_strict
from lary_worker.media.whole import Ledger, Promise, check_container, require_readable
from lary_worker.needed import UnfitError, may_leave_out, needed_frames
from lary_worker.orientation import UnfitMatrixError, oriented

Frames = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

# With more threads the demuxer runs ahead of the frames that are out, so what a cut clip still gives
# would depend on the machine's cores. Decode processes give the parallelism instead.
_DECODER_THREADS = 1


class _SideData(Enum):
    UNNAMED = -1


# PyAV names the kinds of side data of older FFmpegs, and raises for a frame that has another one (EXIF of a picture,
# views of a stereo clip), whichever is asked for. The display matrix is wanted of those, too.
for _kind in range(256):
    SideData._value2member_map_.setdefault(_kind, _SideData.UNNAMED)


class _Local(threading.local):
    """libswscale's context is made once, and not for threads: by default it starts one for each core."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()


_LOCAL = _Local()


def read_clip(path: Path, name: str, indices: Sequence[int], decoder: Decoder) -> tuple[Frames, bool]:
    """The frames of a clip at `indices` (any order, repeats allowed).

    Returns uint8 (len(indices), H, W, 3) RGB, upright as its rotation tag says, and whether an index
    was beyond the clip and clamped to its last frame, as LARYBench does. `name` is what errors call it.
    Raises RowFaultError.
    """
    read = _read_in_order if decoder == "pyav" else _read_decord
    return read(path, name, indices)


def read_images(paths: Sequence[Path], names: Sequence[str]) -> Frames:
    """Images of one size as uint8 (T, H, W, 3) RGB, by OpenCV as LARYBench reads them. Raises RowFaultError."""
    return _stack([_read_image(p, n) for p, n in zip(paths, names, strict=True)], " and ".join(names))


def decode_in_order(path: Path, name: str) -> Generator[av.VideoFrame, None, None]:
    """Every frame of a clip's video stream, in order; `contextlib.closing` for whoever stops early.

    Of several streams it is the one that is marked as default, or the first; cover pictures are none. Raises
    RowFaultError on reaching damage, and at the end where something that the container promises did not come.
    """
    with closing(_decode(path, name, None)) as frames:
        for _, frame in frames:
            yield frame


def _decode(path: Path, name: str, wanted: frozenset[int] | None) -> Generator[tuple[int, av.VideoFrame], None, None]:
    """Position and frame of every frame; with `wanted`, where that is possible, of those and what they depend on.

    Raises RowFaultError; UnfitError with `wanted` alone, for a clip that has to be read without it.
    """
    _require_content(path, name)
    position, promise, end = -1, None, ""
    try:
        with _opened(path) as container:
            stream = _video_stream(container, name)
            promise = check_container(path, container.format.name)
            stream.codec_context.thread_count = _DECODER_THREADS
            make_strict(stream)
            ledger = Ledger(promise, stream)
            if wanted is not None and may_leave_out(container, stream, promise, max(wanted)):
                yield from needed_frames(stream, ledger, wanted)
                return
            for position, frame in enumerate(_frames(container, stream, ledger)):
                if frame.is_corrupt:
                    raise RowFaultError("decode_error", f"{name}: frame {position} is corrupt")
                ledger.frame(frame)
                end = _end(container, frame)
                yield position, frame
            ledger.end()
            if position < 0:
                raise RowFaultError("decode_error", f"{name}: no frame in it")
    except DamagedError as error:
        where = f"; read up to frame {position}{end}" if error.is_cut and position >= 0 else ""
        raise RowFaultError("decode_error", f"{name}: {error}{where}") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _fault(error, path, name, promise, f"after {position + 1} frames") from None


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    with ExitStack() as held:
        try:
            str(path).encode()
            source: Any = str(path)
        except UnicodeEncodeError:
            # PyAV takes no name that is not UTF-8; such a folder may lie above the CSV's names.
            source = held.enter_context(path.open("rb"))
        yield held.enter_context(av.open(source))


def _end(container: av.container.InputContainer, frame: av.VideoFrame) -> str:
    if not container.duration or frame.time is None:
        return ""
    return f", at {frame.time:.1f} s of {container.duration / 1e6:.1f} s"


def _fault(error: Exception, path: Path, name: str, promise: Promise | None, where: str) -> RowFaultError:
    """Whose fault it is that a clip cannot be read on: the volume's, or its own, and then what is wrong with it."""
    volume = isinstance(error, OSError) and from_os_error(error, name).reason == "io_error"
    try:
        if volume:
            require_readable(path)
        damage = (promise or check_container(path)).damage
    except OSError as found:
        return from_os_error(found, name)
    if getattr(error, "errno", None) == errno.ENOMEM:
        return RowFaultError("out_of_memory", f"{name}: out of memory {where}")
    if damage is None:
        return RowFaultError("decode_error", f"{name}: {_reason(error)} {where}")
    said = "" if volume else f"{_reason(error)} {where}: "
    return RowFaultError("decode_error", f"{name}: {said}it {damage}")


def upright(frame: av.VideoFrame, name: str) -> Frames:
    """A decoded frame as uint8 (H, W, 3) RGB, turned and flipped as its display matrix says. Raises RowFaultError."""
    try:
        rgb = _LOCAL.reformatter.reformat(frame, format="rgb24", threads=1)
        array: Frames = np.asarray(rgb.to_ndarray(), np.uint8)
    except (av.FFmpegError, ValueError) as error:
        raise RowFaultError("decode_error", f"{name}: a frame is no RGB picture: {_reason(error)}") from None
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return array
    try:
        return oriented(array, np.frombuffer(matrix, np.int32).tolist())
    except UnfitMatrixError as error:
        raise RowFaultError("decode_error", f"{name}: {error}") from None


def _video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise RowFaultError("decode_error", f"{name}: no video stream")
    chosen = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if chosen.codec_context is None:
        raise RowFaultError("decode_error", f"{name}: its video is coded in a way that is not known here")
    return chosen


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, ledger: Ledger
) -> Generator[av.VideoFrame, None, None]:
    codec = stream.codec_context.codec.canonical_name
    for packet in container.demux(stream):
        if packet.size:
            ledger.packet(packet)
        yield from decode(packet, codec)


def _read_in_order(path: Path, name: str, indices: Sequence[int]) -> tuple[Frames, bool]:
    try:
        return _collected(_decode(path, name, frozenset(indices)), name, indices)
    except UnfitError:
        return _collected(_decode(path, name, None), name, indices)


def _collected(
    frames: Generator[tuple[int, av.VideoFrame], None, None], name: str, indices: Sequence[int]
) -> tuple[Frames, bool]:
    rows: dict[int, list[int]] = {}
    for row, index in enumerate(indices):
        rows.setdefault(index, []).append(row)
    clip, last, position = _Clip(len(indices)), max(indices), -1
    with closing(frames):
        for position, frame in frames:
            if position in rows:
                clip.put(rows.pop(position), upright(frame, name))
            if position == last:
                break
    if position < last:
        clip.put([row for behind in rows.values() for row in behind], upright(frame, name))
    return clip.whole(name), position < last


class _Clip:
    """Frames of one size, each written where it belongs: no copy of all of them at the end."""

    def __init__(self, frames: int) -> None:
        self._count, self._array = frames, np.empty(0, np.uint8)
        self._sizes = set[tuple[int, ...]]()

    def put(self, rows: Sequence[int], frame: Frames) -> None:
        if not self._sizes:
            self._array = np.empty((self._count, *frame.shape), np.uint8)
        self._sizes.add(frame.shape[:2])
        if len(self._sizes) == 1:
            for row in rows:
                self._array[row] = frame

    def whole(self, name: str) -> Frames:
        _require_one_size(self._sizes, name)
        return self._array


def _read_decord(path: Path, name: str, indices: Sequence[int]) -> tuple[Frames, bool]:
    """Faster where it is right: for data that was checked. It is silent about wrong frames."""
    import decord

    _require_content(path, name)
    try:
        reader = decord.VideoReader(str(path), num_threads=_DECODER_THREADS)
        if len(reader) == 0:
            raise RowFaultError("decode_error", f"{name}: no frame in it")
        last = len(reader) - 1
        frames = reader.get_batch([min(index, last) for index in indices]).asnumpy()
    except (decord.DECORDError, RuntimeError):
        raise RowFaultError("decode_error", f"{name}: decord cannot read it") from None
    damage = _promise_of(path, name).damage
    if damage is not None:
        raise RowFaultError("decode_error", f"{name}: {damage}")
    return np.asarray(frames, np.uint8), max(indices) > last


def _promise_of(path: Path, name: str) -> Promise:
    try:
        return check_container(path)
    except OSError as error:
        raise from_os_error(error, name) from None


def _read_image(path: Path, name: str) -> Frames:
    data = _content(path, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise RowFaultError("decode_error", f"{name}: not an image, or truncated")
        # What the decoder took may still be grey where the file is cut.
        check_image(data)
    except DamagedError as error:
        raise RowFaultError("decode_error", f"{name}: {error}") from None
    except cv2.error as error:
        raise RowFaultError("decode_error", f"{name}: {error.err}") from None
    rgb: Frames = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _content(path: Path, name: str) -> bytes:
    _require_content(path, name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise from_os_error(error, name) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _require_content(path: Path, name: str) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
        pointer = is_lfs_pointer(path)
    except OSError as error:
        raise from_os_error(error, name, missing=True) from None
    except ValueError:
        raise RowFaultError("bad_path", f"{name!r} is no file name") from None
    if empty:
        raise RowFaultError("decode_error", f"{name}: the file is empty")
    if pointer:
        raise RowFaultError(
            "missing_file", f"{name}: is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`"
        )


def _stack(frames: Sequence[Frames], name: str) -> Frames:
    _require_one_size({frame.shape[:2] for frame in frames}, name)
    return np.stack(frames)


def _require_one_size(sizes: set[tuple[int, ...]], name: str) -> None:
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise RowFaultError("decode_error", f"{name}: frames of several sizes ({listed})")
