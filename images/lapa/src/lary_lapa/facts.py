"""What the networks are: kinds and sizes. Free of torch, which decode processes do without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Conv:
    """One convolution: kernel (height, width), stride, zero padding."""

    kernel: tuple[int, int]
    stride: int = 2
    padding: int = 1


CODE_CONVOLUTIONS = {
    1: (Conv((3, 3)), Conv((4, 4), 1, 0)),
    2: (Conv((3, 3)), Conv((3, 4), 1, 0)),
    4: (Conv((3, 3)), Conv((3, 3), 1, 0)),
    16: (Conv((3, 3)), Conv((3, 3))),
    49: (Conv((3, 3)),),
    64: (Conv((2, 2)),),
    256: (Conv((3, 3)),),
}
"""From patches to code positions, by `code_seq_len`. LARYBench's: LAPA has a kernel of 3 at 64."""


def code_count(code_seq_len: int, side: int) -> int:
    """Codes per pair of frames with side x side patches."""
    h = w = side
    for conv in CODE_CONVOLUTIONS[code_seq_len]:
        h, w = ((n + 2 * conv.padding - k) // conv.stride + 1 for n, k in zip((h, w), conv.kernel, strict=True))
    return h * w


@dataclass(frozen=True)
class LaqConfig:
    """The latent action quantiser (LAPA's code: LatentActionQuantization)."""

    dim: int = 1024
    """Width of the frame features and of the tokens."""
    heads: int = 16
    dim_head: int = 64
    spatial_depth: int = 4
    temporal_depth: int = 4
    codebook_size: int = 8
    quant_dim: int = 32
    code_seq_len: int = 16
    """Names one of the convolution stacks before the codebook (`CODE_CONVOLUTIONS`); not always the number of codes."""
    ff_mult: float = 4

    @property
    def inner(self) -> int:
        """Width of the gated feed-forward layer."""
        return int(self.ff_mult * (2 / 3) * self.dim)

    def tiny(self) -> LaqConfig:
        """The same outside, with next to nothing inside."""
        return replace(self, heads=2, dim_head=8, spatial_depth=1, temporal_depth=1, ff_mult=0.1)


@dataclass(frozen=True)
class MagvitConfig:
    """The Open-MAGVIT2 image encoder (its yaml: `ddconfig`)."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level, times `ch`; each level but the last halves the image."""
    num_res_blocks: int = 4
    """Per level, and in the middle."""
    z_channels: int = 18

    def tiny(self) -> MagvitConfig:
        """The same outside, with next to nothing inside. A group norm wants 32 channels."""
        return replace(self, ch=32, ch_mult=(1,) * len(self.ch_mult), num_res_blocks=1)


@dataclass(frozen=True)
class VitKind:
    """How one kind of transformer is loaded, fed and read."""

    network: str
    """Class in transformers."""
    config: str
    model_type: str
    """What `config.json` of the hub folder says."""
    special_tokens: int
    """Class and register tokens, ahead of the patches."""
    symmetric: bool
    """Pixels are scaled to [-1, 1]; otherwise they stay in [0, 1]. Both as LARYBench trains and extracts."""
    official: Mapping[str, Any]
    """Sizes of the official model, for random weights."""
    narrow_mlp: Mapping[str, Any] = field(default_factory=lambda: {"intermediate_size": 32})
    """What makes the MLP of such a config narrow."""
    skippable: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the folder's config."""
    old_names: Sequence[tuple[str, str]] = ()
    """From the names of transformers 4, which LAQ files keep, to those of 5."""

    def tiny(self) -> VitKind:
        """The same outside, with next to nothing inside: one layer with a narrow MLP."""
        return replace(self, official={**self.official, "num_hidden_layers": 1, **self.narrow_mlp})


DINOV2 = VitKind(
    network="Dinov2Model",
    config="Dinov2Config",
    model_type="dinov2",
    special_tokens=1,
    symmetric=True,
    official={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518},
    narrow_mlp={"mlp_ratio": 1},
    old_names=(
        (r"\.attention\.attention\.query\.", ".attention.q_proj."),
        (r"\.attention\.attention\.key\.", ".attention.k_proj."),
        (r"\.attention\.attention\.value\.", ".attention.v_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    ),
)
DINOV3 = VitKind(
    network="DINOv3ViTModel",
    config="DINOv3ViTConfig",
    model_type="dinov3_vit",
    special_tokens=5,
    symmetric=True,
    official={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_register_tokens": 4,
    },
    old_names=((r"^layer\.", "model.layer."),),
)
SIGLIP2 = VitKind(
    network="SiglipVisionModel",
    config="SiglipVisionConfig",
    model_type="siglip",
    special_tokens=0,
    symmetric=False,
    official={"vision_use_head": False},
    # The folder holds the whole model; the text tower and the pooling head give no patch feature.
    skippable=(r"text_model\.", r"logit_(scale|bias)$", r"(vision_model\.)?head\."),
    options={"vision_use_head": False},
)
