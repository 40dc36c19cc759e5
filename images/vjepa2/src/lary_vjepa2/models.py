"""The key `vjepa2`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lary_worker.model import Latents, Model, Weights

from lary_vjepa2.config import VITL
from lary_vjepa2.preprocessing import resize_and_crop

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class VJepa2(Model):
    """Patch features of V-JEPA 2: one step per two frames, of an odd number the last is not seen.

    `corrected` keeps the time axis of a clip; `lary-v1` gives the same numbers without it.
    """

    config = VITL
    """Another size (`VITH`, `VITG`) is a subclass with that config, and its card."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        return resize_and_crop(frames)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_vjepa2.network import load

        torch.manual_seed(seed)
        self.encoder = load(weights.get("model"), self.config, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A smaller network than the released one: the shapes, which a self test looks at, are the same."""
        self.config = replace(self.config, depth=1)
        self.load({}, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        features = self.encoder(batch)  # (B, T // 2 * 196, D)
        return Latents(features.unflatten(1, (self.spec.tokens[0], -1)))
