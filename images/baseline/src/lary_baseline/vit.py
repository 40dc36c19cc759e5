"""A small vision transformer in plain torch (Dosovitskiy et al. 2021: pre-norm blocks, GELU, no class token)."""

import math

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Self-attention, then a perceptron, each on normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, width) -> the same shape."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)  # (b, heads, n, width / heads)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        result: torch.Tensor = x + self.perceptron(x)
        return result


class VisionTransformer(nn.Module):
    """Patches (b, n, values) -> tokens (b, n, width)."""

    def __init__(self, values: int, patches: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(values, width)
        self.position = nn.Parameter(torch.zeros(patches, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.norm(self.blocks(self.embed(patches) + self.position))
        return tokens


@torch.no_grad()
def random_transformer(
    seed: int, *, values: int, patches: int, width: int, depth: int, heads: int
) -> VisionTransformer:
    """An untrained network on the CPU, the same for a seed whatever was drawn before.

    Matrices are drawn from N(0, 1 / fan in), biases are zero.
    """
    network = VisionTransformer(values, patches, width, depth, heads)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[1]))
        elif name.endswith("bias"):
            parameter.zero_()
    return network.eval()
