"""The two-stage model as a model: one latent of K tokens for each pair of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.frames import resize_area
from lary_schema.base import WeightsError
from lary_schema.trained import CHECKPOINT
from lary_trainer.trained import TrainedModel
from lary_worker import Latents, Weights

from lary_latentvla.univla_facts import UNCONTROLLED, UnivlaConfig, preprocessing_id

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from lary_latentvla.univla_network import Codes, UnivlaLam

TINY = UnivlaConfig(
    stage=2, size=32, patch=8, width=16, heads=2, encoder_layers=1, decoder_layers=1, code_width=32, encoder="pixel"
)
"""Of self tests: the shapes of the family's example."""


class Univla(TrainedModel):
    """Variants: `embed`, `codebook`, `onehot` of the controllable codes; `uncontrolled`, vectors of the other ones.

    No text is read: of a stage 1 whose encoder reads instructions, the latents are those that it has without one.
    """

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, size, size, 3)."""
        return resize_area(frames, self.spec.input.shape[1])

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        if CHECKPOINT not in weights:
            raise WeightsError(f"model {self.card.key} needs the folder of its training, as weights {CHECKPOINT!r}")
        from lary_parts.encoders import make_encoder

        from lary_latentvla.text import make_text_encoder
        from lary_latentvla.univla_checkpoint import load_checkpoint, read_checkpoint_config
        from lary_latentvla.univla_network import make_univla

        found = read_checkpoint_config(weights[CHECKPOINT])
        config, words = found.univla, found.words
        self._check(config)
        text = make_text_encoder(config.text, words, weights.get("text"))
        network = make_univla(config, make_encoder(config, weights.get("encoder")), 0, text)
        load_checkpoint(network, weights[CHECKPOINT], words)
        self._place(network, found.dt or 1, device, dtype)

    def _check(self, config: UnivlaConfig) -> None:
        planned = self.card.preprocessing_of(self.variant)
        if preprocessing_id(config) != planned:
            raise WeightsError(
                f"model {self.card.key}: its config says preprocessing {preprocessing_id(config)}, its card {planned}; "
                "one of the two was changed"
            )

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the shapes of the family's example."""
        from lary_parts.encoders import make_encoder

        from lary_latentvla.univla_network import make_univla

        self._place(make_univla(TINY, make_encoder(TINY, None), 0), 1, device, dtype)

    def _place(self, network: UnivlaLam, dt: int, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.dt = network.to(device, dtype).eval(), 1 if self.mode == "image" else dt

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """uint8 (B, T, S, S, 3): a latent for each pair of frames `dt` apart, of an image pair for its two."""
        network, dt = self.network, self.dt
        frames = network.pixels(batch)
        flat = network.features(frames.flatten(0, 1))
        features = flat.reshape(*frames.shape[:2], *flat.shape[1:])  # (B, T, N, F)
        found = network.find(features[:, :-dt].flatten(0, 1), features[:, dt:].flatten(0, 1))
        other = self.variant == UNCONTROLLED
        codes = found.uncontrolled if other and found.uncontrolled is not None else found.controllable
        by_row = (len(batch), batch.shape[1] - dt)
        tokens = self._read_out(codes)
        return Latents(tokens.reshape(*by_row, *tokens.shape[1:]), codes.indices.reshape(*by_row, -1))

    def _read_out(self, codes: Codes) -> torch.Tensor:
        from torch.nn import functional

        if self.variant == "onehot":
            return functional.one_hot(codes.indices, self.network.config.codes).to(codes.codes.dtype)
        return codes.embeddings if self.variant == "embed" else codes.codes
