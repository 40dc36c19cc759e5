"""The vision transformers whose patch features feed the LAQ models and the `*-origin` keys (transformers)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import transformers
from lary_worker.checkpoints import load_pretrained
from torch import Tensor, nn

from lary_lapa.facts import VitKind


class PatchFeatures(nn.Module):
    """Patch tokens of a transformer's last layer, after its final norm."""

    def __init__(self, kind: VitKind, backbone: nn.Module) -> None:
        super().__init__()
        self.kind = kind
        self.backbone = backbone

    def forward(self, frames: Tensor) -> Tensor:
        """(b, 3, H, W) in [0, 1] -> (b, h, w, d)."""
        pixels = frames * 2 - 1 if self.kind.symmetric else frames
        tokens: Tensor = self.backbone(pixel_values=pixels).last_hidden_state[:, self.kind.special_tokens :]
        b, n, d = tokens.shape
        return tokens.reshape(b, math.isqrt(n), math.isqrt(n), d)


def load_vit(kind: VitKind, folder: Path | None, device: torch.device, dtype: torch.dtype) -> PatchFeatures:
    """The transformer of a hub folder, or with random weights and official sizes where `folder` is None."""
    network: Any = getattr(transformers, kind.network)
    if folder is None:
        config = getattr(transformers, kind.config)(**kind.official)
        backbone = network(config)
    else:
        backbone = load_pretrained(
            network, folder, model_type=kind.model_type, skippable=kind.skippable, dtype=dtype, **kind.options
        )
    return PatchFeatures(kind, backbone).to(device, dtype).eval()
