"""Resizing as LARYBench does it, and the way from bytes to numbers.

The resized frames stay uint8 until they are on the device: a quarter of the bytes through queues and
over the bus, and `unit_range` gives the very float32 that dividing on the host would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]


def resize_cubic(frames: Frames, size: int = 224) -> Frames:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): OpenCV cubic, no antialiasing, aspect ignored.

    The values belong to OpenCV 5; version 4 differs by one grey level here and there.
    """
    resized = np.empty((len(frames), size, size, 3), np.uint8)
    for source, target in zip(frames, resized, strict=True):
        cv2.resize(source, (size, size), dst=target, interpolation=cv2.INTER_CUBIC)
    return resized


def resize_lanczos(frames: Frames, size: int = 224) -> Frames:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): Pillow Lanczos (antialiased), aspect ignored."""
    images = (Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS) for frame in frames)
    return np.stack([np.asarray(image) for image in images])


def unit_range(frames: torch.Tensor) -> torch.Tensor:
    """uint8 of any shape -> float32 in [0, 1], correctly rounded on every device.

    The divisor is a tensor because CUDA turns division by a Python number into a multiplication by
    its reciprocal, which is off by one unit in the last place for some values.
    """
    values = frames.float()
    return values / values.new_full((), 255.0)


def imagenet_normalised(frames: torch.Tensor) -> torch.Tensor:
    """uint8 RGB (..., 3) -> float32 of the same shape: [0, 1], less ImageNet's mean, over its standard deviation."""
    values = unit_range(frames)
    return (values - values.new_tensor((0.485, 0.456, 0.406))) / values.new_tensor((0.229, 0.224, 0.225))
