"""The key `villa-x`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lary_schema.base import WeightsError
from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import imagenet_normalised, resize_lanczos

from lary_villa_x.config import Config
from lary_villa_x.preprocessing import resize_bilinear

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray


class VillaX(Model):
    """Codebook vectors of the latent actions between neighbouring frames, and their codes.

    The network's sizes come from the checkpoint's `model_config.json`. Frames of a clip and of a pair
    are resized by different filters, as the reference does.
    """

    config = Config(num_learned_tokens=2, action_latent_dim=32)
    """What the card's shapes stand for; the other sizes are for random weights alone."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        size = self.config.resolution
        return resize_bilinear(frames, size) if self.mode == "video" else resize_lanczos(frames, size)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_villa_x import loading

        torch.manual_seed(seed)
        folder = weights.get("model")
        config = self.config if folder is None else self._checked(loading.read(folder), folder)
        self.dtype = dtype
        self.network = loading.load(folder, config, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A smaller network than the released one: the shapes, which a self test looks at, are the same."""
        self.config = replace(self.config, encoder_depth=1)
        self.load({}, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        pixels = imagenet_normalised(batch).permute(0, 1, 4, 2, 3).contiguous()  # (B, T, 3, H, W)
        return Latents(*self.network(pixels.to(self.dtype)))

    def _checked(self, config: Config, folder: Path) -> Config:
        """The card promised shapes before the checkpoint was read, so the two have to agree."""
        for name in ("num_learned_tokens", "action_latent_dim", "resolution"):
            found, promised = getattr(config, name), getattr(self.config, name)
            if found != promised:
                raise WeightsError(
                    f"{folder}: model_config.json has {name} {found}, but the card of {self.card.key} stands for "
                    f"{promised}; a subclass of {VillaX.__name__} with that config, and its card, would serve it"
                )
        return config
