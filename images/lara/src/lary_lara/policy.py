"""A small flow-matching policy: blocks alternate between what is seen and said, and the action tokens themselves.

After the action head of GR00T N1.5 as LARA uses it, without its state token and embodiments. B rows, S action tokens
of A numbers, C tokens of the condition, W width.
"""

from __future__ import annotations

import torch
from lary_parts.flow import time_code
from torch import Tensor, nn
from torch.nn import functional

EULER_STEPS = 4


class AdaptiveNorm(nn.Module):
    """A layer norm whose scale and shift follow from the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, S, W) and (B, W) -> (B, S, W)."""
        scale, shift = self.modulation(functional.silu(time))[:, None].chunk(2, dim=-1)
        normed: Tensor = functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        return normed


class Block(nn.Module):
    """Attention to `context` (B, C, W), or to the tokens themselves; then a feed-forward part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = AdaptiveNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None, seen: Tensor | None) -> Tensor:
        """`seen` (B, C): which tokens of the context there are."""
        normed = self.norm(x, time)
        source = normed if context is None else context
        parts = (self.query(normed), self.key(source), self.value(source))
        q, k, v = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        mask = None if seen is None or context is None else seen[:, None, None]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        result: Tensor = x + self.feed_forward(x)
        return result


class FlowPolicy(nn.Module):
    """Velocity of noisy actions, given the first frame's features and the words of the instruction."""

    def __init__(
        self, width: int, blocks: int, heads: int, action_shape: tuple[int, int], features: int, words: int
    ) -> None:
        super().__init__()
        steps, numbers = action_shape
        self.width = width
        self.action_input = nn.Linear(numbers, width)
        self.timed = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.positions = nn.Parameter(torch.zeros(1, steps, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.observation = nn.Linear(features, width)
        self.words = nn.Embedding(words + 1, width)  # the last: a word that training did not have
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.action_output = nn.Linear(width, numbers)

    def condition(self, features: Tensor, positions: Tensor | None, words: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, N, F), their positions (N, W), word numbers (B, L), -1 where there is none -> context, seen."""
        patches = self.observation(features)
        if positions is not None:
            patches = patches + positions
        context = torch.cat((patches, self.words(words.clamp_min(0))), dim=1)
        seen = torch.cat((words.new_ones(patches.shape[:2]), words >= 0), dim=1).bool()
        return context, seen

    def forward(self, noisy: Tensor, times: Tensor, context: Tensor, seen: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, S, A) at times (B,) -> velocity (B, S, A), and the hidden states: the input, every block's output."""
        code = time_code(times, self.width).to(noisy.dtype)
        tokens = self.action_input(noisy)
        x = self.timed(torch.cat((tokens, code[:, None].expand_as(tokens)), dim=-1)) + self.positions
        time, hidden = self.time(code), [x]
        for number, block in enumerate(self.blocks):
            x = block(x, time, None if number % 2 else context, seen)
            hidden.append(x)
        velocity: Tensor = self.action_output(self.norm(x))
        return velocity, hidden

    def sample(self, noise: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        """Noise (B, S, A) -> actions, by Euler steps of equal length."""
        x = noise
        for step in range(EULER_STEPS):
            times = x.new_full((len(x),), step / EULER_STEPS)
            x = x + self(x, times, context, seen)[0] / EULER_STEPS
        return x
