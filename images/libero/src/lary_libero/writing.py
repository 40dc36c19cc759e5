"""Writing one episode: videos, frames, chunks and arrays, and last the marker that says that all of it is there."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import av
import numpy as np
from lary_schema.atomic import publish_text, replacing
from lary_schema.base import ContractError, read_json
from numpy.typing import NDArray
from PIL import Image

from lary_libero.episodes import Recording
from lary_libero.layout import Layout
from lary_libero.scripted import PHASES
from lary_libero.simulator import FPS

ARRAYS = ("states", "actions", "phases", "nuisance")
"""Of a recording, kept for the tables."""
_X264 = {"qp": "0", "preset": "veryfast", "threads": "1"}


def write_episode(layout: Layout, episode: int, facts: dict[str, Any], recording: Recording, stride: int) -> None:
    """`facts` go into the marker as they are. A killed writer leaves no marker, and another writes the same bytes."""
    for camera, images in recording.images.items():
        write_video(layout.root / layout.video(camera, episode), images)
    _write_pairs(layout, episode, recording, stride)
    with replacing(layout.arrays(episode)) as draft, draft.open("xb") as file:
        np.savez(file, **{name: getattr(recording, name) for name in ARRAYS})
    marker = facts | {
        "episode": episode,
        "length": len(recording.actions),
        "first_success": recording.first_success,
        "success": recording.first_success is not None,
        "success_after_release": recording.success_after_release,
        "phases": [[PHASES[phase], start, end] for phase, start, end in runs(recording.phases)],
        "images": {camera: image_statistics(images) for camera, images in recording.images.items()},
    }
    publish_text(layout.marker(episode), json.dumps(marker, indent=1) + "\n")


def is_written(layout: Layout, episode: int, cameras: Sequence[str], stride: int, perturbed: bool) -> bool:
    """Whether an episode has all its files, and its arrays can be read. Videos and pictures are not decoded: `data
    check` does that."""
    try:
        length = read_json(layout.marker(episode))["length"]
        with layout.arrays(episode).open("rb") as opened, np.load(opened) as file:
            lengths = {len(file[name]) for name in ARRAYS}
        starts = pair_starts(length, stride)
    except (ContractError, OSError, ValueError, LookupError, TypeError, BadZipFile, EOFError):
        return False
    names = [layout.video(camera, episode) for camera in cameras]
    names += [layout.frame(episode, step) for start in starts for step in (start, start + stride)]
    names += [layout.chunk(episode, start) for start in starts]
    names += [layout.nuisance(episode, start) for start in starts if perturbed]
    return lengths == {length} and all(map(_has_content, (layout.root / name for name in names)))


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """(T, H, W, 3) RGB -> mp4, H.264 without loss and without a change of colour space: a frame is what was drawn."""
    options = {"fflags": "+bitexact"}
    with replacing(path, sync=False) as draft, av.open(str(draft), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264rgb", rate=FPS, options=_X264)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_pairs(layout: Layout, episode: int, recording: Recording, stride: int) -> None:
    images = next(iter(recording.images.values()))
    starts = pair_starts(len(images), stride)
    for step in sorted({*starts, *(start + stride for start in starts)}):
        _write(layout.root / layout.frame(episode, step), lambda file, s=step: _png(file, images[s]))
    for start in starts:
        chunk = recording.actions[start : start + stride]
        _write(layout.root / layout.chunk(episode, start), lambda file, array=chunk: np.save(file, array))
        if recording.nuisance.shape[1]:
            change = recording.nuisance[[start + stride]] - recording.nuisance[[start]]
            _write(layout.root / layout.nuisance(episode, start), lambda file, array=change: np.save(file, array))


def pair_starts(length: int, stride: int) -> range:
    """First frames of the pairs of an episode; the second one, `stride` later, is seen too."""
    return range(0, length - stride, stride)


def _png(file: Any, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)


def _write(path: Path, write: Any) -> None:
    with replacing(path, sync=False) as draft, draft.open("xb") as file:
        write(file)


def runs(phases: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(phase, first step, step after the last) of each stretch of one phase."""
    edges = [0, *(np.flatnonzero(np.diff(phases)) + 1).tolist(), len(phases)]
    return [(int(phases[a]), a, b) for a, b in pairwise(edges) if a < b]


def image_statistics(images: NDArray[np.uint8]) -> dict[str, list[float]]:
    """min, max, mean and std by channel in [0, 1], as LeRobot keeps them of each episode; from every tenth frame."""
    values = images[::10].reshape(-1, 3).astype(np.float64) / 255
    return {
        "min": values.min(0).tolist(), "max": values.max(0).tolist(), "mean": values.mean(0).tolist(),
        "std": values.std(0).tolist(), "count": [len(images[::10])],
    }  # fmt: skip
