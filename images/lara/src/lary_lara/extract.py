"""The tokenizer as a model: one latent of Q tokens for each pair of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.pair_model import PairModel
from lary_worker import Weights

from lary_lara.facts import MotoConfig

if TYPE_CHECKING:
    import torch
    from lary_parts.pair_network import Latent

    from lary_lara.network import Tokenizer

TINY = MotoConfig(
    size=32, patch=8, width=16, heads=2, encoder_layers=1, decoder_layers=1, encoder="pixel", initial="fan-in"
)
"""Of self tests: the shapes of the family's example."""


class Moto(PairModel):
    """A checkpoint of `moto` or `lara`."""

    network: Tokenizer

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        folder = self.checkpoint(weights)
        from lary_parts.encoders import make_encoder

        from lary_lara.checkpoint import load_tokenizer, read_checkpoint_config

        found = read_checkpoint_config(folder)
        self.check_preprocessing(found.tokenizer)
        network = self._make(found.tokenizer, make_encoder(found.tokenizer, weights.get("encoder")))
        load_tokenizer(network, folder)
        self.use(network, found.tokenizer.codes, found.dt, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the shapes of the family's example."""
        from lary_parts.encoders import make_encoder

        self.use(self._make(TINY, make_encoder(TINY, None)), TINY.codes, 1, device, dtype)

    def _make(self, config: MotoConfig, encoder: Any) -> Tokenizer:
        from lary_lara.network import make_tokenizer

        return make_tokenizer(config, encoder, 0)

    def latent(self, first: torch.Tensor, second: torch.Tensor) -> Latent:
        return self.network.latent(first, second)
