"""From files to frames, exactly: what a full sequential decode gives, or an error that costs the row.

Clips are decoded in order, because seeking readers return wrong frames on open-GOP, edit-list and AVI
files without an error. Only the wanted frames are converted, and reading stops after the last of them.

Strict about damage before the last wanted frame: a packet that the decoder rejects, or any frame that
it marks as corrupt, also one that is not wanted, since later frames are predicted from it. Damage
behind the last wanted frame is not looked at.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
from lary_schema.jobs import Decoder
from numpy.typing import NDArray

from lary_worker.faults import RowFaultError

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
    """Every frame of a clip's first video stream, in order; `contextlib.closing` for whoever stops early.

    Raises RowFaultError on reaching damage: a packet that the decoder rejects, a frame that it marks as corrupt.
    """
    _require_content(path, name)
    position = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise RowFaultError("decode_error", f"{name}: no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = _DECODER_THREADS
            for position, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    raise RowFaultError("decode_error", f"{name}: frame {position} is corrupt")
                yield frame
    except (av.FFmpegError, ValueError) as error:
        raise RowFaultError("decode_error", f"{name}: {_reason(error)} after {position + 1} frames") from None
    if position < 0:
        raise RowFaultError("decode_error", f"{name}: no frame in it")


def upright(frame: av.VideoFrame, name: str) -> Frames:
    """A decoded frame as uint8 (H, W, 3) RGB, turned as its rotation tag says. Raises RowFaultError."""
    try:
        array: Frames = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError) as error:
        raise RowFaultError("decode_error", f"{name}: a frame is no RGB picture: {_reason(error)}") from None
    return np.rot90(array, frame.rotation // 90 % 4)


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
    data = _require_content(path, name).read_bytes()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise RowFaultError("decode_error", f"{name}: {error.err}") from None
    if image is None:
        raise RowFaultError("decode_error", f"{name}: not an image, or truncated")
    rgb: Frames = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _require_content(path: Path, name: str) -> Path:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise RowFaultError("missing_file", f"{name}: {error.strerror}") from None
    except ValueError:
        raise RowFaultError("bad_path", f"{name!r} is no file name") from None
    if empty:
        raise RowFaultError("decode_error", f"{name}: the file is empty")
    return path


def _stack(frames: Sequence[Frames], name: str) -> Frames:
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise RowFaultError("decode_error", f"{name}: frames of several sizes ({listed})")
    return np.stack(frames)
