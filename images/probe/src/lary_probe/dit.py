"""The diffusion head: a transformer over the chunk's action tokens that predicts their noise.

Source: LARYBench's DiT.
"""

import math

import torch
from torch import Tensor, nn

from lary_probe.attentive import SelfAttention

FREQUENCIES = 128
MAX_PERIOD = 10_000
INIT_STD = 0.02
EPS = 1e-6


class Dit(nn.Module):
    """Noisy actions (B, S, A), time steps (B,) and tokens (B, ...) of `inputs` values per row -> noise (B, S, A)."""

    def __init__(self, inputs: int, steps: int, dim: int, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.action = nn.Linear(dim, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.tokens = nn.Linear(inputs, width)
        self.nothing = nn.Parameter(torch.empty(inputs))
        """Stands in for the tokens of rows whose condition is dropped."""
        self.position = nn.Parameter(torch.empty(1 + steps, width))
        self.blocks = nn.Sequential(*(DitBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=EPS)
        self.leave = nn.Linear(width, dim)
        self._init(width)

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor, dropped: Tensor) -> Tensor:
        """As in training: rows where `dropped` (B,) bool is true are given nothing of their tokens."""
        flat = torch.where(dropped[:, None], self.nothing, tokens.flatten(1))
        return self.denoise(noisy, t, self.tokens(flat))

    def condition(self, tokens: Tensor) -> Tensor:
        """(B, W), the same in every denoising step."""
        out: Tensor = self.tokens(tokens.flatten(1))
        return out

    def denoise(self, noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """`t` is (B,), or (1,) where all rows are at the same step."""
        conditioned = self.time(sinusoids(t)) + condition
        x = torch.cat([conditioned[:, None], self.action(noisy)], dim=1) + self.position  # (B, 1 + S, W)
        out: Tensor = self.leave(self.norm(self.blocks(x)[:, 1:]))
        return out

    def _init(self, width: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (self.action, self.tokens, *self.time):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.normal_(self.nothing, std=INIT_STD)
        nn.init.normal_(self.position, std=width**-0.5)
        nn.init.zeros_(self.leave.weight)


class DitBlock(nn.Module):
    """Pre-norm transformer block on (B, S, W), its norms without weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=EPS)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def sinusoids(t: Tensor) -> Tensor:
    """(B,) time steps -> (B, 256): cosines, then sines, of periods from 2 pi to MAX_PERIOD * 2 pi."""
    exponents = torch.arange(FREQUENCIES, dtype=torch.float32, device=t.device) / FREQUENCIES
    angles = t[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
