"""What villa-X's `model_config.json` says of the encoder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lary_schema.base import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """The entries that the encoder and its codebook depend on.

    The defaults are those of the original code for entries that a file leaves out; a released file
    may say otherwise in any of them.
    """

    resolution: int = 224
    patch_size: int = 14
    in_channels: int = 3
    d_t: int = 8
    """Frames of one window."""
    mlp_ratio: float = 4.0
    encoder_depth: int = 12
    encoder_embed_dim: int = 768
    encoder_n_heads: int = 8
    st_use_qk_norm: bool = True
    num_learned_tokens: int = 4
    map_heads: int = 24
    action_latent_dim: int = 128
    n_codes: int = 32

    @property
    def patches(self) -> int:
        return (self.resolution // self.patch_size) ** 2

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: Path) -> Config:
        """From the file's content: `{"architecture": "IgorModel", "config": {...}}`.

        Raises WeightsError for another architecture, or an entry of another type.
        """
        if document.get("architecture") != "IgorModel" or not isinstance(document.get("config"), dict):
            raise WeightsError(f"{where}: architecture is not IgorModel; this is not a villa-X latent action model")
        given = {f.name: document["config"][f.name] for f in fields(cls) if f.name in document["config"]}
        wrong = [name for name, value in given.items() if not isinstance(value, (int, float))]
        if wrong:
            raise WeightsError(f"{where}: {', '.join(wrong)} not a number")
        return cls(**given)
