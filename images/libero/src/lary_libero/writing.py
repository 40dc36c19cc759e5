"""Writing one episode: videos, frames, chunks and arrays, and last the marker that says that all of it is there."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from lary_schema.atomic import publish_text, replacing
from numpy.typing import NDArray
from PIL import Image

from lary_libero.episodes import Recording
from lary_libero.layout import Layout
from lary_libero.scripted import PHASES
from lary_libero.simulator import FPS

_X264 = {"qp": "0", "preset": "veryfast", "threads": "1"}


def write_episode(layout: Layout, episode: int, facts: dict[str, Any], recording: Recording, stride: int) -> None:
    """`facts` go into the marker as they are. A killed writer leaves no marker, and another writes the same bytes."""
    for camera, images in recording.images.items():
        write_video(layout.root / layout.video(camera, episode), images)
    _write_pairs(layout, episode, recording, stride)
    with replacing(layout.arrays(episode)) as draft, draft.open("xb") as file:
        np.savez(
            file, states=recording.states, actions=recording.actions, phases=recording.phases,
            nuisance=recording.nuisance,
        )  # fmt: skip
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
