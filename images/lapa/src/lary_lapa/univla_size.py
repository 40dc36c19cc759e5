"""How large UniVLA's encoder is. Free of torch, which decode processes do without."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VitSize:
    """The DINOv2 backbone (ViT-B/14 with registers)."""

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4


@dataclass(frozen=True, slots=True)
class LamSize:
    """The encoder above it, and its codebook."""

    model_dim: int = 768
    latent_dim: int = 128
    num_latents: int = 16
    """Rows of the codebook."""
    patch_size: int = 14
    enc_blocks: int = 12
    num_heads: int = 12


@dataclass(frozen=True, slots=True)
class UnivlaSize:
    """Sizes of `lam-stage-2.ckpt`; names as in the original code."""

    vit: VitSize = VitSize()
    lam: LamSize = LamSize()
