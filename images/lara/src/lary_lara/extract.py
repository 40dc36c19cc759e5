"""The tokenizer as a model: one latent of Q tokens for each pair of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.frames import resize_area
from lary_schema.base import WeightsError
from lary_schema.trained import CHECKPOINT
from lary_trainer.trained import TrainedModel
from lary_worker import Latents, Weights

from lary_lara.facts import MotoConfig, preprocessing_id

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from lary_lara.network import Tokenizer

TINY = MotoConfig(
    size=32, patch=8, width=16, heads=2, encoder_layers=1, decoder_layers=1, encoder="pixel", initial="fan-in"
)
"""Of self tests: the shapes of the family's example."""


class Moto(TrainedModel):
    """Variants: `embed`, before the quantiser; `codebook`, the nearest code; `onehot`, its number."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, size, size, 3)."""
        return resize_area(frames, self.spec.input.shape[1])

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        if CHECKPOINT not in weights:
            raise WeightsError(f"model {self.card.key} needs the folder of its training, as weights {CHECKPOINT!r}")
        from lary_parts.encoders import make_encoder

        from lary_lara.checkpoint import load_tokenizer, read_checkpoint_config

        config = read_checkpoint_config(weights[CHECKPOINT])
        self._check(config.tokenizer)
        network = self._make(config.tokenizer, make_encoder(config.tokenizer, weights.get("encoder")))
        load_tokenizer(network, weights[CHECKPOINT])
        self._place(network, config.dt or 1, device, dtype)

    def _check(self, config: MotoConfig) -> None:
        planned = self.card.preprocessing_of(self.variant)
        if preprocessing_id(config) != planned:
            raise WeightsError(
                f"model {self.card.key}: its config says preprocessing {preprocessing_id(config)} (pixel_convention "
                f"{config.pixel_convention}), its card {planned}; one of the two was changed"
            )

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the shapes of the family's example."""
        from lary_parts.encoders import make_encoder

        self._place(self._make(TINY, make_encoder(TINY, None)), 1, device, dtype)

    def _make(self, config: MotoConfig, encoder: Any) -> Tokenizer:
        from lary_lara.network import make_tokenizer

        return make_tokenizer(config, encoder, 0)

    def _place(self, network: Tokenizer, dt: int, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.dt = network.to(device, dtype).eval(), 1 if self.mode == "image" else dt

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """uint8 (B, T, S, S, 3): a latent for each pair of frames `dt` apart, of an image pair for its two."""
        network, dt = self.network, self.dt
        frames = network.pixels(batch)
        flat = network.features(frames.flatten(0, 1))
        features = flat.reshape(*frames.shape[:2], *flat.shape[1:])  # (B, T, N, F)
        pairs = [part.flatten(0, 1) for part in (features[:, :-dt], features[:, dt:])]
        found = network.latent(*pairs)
        by_row = (len(batch), batch.shape[1] - dt)
        tokens = self._read_out(found.embeddings, found.codes, found.indices)
        return Latents(tokens.reshape(*by_row, *tokens.shape[1:]), found.indices.reshape(*by_row, -1))

    def _read_out(self, embeddings: torch.Tensor, codes: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        if self.variant == "onehot":
            return functional.one_hot(indices, self.network.config.codes).to(embeddings.dtype)
        return codes if self.variant == "codebook" else embeddings
