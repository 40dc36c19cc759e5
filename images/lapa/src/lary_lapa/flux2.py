"""The key `flux2`: the FLUX.2 autoencoder, frame by frame."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import resize_cubic, resize_lanczos, unit_range

from lary_lapa.flux2_size import Flux2Size

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Flux2(Model):
    """Normalised latent means of every frame: a token is a patch of 16 x 16 pixels.

    `lary-v1` feeds and reads the network as LARYBench does: interleaved RGB bytes are taken for planes,
    the pixels of a pair are not scaled down from bytes, and a token is 128 neighbouring values of one or
    two channels. Frames of a clip and of a pair are resized by different filters in both variants.
    """

    config = Flux2Size()

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, 224, 224, 3)."""
        return resize_cubic(frames, 224) if self.mode == "video" else resize_lanczos(frames, 224)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_lapa.flux2_net import load

        torch.manual_seed(seed)
        self.dtype = dtype
        self.encoder = load(weights.get("model"), self.config, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A smaller network than the released one: the shapes, which a self test looks at, are the same."""
        self.config = replace(self.config, ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
        self.load({}, device, dtype, seed)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        frames = batch.flatten(0, 1)  # (B * T, H, W, 3)
        pixels = self._lary_v1_pixels(frames) if self.variant == "lary-v1" else _planes(frames)
        latents = self.encoder(pixels.to(self.dtype))  # (B * T, D, h, w)
        if self.variant == "lary-v1":
            tokens = latents.reshape(len(latents), -1, latents.shape[1])
        else:
            tokens = latents.flatten(2).mT  # (B * T, h * w, D)
        return Latents(tokens.unflatten(0, batch.shape[:2]))

    def _lary_v1_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        values = unit_range(frames) if self.mode == "video" else frames.float()
        return (values * 2 - 1).reshape(len(frames), 3, *frames.shape[1:3])


def _planes(frames: torch.Tensor) -> torch.Tensor:
    """uint8 (b, H, W, 3) -> float32 (b, 3, H, W) in [-1, 1].

    Contiguous, because torch's group norm on the CPU is less exact on channels-last tensors.
    """
    return unit_range(frames.permute(0, 3, 1, 2).contiguous()) * 2 - 1
