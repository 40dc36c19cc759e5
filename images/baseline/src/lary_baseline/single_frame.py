"""`single-frame`: what can be read from the second frame of a pair alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_worker import Latents, Model, Weights

from lary_baseline.patches import resize_area, to_patches

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SIZE = 32
PATCH = 4


class SingleFrame(Model):
    """The target frame: 64 patches of 4 x 4 pixels each, in [-1, 1]. It has seen no action: it shows the pose."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """A pair, uint8 (2, H, W, 3) RGB -> uint8 (1, 32, 32, 3) of its second frame."""
        return resize_area(frames[-1:], SIZE)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """There is no network to build."""
        self.dtype = dtype

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        return Latents(to_patches(batch.to(self.dtype) / 127.5 - 1, PATCH))  # (B, 1, 64, 48)
