"""The backbones alone, fed as they were trained: `dinov2-origin`, `dinov3-origin`, `siglip2-origin`.

LARYBench feeds them with the scales of its LAQ models (`models`, `facts.VitKind.symmetric`). Those models
were trained with these scales, the backbones were not: `corrected` has the backbones' own, and
`lary-v1` is LARYBench's extraction to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lary_worker.model import Latents
from lary_worker.preprocessing import imagenet_normalised, unit_range

from lary_lapa import models

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class _AsTrained(models._PatchFeatureModel):
    """Patch features of every frame, (T, h*w, d)."""

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        if self.variant == "lary-v1":
            return super().encode(batch, rows)
        # Contiguous: torch's convolution may pick another algorithm for a view.
        pixels = self._pixels(batch.flatten(0, 1)).permute(0, 3, 1, 2).contiguous()  # (B*T, 3, H, W)
        backbone = self.features.get_submodule("backbone")
        tokens = backbone(pixel_values=pixels.to(self.dtype)).last_hidden_state[:, self.kind.special_tokens :]
        return Latents(tokens.unflatten(0, batch.shape[:2]))

    def _pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (b, H, W, 3) -> float32, as DINOv2 and DINOv3 were trained: ImageNet's statistics."""
        return imagenet_normalised(frames)


class Dinov2Origin(_AsTrained, models.Dinov2Origin):
    """`dinov2-origin`"""


class Dinov3Origin(_AsTrained, models.Dinov3Origin):
    """`dinov3-origin`"""


class Siglip2Origin(_AsTrained, models.Siglip2Origin):
    """`siglip2-origin`"""

    def _pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (b, H, W, 3) -> float32 in [-1, 1], as SigLIP 2 was trained (mean and deviation 0.5)."""
        return unit_range(frames) * 2 - 1
