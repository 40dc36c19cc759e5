"""Trained models that give a latent of each pair of frames. Imports torch where one is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_schema.base import WeightsError
from lary_trainer.trained import TrainedModel
from lary_worker import Latents

from lary_parts.frames import resize_area
from lary_parts.pairs import preprocessing_id

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from lary_parts.pair_network import Latent, PairNetwork
    from lary_parts.settings import EncoderSettings


class FramesModel(TrainedModel):
    """Reads frames brought to the size of its card."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, size, size, 3)."""
        return resize_area(frames, self.spec.input.shape[1])


class PairModel(FramesModel):
    """Variants: `embed`, before the quantiser; `codebook`, the nearest code; `onehot`, its number."""

    network: PairNetwork
    dt: int
    """Frames between the two of a pair."""
    codes: int

    def use(self, network: PairNetwork, codes: int, dt: int | None, device: torch.device, dtype: torch.dtype) -> None:
        """What is loaded; `dt` of clips, 1 where it is None."""
        self.network, self.codes = network.to(device, dtype).eval(), codes
        self.dt = 1 if self.mode == "image" else (dt or 1)

    def check_preprocessing(self, config: EncoderSettings) -> None:
        """Raises WeightsError where checkpoint and card disagree on what pixels go through."""
        planned = self.card.preprocessing_of(self.variant)
        if preprocessing_id(config) != planned:
            raise WeightsError(
                f"model {self.card.key}: its config says preprocessing {preprocessing_id(config)} (pixel_convention "
                f"{config.pixel_convention}), its card {planned}; one of the two was changed"
            )

    def latent(self, first: torch.Tensor, second: torch.Tensor) -> Latent:
        """Features (B, N, F) of both frames of B pairs -> what this variant is read out of."""
        raise NotImplementedError

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """uint8 (B, T, S, S, 3): a latent for each pair of frames `dt` apart, of an image pair for its two."""
        network, dt = self.network, self.dt
        frames = network.pixels(batch)
        flat = network.features(frames.flatten(0, 1))
        features = flat.reshape(*frames.shape[:2], *flat.shape[1:])  # (B, T, N, F)
        found = self.latent(features[:, :-dt].flatten(0, 1), features[:, dt:].flatten(0, 1))
        by_row = (len(batch), batch.shape[1] - dt)
        tokens = self._read_out(found)
        return Latents(tokens.reshape(*by_row, *tokens.shape[1:]), found.indices.reshape(*by_row, -1))

    def _read_out(self, found: Latent) -> torch.Tensor:
        from torch.nn import functional

        if self.variant == "onehot":
            return functional.one_hot(found.indices, self.codes).to(found.embeddings.dtype)
        return found.embeddings if self.variant == "embed" else found.codes
