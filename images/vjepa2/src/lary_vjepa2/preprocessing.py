"""V-JEPA 2's evaluation transform: short side to 256, centre crop of 224, aspect kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CROP = 224
_SHORT_SIDE = 256  # int(CROP * 256 / 224)


def resize_and_crop(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) -> (T, 224, 224, 3).

    OpenCV bilinear without antialiasing; the long side is cut down to an integer, the crop's offset
    rounded half to even (V-JEPA 2: `evals/video_classification_frozen/utils.py`).
    """
    height, width = frames.shape[1:3]
    short = min(height, width)
    height, width = height * _SHORT_SIDE // short, width * _SHORT_SIDE // short
    top, left = round((height - CROP) / 2), round((width - CROP) / 2)
    resized = (cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames)
    return np.stack([image[top : top + CROP, left : left + CROP] for image in resized])
