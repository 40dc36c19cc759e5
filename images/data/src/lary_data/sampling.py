"""Which frames of a clip are looked at (LARYBench: get_latent_action/get_indices.py and sampler.py).

Motion guided sampling (MGSampler, Zhi et al. 2021): frames at equal steps of accumulated motion, motion being the
square root of 1 - SSIM of neighbouring frames. Differences below 0, which rounding makes of SSIMs above 1, are 0.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from lary_worker.decode import decode_in_order, upright
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray

from lary_data.ssim import ssim

Method = Literal["motion", "uniform"]
SIDE = 224
"""Frames are compared at this size, in pixels."""
SHORT = 2
"""A clip of at most this many times the wanted frames is sampled uniformly."""


class Sampled(NamedTuple):
    """The indices of a clip, ascending, and how they were chosen."""

    indices: list[int]
    how: str
    """`motion`, `uniform`, or `uniform` with the reason why not `motion`: `uniform (short)`, `uniform (static)`."""


def sample_clip(path: Path, name: str, frames: int, method: Method) -> Sampled:
    """`frames` indices of a clip. `name` is what errors call it.

    Raises RowFaultError for a clip that cannot be decoded to its end, and for one with a single frame.
    """
    if method == "uniform":
        with closing(decode_in_order(path, name)) as decoded:
            count = sum(1 for _ in decoded)
        return _finished(uniform_indices(count, frames), frames, name, "uniform")
    with closing(decode_in_order(path, name)) as decoded:
        differences = frame_differences(_grey(upright(frame, name)) for frame in decoded)
    count = len(differences) + 1
    if count <= SHORT * frames:
        return _finished(uniform_indices(count, frames), frames, name, "uniform (short)")
    motion = motion_indices(differences, frames)
    if motion is None:
        return _finished(uniform_indices(count, frames), frames, name, "uniform (static)")
    return _finished(motion, frames, name, "motion")


def frame_differences(frames: Iterable[NDArray[np.uint8]]) -> list[float]:
    """1 - SSIM of each frame (H, W) and the next: one number fewer than frames."""
    differences, before = [], None
    for frame in frames:
        if before is not None:
            differences.append(1.0 - ssim(before, frame))
        before = frame
    return differences


def uniform_indices(count: int, frames: int) -> list[int]:
    """`frames` indices into `count` frames at equal steps from the first on, repeated where there are fewer."""
    step = count / frames
    return [int(step * i) for i in range(frames)]


def motion_indices(differences: Sequence[float], frames: int) -> list[int] | None:
    """The frames at which (2i + 1) / 2n of the motion have happened; None where there is no motion.

    `differences[k]` is that of frames k and k + 1, so frame 0 is never chosen; of equally near ones the first is.
    """
    motion = np.sqrt(np.clip(differences, 0, None))
    total = motion.sum()
    if not total > 0:
        return None
    happened = np.cumsum(motion / total)
    targets = [1 / (frames * 2) + i / frames for i in range(frames)]
    return [int(np.abs(happened - target).argmin()) + 1 for target in targets]


def _finished(indices: list[int], frames: int, name: str, how: str) -> Sampled:
    """Each index once, ascending, the last one repeated up to `frames`."""
    chosen = sorted(set(indices))
    if chosen == [0]:
        raise RowFaultError("decode_error", f"{name}: has one frame, which shows no motion")
    return Sampled(chosen + chosen[-1:] * (frames - len(chosen)), how)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (SIDE, SIDE))
    return grey
