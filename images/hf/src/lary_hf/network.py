"""transformers' networks, and how their tokens are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from lary_schema.base import WeightsError
from lary_worker.checkpoints import load_pretrained
from lary_worker.preprocessing import unit_range
from torch import Tensor, nn

from lary_hf.folders import SMALL, Backbone

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")


class Features(nn.Module):
    """Frames -> tokens of the last layer, those of patches alone."""

    def __init__(self, network: nn.Module, backbone: Backbone, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone
        self.dtype = dtype

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 RGB (B, T, H, W, 3) -> (B, steps, patches, width)."""
        pixels = self._pixels(frames).permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W)
        if self.backbone.kind.layout == "tubelets":
            return self._of_clips(pixels)
        tokens = self._of_images(pixels.flatten(0, 1).contiguous())
        return tokens.reshape(*frames.shape[:2], *tokens.shape[1:])

    def _pixels(self, frames: Tensor) -> Tensor:
        values = unit_range(frames)
        mean, std = (
            values.new_tensor(numbers) for numbers in (self.backbone.transform.mean, self.backbone.transform.std)
        )
        return ((values - mean) / std).to(self.dtype)

    def _of_images(self, pixels: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, patches, width)."""
        if self.backbone.model_type == "vit_mae":
            # Nothing is masked (`load`), and ascending noise keeps the patches in their order.
            count = self.backbone.grid[0] * self.backbone.grid[1]
            noise = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
            found: Tensor = self.network(pixel_values=pixels, noise=noise).last_hidden_state
        else:
            found = self.network(pixel_values=pixels).last_hidden_state
        if self.backbone.kind.layout == "map":
            return found.flatten(2).transpose(1, 2)
        return found[:, self.backbone.special :]

    def _of_clips(self, pixels: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, steps, patches, width)."""
        steps = self.backbone.steps(pixels.shape[1])
        found: Tensor = self.network(pixels[:, : steps * self.backbone.tubelet]).last_hidden_state
        return found.reshape(len(found), steps, -1, found.shape[-1])


def load(folder: Path, backbone: Backbone, frames: int, device: torch.device, dtype: torch.dtype) -> Features:
    """The network of a folder, strictly. Raises WeightsError for tensors that are missing or left over."""
    kind = backbone.kind
    there = [name for name in SAFETENSORS if (folder / name).is_file()]
    if not there:
        raise WeightsError(
            f"{folder}: has no {SAFETENSORS[0]}; other formats are not read (`lary-orch weights convert`)"
        )
    network: Any = load_pretrained(
        getattr(transformers, kind.network),
        folder,
        model_type=backbone.model_type,
        skippable=kind.skippable,
        weights=there[0],
        dtype=dtype,
        **kind.options,
        **_changes(backbone, frames),
    )
    read = network.encoder if backbone.model_type == "vjepa2" else network
    return Features(read, backbone, dtype).to(device, dtype).eval()


def _changes(backbone: Backbone, frames: int) -> dict[str, Any]:
    """Of the folder's config: what this job feeds it."""
    match backbone.model_type:
        case "vjepa2":
            # Rotary positions of the grid that the processor's crop makes.
            return {"crop_size": backbone.transform.size[0]}
        case "videomae":
            return {"num_frames": backbone.steps(frames) * backbone.tubelet}
        case "vit_mae":
            return {"mask_ratio": 0.0}
    return {}


def example(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> Features:
    """Random weights from torch's generator."""
    network = transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False)
    return Features(network, backbone, dtype).to(device, dtype).eval()
