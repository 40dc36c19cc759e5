"""What networks that read pairs of frames have in common: a frozen encoder, pixels, and the latent of a pair."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from lary_worker.preprocessing import imagenet_normalised, unit_range
from torch import Tensor, nn

from lary_parts.encoders import FrameEncoder
from lary_parts.quantiser import VectorQuantiser
from lary_parts.settings import EncoderSettings


@dataclass(frozen=True)
class Latent:
    """Of B pairs with Q codes of width D."""

    embeddings: Tensor
    """(B, Q, D): before the quantiser."""
    codes: Tensor
    """(B, Q, D): the codebook's nearest vectors."""
    indices: Tensor
    """(B, Q) int64."""


class PairNetwork(nn.Module):
    """`image_encoder` is frozen and never in a file of ours."""

    image_encoder: FrameEncoder
    frozen: ClassVar[tuple[str, ...]] = ("image_encoder.",)
    """Prefixes of tensors that no checkpoint of ours holds."""

    @property
    def settings(self) -> EncoderSettings:
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Of what trains; pixels are brought to it."""
        raise NotImplementedError

    def pixels(self, frames: Tensor) -> Tensor:
        """uint8 (..., S, S, 3) -> (..., 3, S, S) in the pixel convention of the config."""
        scale = imagenet_normalised if self.settings.pixel_convention == "imagenet" else unit_range
        return scale(frames).movedim(-1, -3).to(self.dtype)

    def features(self, frames: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, N, F), without gradient."""
        with torch.no_grad():
            result: Tensor = self.image_encoder(frames)
        return result

    def kept_state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but what is frozen and downloaded."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith(self.frozen)}


def carried(quantiser: VectorQuantiser, latent: Latent) -> Tensor:
    """(B, Q, D): what the decoder reads, with the gradient of its codes passed straight to the embeddings."""
    if not quantiser.quantises:
        return latent.embeddings
    return latent.embeddings + (latent.codes - latent.embeddings).detach()
