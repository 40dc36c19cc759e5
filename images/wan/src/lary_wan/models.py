"""The key `wan2-2`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import resize_lanczos

from lary_wan.config import Config

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Wan22(Model):
    """Latent means of the Wan 2.2 autoencoder (16 x 16 pixels, 4 frames per token), standardised per channel.

    A clip of nine frames gives three time steps. Of a pair, `corrected` encodes each frame alone;
    `lary-v1` feeds it as a clip, of which the network reads the first frame only.
    """

    config = Config()

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        return resize_lanczos(frames)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_wan.network import load

        torch.manual_seed(seed)
        self.encoder = load(weights.get("model"), self.config, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A smaller network than the released one: the shapes, which a self test looks at, are the same."""
        self.config = replace(self.config, dim=32, num_res_blocks=1)
        self.load({}, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        if self.mode == "video":
            return Latents(self.encoder(batch))
        if self.variant == "lary-v1":
            return Latents(self.encoder(batch[:, :1]))
        frames = batch.flatten(0, 1)[:, None]  # (B * 2, 1, H, W, 3)
        latents = self.encoder(frames)[:, 0]  # (B * 2, 196, 48)
        return Latents(latents.reshape(len(batch), -1, *latents.shape[1:]))
