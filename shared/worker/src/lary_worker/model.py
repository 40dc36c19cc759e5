"""What a model has to be. This is all a new model implements; the loop around it is not its business.

A model is a class registered under the entry-point group `lary.models` by its card's key. Its card
stands in `image.yaml` next to the code. The loop makes one instance in the main process, calls
`load` once and `encode` per batch; the decode processes make their own instance and call only
`preprocess`, so a module that imports torch inside `load` and `encode` keeps them light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lary_schema.cards import Mode, ModelCard
    from numpy.typing import NDArray

Weights = Mapping[str, Path]
"""Files or folders by the names of the card's `weights`, verified before the model sees them."""


@dataclass(frozen=True, slots=True)
class Latents:
    """What `encode` returns for a batch of B rows."""

    tokens: torch.Tensor
    """(B, T, N, D) floating point, on any device."""
    indices: torch.Tensor | None = None
    """(B, T, L) integer codes of quantised models."""


class Model(ABC):
    """Base of every latent action model.

    Attributes: `card`, resolved for the requested key; `mode` and `variant` of this job.
    """

    def __init__(self, card: ModelCard, mode: Mode, variant: str) -> None:
        self.card = card
        self.mode = mode
        self.variant = variant
        self.spec = card.spec(mode, variant)

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The facts of one key of a family (`card.pattern`); a plain card is returned as it is."""
        return card

    @abstractmethod
    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """One row's frames, uint8 (T, H, W, 3) RGB at native size -> the array `spec.input` declares.

        T is the dataset's sampled frames in video mode and 2 (source, target) in image mode. In mode `actions` it is
        given the row's chunk of physical actions instead, float64 (stride, dim). Runs in the decode processes. Must
        depend on nothing but what it is given.
        """

    @abstractmethod
    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """Build the network on `device`. Called once, before the first `encode`; not in decode processes.

        `dtype` is float32 or bfloat16 (`--precision bf16`). Loading is strict: missing and unexpected
        keys raise `lary_schema.base.WeightsError` with their names. `seed` is the job's.
        """

    @abstractmethod
    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """A batch (B, *spec.input.shape) on the device -> its latents, under inference mode.

        `rows` (B,) are the rows' numbers in the metadata CSV, for read-outs with noise that must not
        depend on batch or partition. A row's latent must not depend on the other rows of its batch.
        """

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """Build the network with random weights, for `selftest`. Default: `load` without files."""
        self.load({}, device, dtype, seed)
