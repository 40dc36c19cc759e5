"""From files to frames, exactly: what a full sequential decode gives, or an error that costs the row.

Clips are decoded in order, because seeking readers return wrong frames on open-GOP, edit-list and AVI
files without an error. Only the wanted frames are converted, and reading stops after the last of them.

Strict about damage before the last wanted frame: a container whose structure is broken there, a packet that
the demuxer marks or the decoder rejects, a packet that gives no picture, or any frame marked as corrupt, also one that
is not wanted, since later frames are predicted from it. Damage behind the last wanted frame is not looked at
(`docs/media.md`).
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from lary_schema.jobs import Decoder
from numpy.typing import NDArray

from lary_worker.faults import RowFaultError, from_os_error
from lary_worker.media.binary import DamagedError
from lary_worker.media.pointer import is_pointer
from lary_worker.media.still import check_image
from lary_worker.media.whole import Ledger, check_container
from lary_worker.orientation import UnfitMatrixError, oriented

Frames = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

# With more threads the demuxer runs ahead of the frames that are out, so what a cut clip still gives
# would depend on the machine's cores. Decode processes give the parallelism instead.
_DECODER_THREADS = 1


def read_clip(path: Path, name: str, indices: Sequence[int], decoder: Decoder) -> tuple[Frames, bool]:
    """The frames of a clip at `indices` (any order, repeats allowed).

    Returns uint8 (len(indices), H, W, 3) RGB, upright as its rotation tag says, and whether an index
    was beyond the clip and clamped to its last frame, as LARYBench does. `name` is what errors call it.
    Raises RowFaultError.
    """
    read = _read_in_order if decoder == "pyav" else _read_decord
    frames, clamped = read(path, name, indices)
    return _stack(frames, name), clamped


def read_images(paths: Sequence[Path], names: Sequence[str]) -> Frames:
    """Images of one size as uint8 (T, H, W, 3) RGB, by OpenCV as LARYBench reads them. Raises RowFaultError."""
    return _stack([_read_image(p, n) for p, n in zip(paths, names, strict=True)], " and ".join(names))


def decode_in_order(path: Path, name: str) -> Generator[av.VideoFrame, None, None]:
    """Every frame of a clip's video stream, in order; `contextlib.closing` for whoever stops early.

    Of several streams it is the one that is marked as default, or the first; cover pictures are none. Raises
    RowFaultError on reaching damage, and at the end where something that the container promises did not come.
    """
    _require_content(path, name)
    position = -1
    try:
        promise = check_container(path)
        with av.open(str(path)) as container:
            stream = _video_stream(container, name)
            stream.codec_context.thread_count = _DECODER_THREADS
            ledger = Ledger(promise, stream)
            for frame in _frames(container, stream, ledger):
                position += 1
                if frame.is_corrupt:
                    raise RowFaultError("decode_error", f"{name}: frame {position} is corrupt")
                ledger.frame(frame)
                yield frame
            if position < 0:
                raise RowFaultError("decode_error", f"{name}: no frame in it")
            ledger.end()
    except DamagedError as error:
        raise RowFaultError("decode_error", f"{name}: {error}") from None
    except OSError as error:
        # PyAV's own errors of the volume are OSErrors, too.
        raise from_os_error(error, name, f"{name}: {_reason(error)} after {position + 1} frames") from None
    except (av.FFmpegError, ValueError) as error:
        raise RowFaultError("decode_error", f"{name}: {_reason(error)} after {position + 1} frames") from None


def upright(frame: av.VideoFrame, name: str) -> Frames:
    """A decoded frame as uint8 (H, W, 3) RGB, turned and flipped as its display matrix says. Raises RowFaultError."""
    try:
        array: Frames = frame.to_ndarray(format="rgb24")
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
    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, ledger: Ledger
) -> Generator[av.VideoFrame, None, None]:
    for packet in container.demux(stream):
        if packet.size:
            ledger.packet(packet)
        for frame in packet.decode():
            assert isinstance(frame, av.VideoFrame)
            yield frame


def _read_in_order(path: Path, name: str, indices: Sequence[int]) -> tuple[list[Frames], bool]:
    wanted, last = set(indices), max(indices)
    found: dict[int, Frames] = {}
    with closing(decode_in_order(path, name)) as frames:
        for position, frame in enumerate(frames):
            if position in wanted:
                found[position] = upright(frame, name)
            if position == last:
                break
    if position < last:
        found[position] = upright(frame, name)
    return [found[min(index, position)] for index in indices], position < last


def _read_decord(path: Path, name: str, indices: Sequence[int]) -> tuple[list[Frames], bool]:
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
    return list(frames), max(indices) > last


def _read_image(path: Path, name: str) -> Frames:
    data = _content(path, name)
    try:
        check_image(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except DamagedError as error:
        raise RowFaultError("decode_error", f"{name}: not an image, or truncated: it {error}") from None
    except cv2.error as error:
        raise RowFaultError("decode_error", f"{name}: {error.err}") from None
    if image is None:
        raise RowFaultError("decode_error", f"{name}: not an image, or truncated")
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
            beginning = file.read(POINTER_BYTES)
    except OSError as error:
        raise from_os_error(error, name, missing=True) from None
    except ValueError:
        raise RowFaultError("bad_path", f"{name!r} is no file name") from None
    if not beginning:
        raise RowFaultError("decode_error", f"{name}: the file is empty")
    if is_pointer(beginning):
        raise RowFaultError(
            "missing_file", f"{name}: is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`"
        )


def _stack(frames: Sequence[Frames], name: str) -> Frames:
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise RowFaultError("decode_error", f"{name}: frames of several sizes ({listed})")
    return np.stack(frames)
