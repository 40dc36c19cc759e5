"""Pre-norm transformer layers under the tensor names of the released tokenizer (those of transformers 4's ViT)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-12
"""Of every layer norm."""
FEED_FORWARD = 4
"""Width of the feed-forward part, over the layer's."""


class _Projections(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)


class _Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)


class Attention(nn.Module):
    """Self-attention of all tokens to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = _Projections(width)
        self.output = _Dense(width, width)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W), or of the first tokens alone (B, first, W)."""
        parts = (self.attention.query(x[:, :first]), self.attention.key(x), self.attention.value(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        attended: Tensor = self.output.dense(mixed)
        return attended


class Layer(nn.Module):
    """Attention and feed-forward, each on normed tokens and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = _Dense(width, FEED_FORWARD * width)
        self.output = _Dense(FEED_FORWARD * width, width)
        self.layernorm_before = nn.LayerNorm(width, EPS)
        self.layernorm_after = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W), or of the first tokens alone (B, first, W)."""
        x = x[:, :first] + self.attention(self.layernorm_before(x), first)
        hidden = functional.gelu(self.intermediate.dense(self.layernorm_after(x)))
        result: Tensor = x + self.output.dense(hidden)
        return result


class Stack(nn.Module):
    """`layer.0`, `layer.1`, ..."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W), or of the first tokens alone (B, first, W): in the last layer the others are only
        attended to.
        """
        last = len(self.layer) - 1
        for number, layer in enumerate(self.layer):
            x = layer(x, first if number == last else None)
        return x if len(self.layer) else x[:, :first]


def sines(side: int, width: int, like: Tensor) -> Tensor:
    """(side * side, width): sines and cosines of a patch's row and column, amplitude 1, on `like`'s device."""
    quarter = width // 4
    rates = torch.exp(-torch.arange(quarter, device=like.device) / quarter * torch.tensor(100.0).log())
    angles = torch.arange(side, device=like.device)[:, None] * rates  # (side, quarter)
    axis = torch.cat((angles.sin(), angles.cos()), dim=-1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).to(like.dtype)
