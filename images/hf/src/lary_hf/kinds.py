"""The networks of transformers that can be read, by `model_type` of `config.json`. Free of torch and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Layout = Literal["patches", "map", "tubelets"]
"""`patches`: tokens of an image, special ones first; `map`: channels by row, column; `tubelets`: tokens of a clip."""
HEADS = (r"classifier\.", r"pooler\.", r"fc_norm\.", r"logit_", r"head\.")
TEXT = (r"text_model\.", r"text_projection", r"visual_projection", r".*position_ids$")


@dataclass(frozen=True)
class Kind:
    """How one network is loaded and read."""

    network: str
    """Class in transformers."""
    layout: Layout = "patches"
    class_tokens: int = 0
    """Ahead of the register tokens, of which the config says how many there are."""
    any_size: bool = False
    """Whether it takes images of another size than its config's: positions are interpolated, or rotary."""
    skippable: tuple[str, ...] = ()
    """Tensors of a folder that are not read: heads, text towers, decoders (regular expressions)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class besides the config."""
    note: str = ""
    """What is to be known of its features."""


KINDS = {
    "vit": Kind("ViTModel", class_tokens=1, skippable=HEADS, options={"add_pooling_layer": False}),
    "dinov2": Kind("Dinov2Model", class_tokens=1, any_size=True, skippable=HEADS),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", class_tokens=1, any_size=True, skippable=HEADS),
    "dinov3_vit": Kind("DINOv3ViTModel", class_tokens=1, any_size=True, skippable=HEADS),
    "dinov3_convnext": Kind("DINOv3ConvNextModel", class_tokens=1, any_size=True, skippable=HEADS),
    "siglip": Kind("SiglipVisionModel", skippable=(*HEADS, *TEXT)),
    "siglip_vision_model": Kind("SiglipVisionModel", skippable=HEADS),
    "clip": Kind(
        "CLIPVisionModel", class_tokens=1, skippable=(*HEADS, *TEXT), note="before CLIP's last norm, as CLIP has them"
    ),
    "clip_vision_model": Kind(
        "CLIPVisionModel", class_tokens=1, skippable=(*HEADS, *TEXT), note="before CLIP's last norm, as CLIP has them"
    ),
    "vit_mae": Kind("ViTMAEModel", class_tokens=1, skippable=(*HEADS, r"decoder\.", r"mask_token"), note="unmasked"),
    "convnext": Kind("ConvNextModel", layout="map", any_size=True, skippable=HEADS, note="before the pooling"),
    "convnextv2": Kind("ConvNextV2Model", layout="map", any_size=True, skippable=HEADS, note="before the pooling"),
    "vjepa2": Kind("VJEPA2Model", layout="tubelets", any_size=True, skippable=(*HEADS, r"predictor\.")),
    "videomae": Kind(
        "VideoMAEModel",
        layout="tubelets",
        skippable=(*HEADS, r"decoder\.", r"encoder_to_decoder\.", r"mask_token"),
        note="positions of its first frames",
    ),
}
