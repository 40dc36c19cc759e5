"""What the baselines share: small frames, cut into patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def resize_area(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): means over areas, aspect ignored."""
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])


def to_patches(frames: torch.Tensor, patch: int) -> torch.Tensor:
    """(..., S, S, C) -> (..., n * n, patch * patch * C), with n = S / patch: row by row, pixels before channels."""
    *lead, size, _, channels = frames.shape
    n = size // patch
    cells = frames.reshape(*lead, n, patch, n, patch, channels)
    return cells.transpose(-4, -3).reshape(*lead, n * n, patch * patch * channels)
