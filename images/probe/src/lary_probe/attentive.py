"""The attentive classifier: projector, self-attention, one learned query, linear read-out.

Source: LARYBench's FeatureEvaluator around the attentive pooler of V-JEPA 2
(facebookresearch/vjepa2, `src/models/attentive_pooler.py`; arXiv 2506.09985, appendix on probes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

TIME_STEPS = 128
"""Learned temporal embeddings; longer inputs get them resized."""
INIT_STD = 0.02


class AttentiveClassifier(nn.Module):
    """Frozen tokens (B, N, D) or (B, T, N, D), float -> logits (B, classes)."""

    def __init__(self, dim: int, classes: int, *, width: int, depth: int, heads: int, time_axis: bool) -> None:
        """`depth` counts attention blocks: depth - 1 of self-attention, then one cross-attention."""
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width), nn.GELU())
        self.time = nn.Parameter(torch.zeros(1, TIME_STEPS, 1, width)) if time_axis else None
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        blocks = [SelfAttentionBlock(width, heads) for _ in range(depth - 1)]
        self.blocks = nn.ModuleList(blocks)
        self.pool = CrossAttentionBlock(width, heads)
        self.linear = nn.Linear(width, classes)
        self._init(blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.projector(tokens)
        if self.time is not None:
            x = (x + _resized(self.time, x.shape[1])).flatten(1, 2)  # (B, T, N, W) -> (B, T * N, W)
        for block in self.blocks:
            x = block(x)
        pooled = self.pool(self.query.expand(len(x), -1, -1), x)  # (B, 1, W)
        logits: Tensor = self.linear(pooled.squeeze(1))
        return logits

    def _init(self, blocks: Sequence[SelfAttentionBlock]) -> None:
        # The read-out keeps torch's default start, as in LARYBench: uniform, its bias not zero.
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.linear:
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
        for parameter in (self.query, self.time):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=INIT_STD)
        with torch.no_grad():
            for layer, block in enumerate(blocks, start=1):
                block.attention.out.weight.div_(math.sqrt(2 * layer))
                block.mlp.down.weight.div_(math.sqrt(2 * layer))
            # The pooler shares the last self-attention block's number, as in V-JEPA 2.
            self.pool.mlp.down.weight.div_(math.sqrt(2 * max(1, len(blocks))))


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer block on (B, S, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossAttentionBlock(nn.Module):
    """Queries (B, Q, W) attend to tokens (B, S, W). Neither the query nor the heads' sum is projected
    or normalised on its way: the attention has no output projection (V-JEPA 2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        query = query + self.attention(query, self.norm1(x))
        out: Tensor = query + self.mlp(self.norm2(query))
        return out


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        attended: Tensor = self.out(_merge(functional.scaled_dot_product_attention(q, k, v)))
        return attended


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        k, v = (_split(part, self.heads) for part in self.kv(x).chunk(2, dim=-1))
        return _merge(functional.scaled_dot_product_attention(_split(self.q(query), self.heads), k, v))


class Mlp(nn.Module):
    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.up = nn.Linear(width, ratio * width)
        self.down = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(functional.gelu(self.up(x)))
        return out


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, S, W) -> (B, heads, S, W / heads)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    """(B, heads, S, W / heads) -> (B, S, W)."""
    return x.transpose(1, 2).flatten(2)


def _resized(embedding: Tensor, steps: int) -> Tensor:
    """(1, 128, 1, W) -> (1, steps, 1, W): the first ones, or all of them resized bilinearly."""
    if steps <= TIME_STEPS:
        return embedding[:, :steps]
    image = embedding.permute(0, 3, 1, 2)  # (1, W, 128, 1)
    return functional.interpolate(image, size=(steps, 1), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
