"""Sizes of the V-JEPA 2 encoders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """One encoder; names as in the original code. The defaults are ViT-L/16 (`vitl.pt`)."""

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4
    patch_size: int = 16
    tubelet_size: int = 2


VITL = Config()
VITH = Config(embed_dim=1280, depth=32, num_heads=16)
VITG = Config(embed_dim=1408, depth=40, num_heads=22, mlp_ratio=48 / 11)
