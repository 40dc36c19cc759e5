"""`pixels`: what can be read from small frames as they are."""

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


class Pixels(Model):
    """The frames: 64 patches of 4 x 4 pixels each, in [-1, 1]."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, 32, 32, 3)."""
        return resize_area(frames, SIZE)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        self.dtype = dtype

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        return Latents(to_patches(batch.to(self.dtype) / 127.5 - 1, PATCH))  # (B, T, 64, 48)
