"""The key `vjepa2`; a card of another width (ViT-H, ViT-g) needs no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError
from lary_worker.model import Latents, Model, Weights

from lary_vjepa2.config import BY_WIDTH, Config
from lary_vjepa2.preprocessing import resize_and_crop

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class VJepa2(Model):
    """Patch features of V-JEPA 2: one step per two frames, of an odd number the last is not seen.

    `corrected` keeps the time axis of a clip; `lary-v1` gives the same numbers without it.
    """

    config: Config | None = None
    """None: the released size whose tokens are as wide as the card says."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        return resize_and_crop(frames)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_vjepa2 import network

        config = self.config or self._by_width()
        if "model" in weights:
            self._encoder = network.load(weights["model"], config, device, dtype)
        else:
            self._encoder = network.random(config, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        features = self._encoder(batch)  # (B, T // 2 * 196, D)
        return Latents(features.unflatten(1, (self.spec.tokens[0], -1)))

    def _by_width(self) -> Config:
        width = self.spec.tokens[-1]
        if width not in BY_WIDTH:
            raise ContractError(f"model {self.card.key}: no V-JEPA 2 has tokens of {width}; {sorted(BY_WIDTH)} are known")
        return BY_WIDTH[width]
