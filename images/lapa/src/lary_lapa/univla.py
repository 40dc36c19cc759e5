"""The key `univla`: UniVLA's task-centric latent actions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import imagenet_normalised, resize_cubic

from lary_lapa.univla_size import UnivlaSize, VitSize

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Univla(Model):
    """Codebook vectors of what the robot controls between neighbouring frames, and their codes."""

    config = UnivlaSize()

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, 224, 224, 3)."""
        return resize_cubic(frames, 224)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_lapa.univla_net import load

        torch.manual_seed(seed)
        self.dtype = dtype
        self.network = load(weights.get("model"), self.config, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A smaller network than the released one: the shapes, which a self test looks at, are the same."""
        self.config = UnivlaSize(
            VitSize(embed_dim=64, depth=1, num_heads=2),
            replace(self.config.lam, model_dim=64, num_heads=2, enc_blocks=1),
        )
        self.load({}, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        pixels = imagenet_normalised(batch).permute(0, 1, 4, 2, 3).contiguous()  # (B, T, 3, H, W)
        return Latents(*self.network(pixels.to(self.dtype)))
