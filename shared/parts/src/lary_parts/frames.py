"""What frames go through in the decode processes, in training and in extraction alike. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_area(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): means over areas, aspect ignored."""
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])
