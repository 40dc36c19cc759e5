"""Released tokenizers, of Moto and of LARA's first stage: their files as they are, the frozen encoder from its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lary_parts.pairs import preprocessing_id
from lary_schema.base import ContractError
from lary_schema.cards import ModelCard
from lary_worker import Weights

from lary_lara.extract import Moto
from lary_lara.facts import MotoConfig

if TYPE_CHECKING:
    import torch

CONFIG = MotoConfig(size=224, patch=16, width=768, heads=12, encoder_layers=4, decoder_layers=12, encoder="mae-l")
"""Moto (TencentARC/Moto 4471f76) and LARA (lmy1001/LARA bd0701a) have the same sizes."""
TINY = CONFIG.model_copy(
    update={"encoder": "pixel", "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "initial": "fan-in"}
)
"""Of self tests: the shapes of the cards."""
TOKENIZER, ENCODER = "tokenizer", "encoder"
"""Names of the weights."""


def released_config(card: ModelCard) -> MotoConfig:
    """The release's sizes, in the pixel convention that the card declares. Raises ContractError for none of the two.

    LARA fed its first stage pixels in [0, 1] without ImageNet's mean and deviation, its encoder among them: a recipe
    may not ask for that, a file that was trained so has to be read so.
    """
    both = [CONFIG.model_copy(update={"pixel_convention": convention}) for convention in ("imagenet", "unit")]
    found = [config for config in both if preprocessing_id(config) == card.preprocessing]
    if not found:
        known = " or ".join(map(preprocessing_id, both))
        raise ContractError(f"model {card.key}: its card says preprocessing {card.preprocessing}, not {known}")
    return found[0]


class Released(Moto):
    """A released file below the weights mount, loaded strictly."""

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """Its facts stand in `image.yaml`."""
        return card

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_parts.encoders import make_encoder
        from lary_worker.checkpoints import read_state

        from lary_lara.checkpoint import load_state

        config = released_config(self.card)
        network = self._make(config, make_encoder(config, weights[ENCODER]))
        load_state(network, read_state(weights[TOKENIZER]), weights[TOKENIZER])
        self.use(network, config.codes, 1, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the release's shapes."""
        from lary_parts.encoders import make_encoder

        config = TINY.model_copy(update={"pixel_convention": released_config(self.card).pixel_convention})
        self.use(self._make(config, make_encoder(config, None)), config.codes, 1, device, dtype)
