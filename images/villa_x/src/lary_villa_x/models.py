"""The key `villa-x`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_schema.base import WeightsError
from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import resize_lanczos, unit_range

from lary_villa_x.config import Config
from lary_villa_x.preprocessing import resize_bilinear

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class VillaX(Model):
    """Codebook vectors of the latent actions between neighbouring frames, and their codes.

    The network's sizes come from the checkpoint's `model_config.json`. Frames of a clip and of a pair
    are resized by different filters, as the reference does.
    """

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        size = self.spec.input.shape[1]
        return resize_bilinear(frames, size) if self.mode == "video" else resize_lanczos(frames, size)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_villa_x import loading

        if "model" in weights:
            config = loading.read(weights["model"])
            self._check(config, str(weights["model"] / loading.FILES[0]))
            self._network = loading.load(weights["model"], config, device, dtype)
        else:
            _, latents, width = self.spec.tokens
            config = Config(num_learned_tokens=latents, action_latent_dim=width)
            self._network = loading.random(config, device, dtype, seed)
        self._dtype = dtype
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device)  # ImageNet
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        pixels = (unit_range(batch) - self._mean) / self._std
        pixels = pixels.permute(0, 1, 4, 2, 3).contiguous().to(self._dtype)  # (B, T, 3, 224, 224)
        tokens, indices = self._network(pixels)
        return Latents(tokens, indices)

    def _check(self, config: Config, where: str) -> None:
        """The card promises shapes before the checkpoint is read, so the two have to agree."""
        found = (config.num_learned_tokens, config.action_latent_dim, config.resolution)
        declared = (*self.spec.tokens[1:], self.spec.input.shape[1])
        if found != declared:
            raise WeightsError(
                f"{where}: num_learned_tokens, action_latent_dim, resolution are {found}, but the card of "
                f"{self.card.key} declares {declared}; give the card in image.yaml the checkpoint's shapes"
            )
