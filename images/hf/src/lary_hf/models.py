"""The family `hf-NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_worker.model import Latents, Model, Weights

from lary_hf.folders import EXAMPLE, Backbone, folder_of, is_there, read_backbone, resolved
from lary_hf.kinds import KINDS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lary_schema.cards import Mode, ModelCard
    from numpy.typing import NDArray

EXAMPLE_BACKBONE = Backbone("vit", KINDS["vit"], EXAMPLE, (14, 14), 768, 1)


class HubModel(Model):
    """Patch features of a vision backbone's last layer; class and register tokens are dropped.

    An image model reads each frame alone. A video model gives a step per tubelet; frames that fill none are not seen.
    """

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The facts of the folder `key` below the weights. Raises WeightsError for a folder that cannot be read."""
        if key == card.example and not is_there(key):
            return resolved(card, key, EXAMPLE_BACKBONE)
        return resolved(card, key, read_backbone(folder_of(key)))

    def __init__(self, card: ModelCard, mode: Mode, variant: str) -> None:
        super().__init__(card, mode, variant)
        self.backbone = read_backbone(folder_of(card.key)) if is_there(card.key) else EXAMPLE_BACKBONE

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        return self.backbone.transform(frames)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_hf.network import load

        self.network = load(weights["model"], self.backbone, self.spec.input.shape[0], device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """One layer of a ViT-B/16: the shapes, which a self test looks at, are the same."""
        import torch

        from lary_hf.network import example

        torch.manual_seed(seed)
        self.network = example(self.backbone, device, dtype)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        return Latents(self.network(batch))
