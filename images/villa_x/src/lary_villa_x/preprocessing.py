"""How villa-X's frames are resized: not the same way in both modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_bilinear(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) -> (T, size, size, 3): torch's antialiased bilinear filter, then rounded.

    What torchvision's first `Resize` does with a uint8 tensor: it computes in float32. torch's own uint8
    kernel and Pillow, which round between the two directions, are off by one for a sixth of the values.
    """
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized = interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(resized.round().byte().permute(0, 2, 3, 1).numpy())
