"""Spatio-temporal transformer layers under the tensor names of the released latent action model.

B rows, T frames, S slots of a frame (learned tokens, patches, text), W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FEED_FORWARD = 4
"""Width of the feed-forward part, over the layer's."""


class Attention(nn.Module):
    """Multi-head attention; only the output projection has a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, length, W) -> the same; `mask`: who attends to whom, as (batch, heads, length, length)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        result: Tensor = self.to_out(mixed)
        return result


def _feed_forward(width: int) -> nn.Sequential:
    # Slot 2 was the dropout.
    return nn.Sequential(
        nn.Linear(width, FEED_FORWARD * width), nn.GELU(), nn.Identity(), nn.Linear(FEED_FORWARD * width, width)
    )


class SpatioTemporalBlock(nn.Module):
    """Attention within a frame, causal attention along time, feed-forward: all pre-norm and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.spatial_attn, self.temporal_attn = Attention(width, heads), Attention(width, heads)
        self.ffn = _feed_forward(width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(B, T, S, W) and which slots there are, (B, S) or None -> (B, T, S, W)."""
        rows, frames, slots = x.shape[:3]
        mask = None if seen is None else seen.repeat_interleave(frames, 0)[:, None, None]
        x = x + self.spatial_attn(self.norm1(x).flatten(0, 1), mask).unflatten(0, (rows, frames))
        along_time = self.norm2(x).transpose(1, 2).flatten(0, 1)  # (B * S, T, W)
        causal = torch.ones(frames, frames, dtype=torch.bool, device=x.device).tril()
        x = x + self.temporal_attn(along_time, causal).unflatten(0, (rows, slots)).transpose(1, 2)
        result: Tensor = x + self.ffn(self.norm3(x))
        return result


class SpatialBlock(nn.Module):
    """Attention within a frame, then feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.spatial_attn = Attention(width, heads)
        self.ffn = _feed_forward(width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(B, S, W) and (B, S) or None -> (B, S, W)."""
        x = x + self.spatial_attn(self.norm1(x), None if seen is None else seen[:, None, None])
        result: Tensor = x + self.ffn(self.norm2(x))
        return result


def entrance(features: int, width: int) -> nn.Sequential:
    """How slots come into a transformer."""
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.LayerNorm(width))


def positions(like: Tensor) -> Tensor:
    """(S, W) for (..., S, W): sine and cosine of position * 10000**(-2 i / W), interleaved."""
    length, width = like.shape[-2:]
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=like.device) / width)
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(like.dtype)
