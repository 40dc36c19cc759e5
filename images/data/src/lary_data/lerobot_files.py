"""The files of a manifest from a LeRobot dataset: frames as PNG, action chunks as .npy. Each is whole or absent."""

import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.atomic import publish_bytes
from lary_worker.decode import decode_in_order, upright
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray

from lary_data.pool import TaskFaultError

Faults = dict[int, str]
"""Episode -> why not all of its files could be written."""


class Frame(NamedTuple):
    """A frame that is wanted."""

    time_s: float
    """When it is shown in its video."""
    episode: int
    number: int
    """In the episode."""
    out: str


class VideoFrames(NamedTuple):
    """Frames of one video file."""

    video: str
    tolerance_s: float
    """A frame may be shown so much earlier or later."""
    frames: tuple[Frame, ...]


class Chunk(NamedTuple):
    """Steps `start` to `start + stride - 1` of an episode."""

    episode: int
    start: int
    out: str


class DataRows(NamedTuple):
    """Action chunks, and where the rows hold them the images, of one parquet file."""

    file: str
    action: str
    camera: str | None
    """None where the images are in videos."""
    stride: int
    dim: int
    lengths: dict[int, int]
    """Of the file's episodes."""
    chunks: tuple[Chunk, ...]
    images: tuple[Frame, ...]


def image_name(episode: int, frame: int) -> str:
    """Below the manifest's folder, as in LARYBench's sets."""
    return f"images/ep_{episode:06d}/frame_{frame:06d}.png"


def action_name(episode: int, start: int, stride: int) -> str:
    """Below the manifest's folder; first and last step are in the name, as in LARYBench's sets."""
    return f"actions/ep_{episode:06d}/action_{start:06d}to{start + stride - 1:06d}.npy"


def write_video_frames(task: VideoFrames) -> Faults:
    """Decode a video in order and write the wanted frames; those of a damaged rest are faults."""
    wanted, at, faults = sorted(task.frames), 0, Faults()
    why = "its video ends before"
    try:
        with closing(decode_in_order(Path(task.video), Path(task.video).name)) as frames:
            for frame in frames:
                if at == len(wanted):
                    break
                now = frame.time
                if now is None:
                    raise TaskFaultError(f"{task.video}: frames without a time")
                while at < len(wanted) and wanted[at].time_s < now - task.tolerance_s:
                    faults[wanted[at].episode] = f"{task.video}: no frame at {wanted[at].time_s:.3f} s"
                    at += 1
                if at < len(wanted) and wanted[at].time_s <= now + task.tolerance_s:
                    _write_png(Path(wanted[at].out), upright(frame, task.video))
                    at += 1
    except RowFaultError as fault:
        why = fault.detail
    for missed in wanted[at:]:
        faults.setdefault(missed.episode, f"{task.video}: no frame at {missed.time_s:.3f} s: {why}")
    return faults


def write_data_rows(task: DataRows) -> Faults:
    """Write the chunks and images of a parquet file's episodes; an episode whose rows are not all there is a fault."""
    faults, steps = Faults(), _read_steps(task)
    good: dict[int, Any] = {}
    for episode, length in task.lengths.items():
        try:
            good[episode] = _episode_actions(steps, episode, length, task)
        except TaskFaultError as fault:
            faults[episode] = str(fault)
    for chunk in task.chunks:
        if chunk.episode in good:
            _write_npy(Path(chunk.out), good[chunk.episode][1][chunk.start : chunk.start + task.stride])
    for image in task.images:
        if image.episode in good:
            encoded = steps[task.camera][good[image.episode][0] + image.number].as_py()
            if why := _write_image(Path(image.out), encoded):
                faults[image.episode] = f"{task.file}: episode {image.episode}, frame {image.number}: {why}"
    return faults


def _read_steps(task: DataRows) -> "pyarrow.Table":
    columns = ["episode_index", "frame_index", task.action, *([task.camera] if task.camera else [])]
    try:
        table = pyarrow.parquet.read_table(task.file, columns=columns).select(columns)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise TaskFaultError(f"{task.file}: no table with {', '.join(columns)}: {error}") from None
    return table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")])


def _episode_actions(
    steps: "pyarrow.Table", episode: int, length: int, task: DataRows
) -> tuple[int, NDArray[np.float32]]:
    """The episode's first row in the sorted table, and its actions (length, dim)."""
    where = f"{task.file}: episode {episode}"
    first = int(np.searchsorted(steps["episode_index"].to_numpy(), episode))
    rows = steps.slice(first, length)
    expected = np.stack([np.full(length, episode), np.arange(length)])
    found = np.stack([rows["episode_index"].to_numpy(), rows["frame_index"].to_numpy()])
    if not np.array_equal(found, expected):
        raise TaskFaultError(f"{where}: its rows are not frames 0 to {length - 1}, which meta/ says")
    try:
        actions = np.array(rows[task.action].to_pylist(), np.float32).reshape(length, task.dim)
    except (ValueError, TypeError) as error:
        raise TaskFaultError(f"{where}: {task.action} is not {task.dim} numbers a step: {error}") from None
    if not np.isfinite(actions).all():
        raise TaskFaultError(f"{where}: {task.action} holds values that are not finite")
    return first, actions


def _write_npy(path: Path, values: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    publish_bytes(path, buffer.getvalue())


def _write_png(path: Path, frame: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if not done:
        raise TaskFaultError(f"{path}: cannot be encoded as PNG")
    publish_bytes(path, data.tobytes())


def _write_image(path: Path, encoded: Any) -> str:
    """Write the image of a parquet cell, `{"bytes": ...}`; what is wrong with it, or an empty string."""
    data = encoded.get("bytes") if isinstance(encoded, dict) else None
    if not data:
        return "no image bytes in it"
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return "not an image"
    _write_png(path, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return ""


def absent(files: Sequence[Any]) -> tuple[Any, ...]:
    """Of frames or chunks, those whose file is not there yet."""
    return tuple(file for file in files if not Path(file.out).exists())
