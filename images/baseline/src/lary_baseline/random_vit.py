"""`random-vit`: what an architecture gives without any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_worker import Latents, Model, Weights

from lary_baseline.patches import resize_area, to_patches

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SIZE = 64
PATCH = 8
WIDTH = 192


class RandomVit(Model):
    """Tokens of every frame, by a transformer whose weights follow from the job's seed alone."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, 64, 64, 3)."""
        return resize_area(frames, SIZE)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_baseline.vit import random_transformer

        patches, values = (SIZE // PATCH) ** 2, PATCH * PATCH * 3
        network = random_transformer(seed, values=values, patches=patches, width=WIDTH, depth=4, heads=3)
        self.network = network.to(device, dtype)
        self.dtype = dtype

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        pixels = batch.flatten(0, 1).to(self.dtype) / 127.5 - 1  # (B * T, 64, 64, 3)
        tokens = self.network(to_patches(pixels, PATCH))  # (B * T, 64, 192)
        return Latents(tokens.unflatten(0, batch.shape[:2]))
