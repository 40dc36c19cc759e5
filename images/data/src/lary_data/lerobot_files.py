"""The files of a manifest from a LeRobot dataset: frames as PNG, action chunks as .npy. Each is whole or absent."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.files import is_lfs_pointer, pointer_fault
from lary_worker.decode import decode_in_order, upright
from lary_worker.faults import RowFaultError
from lary_worker.media.binary import DamagedError
from lary_worker.media.still import check_image
from numpy.typing import NDArray

from lary_data.lerobot import Window
from lary_data.lerobot_steps import Faults
from lary_data.pair_files import write_npy, write_png
from lary_data.pool import TaskFaultError


class Frame(NamedTuple):
    """A frame that is wanted."""

    time_s: float
    """When it is shown in its video: the row's `timestamp`, from the begin of its episode's window on."""
    episode: int
    number: int
    """In the episode."""
    out: str


class Span(NamedTuple):
    """An episode in a video: every row of it has a frame, and every frame a row."""

    episode: int
    window: Window
    times_s: tuple[float, ...]
    """When each row's frame is shown in the video, ascending."""


class VideoFrames(NamedTuple):
    """Frames of one video file."""

    video: str
    tolerance_s: float
    """How far from a row's time its frame may be shown."""
    step_s: float
    """From one row to the next."""
    end_s: float | None
    """Where the last episode in the file ends, be its rows all there or not; None where the file is one episode."""
    spans: tuple[Span, ...]
    """The episodes in the file whose rows are all there."""
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
    """Decode a video to its end and write the wanted frames.

    An episode is a fault where a row of it, wanted or not, has no frame at its time, and where its part of the video
    has more frames than rows. Damage is a fault of the episodes that are not whole before it.
    """
    path, match = Path(task.video), _Match(task)
    if is_lfs_pointer(path):
        raise TaskFaultError(pointer_fault(path))
    try:
        with closing(decode_in_order(path, path.name)) as frames:
            for frame in frames:
                match.show(frame)
    except RowFaultError as fault:
        return match.broken(fault.detail)
    return match.ended()


class _Match:
    """Gives each row of a video the frame nearest to its time; of two equally near ones the earlier."""

    def __init__(self, task: VideoFrames) -> None:
        self._task = task
        self._out = {(frame.episode, frame.number): frame.out for frame in task.frames}
        self._rows = sorted(
            (time, span.episode, number) for span in task.spans for number, time in enumerate(span.times_s)
        )
        self._at = 0
        self._before: av.VideoFrame | None = None
        self._shown: list[float] = []
        self._faults = Faults()

    def show(self, frame: av.VideoFrame) -> None:
        """The next frame of the video."""
        now = frame.time
        if now is None or (self._shown and now <= self._shown[-1]):
            raise TaskFaultError(f"{self._task.video}: frame {len(self._shown)} has no time, or not a later one")
        if self._before is not None:
            self._give(self._before, (self._shown[-1] + now) / 2)
        self._before = frame
        self._shown.append(now)

    def broken(self, why: str) -> Faults:
        """The faults of a video that is damaged behind the frames that were shown.

        Where all rows have their frames, nobody knows which of them the damage concerns.
        """
        if self._before is not None:
            self._give(self._before, self._shown[-1] + self._task.tolerance_s)
        episodes = {episode for _, episode, _ in self._rows[self._at :]} or {span.episode for span in self._task.spans}
        return dict.fromkeys(episodes, f"{self._task.video}: {why}") | self._faults

    def ended(self) -> Faults:
        """The faults of a video that was shown to its end."""
        if self._before is not None:
            self._give(self._before, float("inf"))
        shown = np.array(self._shown)
        for span in self._task.spans:
            if fault := _window_fault(span, shown, self._task):
                self._faults.setdefault(span.episode, f"{self._task.video}: {fault}")
        end = self._task.end_s
        behind = 0 if end is None else int((shown >= end - self._task.tolerance_s).sum())
        if behind:
            fault = f"{self._task.video}: {behind} frames behind its last episode's end belong to no episode"
            self._faults = dict.fromkeys((span.episode for span in self._task.spans), fault) | self._faults
        return self._faults

    def _give(self, frame: av.VideoFrame, until_s: float) -> None:
        """Write the frame for the rows up to a time."""
        shown = self._shown[-1]
        while self._at < len(self._rows) and self._rows[self._at][0] <= until_s:
            time, episode, number = self._rows[self._at]
            self._at += 1
            out = self._out.get((episode, number))
            if abs(time - shown) > self._task.tolerance_s:
                why = "its video ends before" if until_s == float("inf") else f"the nearest is at {shown:.4f} s"
                self._faults.setdefault(episode, f"{self._task.video}: no frame at {time:.4f} s: {why}")
            elif out is not None:
                write_png(Path(out), upright(frame, self._task.video))


def _window_fault(span: Span, shown_s: NDArray[np.float64], task: VideoFrames) -> str | None:
    """What is wrong with the frames of an episode's window, given the times of all frames.

    Rows whose times begin later than 0 say that they are a part of what was filmed; other rows say that they are all.
    """
    start, end = span.window
    first, last = span.times_s[0], span.times_s[-1]
    if end is not None and last > end - task.tolerance_s:
        return f"its rows end at {last:g} s, its to_timestamp is {end:g} s"
    if first > start + task.tolerance_s:
        return None
    inside = shown_s[(shown_s >= start - task.tolerance_s) & (shown_s < (end or np.inf) - task.tolerance_s)]
    count = int((inside < first - task.tolerance_s).sum() + (inside >= last + task.step_s - task.tolerance_s).sum())
    return f"{count} frames more than its {len(span.times_s)} rows have time for" if count else None


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
            write_npy(Path(chunk.out), good[chunk.episode][1][chunk.start : chunk.start + task.stride])
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
        with np.errstate(over="ignore"):
            actions = np.array(rows[task.action].to_pylist(), np.float32).reshape(length, task.dim)
    except (ValueError, TypeError) as error:
        raise TaskFaultError(f"{where}: {task.action} is not {task.dim} numbers a step: {error}") from None
    if not np.isfinite(actions).all():
        raise TaskFaultError(f"{where}: {task.action} holds values that are not finite")
    return first, actions


def _write_image(path: Path, encoded: Any) -> str:
    """Write the image of a parquet cell, `{"bytes": ...}`; what is wrong with it, or an empty string."""
    data = encoded.get("bytes") if isinstance(encoded, dict) else None
    if not data:
        return "no image bytes in it"
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        # What the decoder took may still be grey where the data is cut.
        check_image(data)
    except (DamagedError, cv2.error) as error:
        return f"an image that {error}"
    if image is None:
        return "not an image"
    write_png(path, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return ""


def absent(files: Sequence[Any]) -> tuple[Any, ...]:
    """Of frames or chunks, those whose file is not there yet."""
    return tuple(file for file in files if not Path(file.out).exists())
