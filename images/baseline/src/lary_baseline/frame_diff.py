"""`frame-diff`: what changed from each small frame to the next."""

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


class FrameDiff(Model):
    """Differences of neighbouring frames, with their sign: 64 patches of 4 x 4 pixels each, in [-1, 1]."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """One row, uint8 (T, H, W, 3) RGB at native size -> uint8 (T, 32, 32, 3)."""
        return resize_area(frames, SIZE)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """There is no network to build."""
        self.dtype = dtype

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        frames = batch.to(self.dtype)  # (B, T, 32, 32, 3)
        return Latents(to_patches((frames[:, 1:] - frames[:, :-1]) / 255, PATCH))  # (B, T - 1, 64, 48)
