"""How villa-X's frames are resized: not the same way in both modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_bilinear(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): torch's antialiased bilinear filter on uint8.

    What torchvision's `Resize` does with a uint8 tensor on the CPU; OpenCV and Pillow round otherwise.
    """
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    resized = interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
