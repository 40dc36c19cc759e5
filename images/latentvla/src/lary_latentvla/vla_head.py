"""The action head: a learned query for each step, blocks that read the backbone's hidden states.

B rows, N steps, S placeholders, C positions of image and text, W width of the head, H of the backbone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reading(nn.Module):
    """Queries attend to keys of other states."""

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(source)
        self.key, self.value = nn.Linear(source, width), nn.Linear(source, width)

    def keys(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, source) -> keys and values (B, heads, S, W / heads)."""
        normed = self.norm(states)
        return self.split(self.key(normed)), self.split(self.value(normed))

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Queries read each other and the placeholders together; image and text through a gate that begins closed."""

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.own, self.slots, self.task = (Reading(width, size, heads) for size in (width, source, source))
        self.gate = nn.Parameter(torch.zeros(()))
        self.output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, slots: Tensor, states: Tensor, task: Tensor) -> Tensor:
        """(B, N, W), (B, S, H), all states (B, L, H), `task` bool (B, L): which of them are image or text."""
        query = self.own.split(self.query(self.norm(x)))
        pairs = zip(self.own.keys(x), self.slots.keys(slots), strict=True)
        keys, values = (torch.cat(pair, dim=2) for pair in pairs)
        seen = functional.scaled_dot_product_attention(query, keys, values)
        asked = functional.scaled_dot_product_attention(query, *self.task.keys(states), attn_mask=task[:, None, None])
        mixed = (seen + self.gate.tanh() * asked).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        result: Tensor = x + self.feed_forward(x)
        return result


class Pool(nn.Module):
    """The K placeholders of each step as one, by a learned query."""

    def __init__(self, source: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(source)
        self.query = nn.Parameter(torch.zeros(source))

    def forward(self, states: Tensor, steps: int) -> Tensor:
        """(B, N K, H) -> (B, N, H)."""
        by_step = states.reshape(len(states), steps, -1, states.shape[-1])
        weights = (self.norm(by_step) @ self.query / self.query.shape[0] ** 0.5).softmax(-1)
        pooled: Tensor = (weights[..., None] * by_step).sum(2)
        return pooled


class ActionHead(nn.Module):
    """N x A actions in [-1, 1] from hidden states of several layers."""

    def __init__(self, width: int, blocks: int, heads: int, source: int, chunk: int, dimensions: int) -> None:
        super().__init__()
        # Of deviation 1: queries that begin alike stay alike, and the chunk does not vary over time.
        self.queries = nn.Parameter(torch.randn(chunk, width))
        self.blocks = nn.ModuleList(Block(width, source, heads) for _ in range(blocks))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dimensions))

    def forward(self, slots: list[Tensor], states: list[Tensor], task: Tensor) -> Tensor:
        """For each block the states that it reads -> (B, N, A)."""
        x = self.queries.expand(len(task), -1, -1)
        for block, read, all_states in zip(self.blocks, slots, states, strict=True):
            x = block(x, read, all_states, task)
        actions: Tensor = self.output(x)
        return actions


def entries(blocks: int, count: int) -> list[int]:
    """Which of `count` hidden states (0: what goes into the first layer) each block reads: the last ones, and where
    there are fewer, some of them more than once."""
    last = count - 1
    if blocks <= last:
        return list(range(count - blocks, count))
    return [1 + block * last // blocks for block in range(blocks)]
