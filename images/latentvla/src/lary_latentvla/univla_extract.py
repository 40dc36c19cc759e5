"""The two-stage model as a model: one latent of K tokens for each pair of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lary_parts.pair_model import PairModel
from lary_worker import Weights

from lary_latentvla.univla_facts import UNCONTROLLED, UnivlaConfig

if TYPE_CHECKING:
    import torch

    from lary_latentvla.univla_network import Codes, UnivlaLam

TINY = UnivlaConfig(
    stage=2, size=32, patch=8, width=16, heads=2, encoder_layers=1, decoder_layers=1, code_width=32, encoder="pixel"
)
"""Of self tests: the shapes of the family's example."""


class Univla(PairModel):
    """Variants: `embed`, `codebook`, `onehot` of the controllable codes; `uncontrolled`, vectors of the other ones.

    No text is read: of a stage 1 whose encoder reads instructions, the latents are those that it has without one.
    """

    network: UnivlaLam

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        folder = self.checkpoint(weights)
        from lary_parts.encoders import make_encoder

        from lary_latentvla.text import make_text_encoder
        from lary_latentvla.univla_checkpoint import load_checkpoint, read_checkpoint_config
        from lary_latentvla.univla_network import make_univla

        found = read_checkpoint_config(folder)
        config, words = found.univla, found.words
        self.check_preprocessing(config)
        text = make_text_encoder(config.text, words, weights.get("text"))
        network = make_univla(config, make_encoder(config, weights.get("encoder")), 0, text)
        load_checkpoint(network, folder, words)
        self.use(network, config.codes, found.dt, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the shapes of the family's example."""
        from lary_parts.encoders import make_encoder

        from lary_latentvla.univla_network import make_univla

        self.use(make_univla(TINY, make_encoder(TINY, None), 0), TINY.codes, 1, device, dtype)

    def latent(self, first: torch.Tensor, second: torch.Tensor) -> Codes:
        found = self.network.find(first, second)
        other = found.uncontrolled if self.variant == UNCONTROLLED else None
        return found.controllable if other is None else other
