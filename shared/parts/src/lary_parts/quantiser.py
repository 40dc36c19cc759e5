"""Vector quantisation: one codebook for all queries, moved by its gradient or by running means."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lary_parts.settings import Quantiser

UNUSED_STEPS = 50
"""A code that nothing was assigned to for so many steps is dead.

Counted, since an average of decay .99 that begins at 1 sees no dead code for 280 steps.
"""
SMOOTHING = 1e-5


def quantiser_loss(config: Quantiser, embeddings: Tensor, codes: Tensor) -> Tensor:
    """Commitment, and of a codebook with gradient its own term; `beta` by the order. (B, Q, D) each -> scalar."""
    legacy = config.order == "legacy"
    commitment = (codes.detach() - embeddings).square().mean()
    if config.kind == "ema":
        return commitment if legacy else config.beta * commitment
    codebook = (codes - embeddings.detach()).square().mean()
    return commitment + config.beta * codebook if legacy else config.beta * commitment + codebook


@dataclass(frozen=True)
class Quantised:
    """Of B rows with Q queries."""

    codes: Tensor
    """(B, Q, D): the nearest vectors of the codebook."""
    indices: Tensor
    """(B, Q) int64: their rows."""


class VectorQuantiser(nn.Module):
    """A codebook `embedding.weight` (codes, D). `started` is 0 as long as the decoder reads embeddings themselves.

    Buffers of `ema`: `cluster_size` (codes,), `cluster_sum` (codes, D). `unused_steps` (codes,): since each was used.
    """

    started: Tensor
    unused_steps: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor

    def __init__(self, codes: int, width: int, config: Quantiser) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(codes, width)
        self.averaged = config.kind == "ema"
        self.embedding.weight.requires_grad_(not self.averaged)
        if self.averaged:
            self.register_buffer("cluster_size", torch.ones(codes))
            self.register_buffer("cluster_sum", torch.zeros(codes, width))
        if self.watches_use:
            self.register_buffer("unused_steps", torch.zeros(codes, dtype=torch.int64))
        if config.continuous_steps:
            self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    @property
    def watches_use(self) -> bool:
        return self.config.restart

    @property
    def quantises(self) -> bool:
        """Whether the decoder reads codes by now."""
        return not self.config.continuous_steps or bool(self.started)

    def draw(self, generator: np.random.Generator) -> None:
        """First codes: uniform in +-1/codes."""
        bound = 1 / self.embedding.num_embeddings
        drawn = generator.uniform(-bound, bound, tuple(self.embedding.weight.shape)).astype(np.float32)
        self._place(torch.arange(len(drawn)), torch.from_numpy(drawn))

    def forward(self, embeddings: Tensor) -> Quantised:
        """(B, Q, D) -> the nearest codes; the codebook gets gradients through `codes`."""
        table = self.embedding.weight
        flat = embeddings.detach().flatten(0, -2)
        distances = table.square().sum(-1) - 2 * flat @ table.detach().mT  # less the embeddings' own squares
        indices = distances.argmin(-1).reshape(embeddings.shape[:-1])
        return Quantised(table[indices], indices)

    # --- after a step, without gradient -----------------------------------------------------------

    @torch.no_grad()
    def update(self, embeddings: Tensor, indices: Tensor, step: int, generator: np.random.Generator) -> None:
        """Start from data, follow the means, restart dead codes; (B, Q, D) and (B, Q) of the whole batch."""
        flat, assigned = embeddings.flatten(0, -2).float(), indices.flatten()
        if not self.quantises:
            if step + 1 >= self.config.continuous_steps:
                self._start(flat, generator)
            return
        counts = torch.bincount(assigned, minlength=self.embedding.num_embeddings)
        if self.averaged:
            self._follow(flat, assigned, counts)
        if self.watches_use:
            self.unused_steps.add_(1)
            self.unused_steps[counts > 0] = 0
            self._restart(flat, generator)

    def _start(self, flat: Tensor, generator: np.random.Generator) -> None:
        self.started.fill_(1)
        if self.config.start == "data":
            codes = torch.arange(self.embedding.num_embeddings)
            self._place(codes, _choose(flat, len(codes), generator))

    def _follow(self, flat: Tensor, assigned: Tensor, counts: Tensor) -> None:
        decay = self.config.decay
        sums = torch.zeros_like(self.cluster_sum).index_add_(0, assigned, flat)
        self.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
        self.cluster_sum.mul_(decay).add_(sums, alpha=1 - decay)
        self.embedding.weight.copy_(self.cluster_sum / self.cluster_size.clamp_min(SMOOTHING)[:, None])

    def _restart(self, flat: Tensor, generator: np.random.Generator) -> None:
        dead = (self.unused_steps >= UNUSED_STEPS).nonzero().flatten()
        if len(dead):
            self._place(dead, _choose(flat, len(dead), generator))

    @torch.no_grad()
    def _place(self, codes: Tensor, vectors: Tensor) -> None:
        codes = codes.to(self.embedding.weight.device)
        vectors = vectors.to(self.embedding.weight)
        self.embedding.weight[codes] = vectors
        if self.averaged:
            self.cluster_size[codes] = 1.0
            self.cluster_sum[codes] = vectors
        if self.watches_use:
            self.unused_steps[codes] = 0


def _choose(flat: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """`count` of the rows of (N, D), none twice where there are enough."""
    chosen = generator.choice(len(flat), count, replace=count > len(flat))
    return flat[torch.from_numpy(chosen).to(flat.device)]
