"""Vector quantisation: one codebook for all queries, moved by its gradient or by running means."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lary_parts.settings import Quantiser

UNUSED_STEPS = 50
"""A code of `VectorQuantiser` that nothing was assigned to for so many steps is dead.

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


class CodebookSettings(Protocol):
    """How a codebook comes to its vectors."""

    @property
    def start(self) -> str:
        """`data`: the first codes are embeddings of the batch after which quantising begins."""
        ...

    @property
    def continuous_steps(self) -> int:
        """Steps before quantising begins."""
        ...

    @property
    def restart(self) -> bool:
        """Whether unused codes start again from embeddings of the batch."""
        ...

    @property
    def decay(self) -> float:
        """Of the running means."""
        ...


class Codebook(nn.Module):
    """K vectors of width D that are found by nearness, and what moves them between steps.

    Subclasses name the tensors: `table`, and where `averaged` `sums`; the counters that they have. `started` is 0 as
    long as the decoder reads embeddings themselves.
    """

    started: Tensor
    unused_steps: Tensor
    """(K,) int64: steps since each was used; of those that `watches_use`."""
    cluster_size: Tensor
    """(K,): running means of the numbers assigned; of those that are `averaged`."""
    averaged: bool
    watches_use: bool
    dead_after: int
    """Unused steps."""

    @property
    def settings(self) -> CodebookSettings:
        raise NotImplementedError

    @property
    def table(self) -> Tensor:
        """(K, D): the codes."""
        raise NotImplementedError

    @property
    def sums(self) -> Tensor:
        """(K, D): running means of the sums of what was assigned."""
        raise NotImplementedError

    @property
    def quantises(self) -> bool:
        """Whether the decoder reads codes by now."""
        return not self.settings.continuous_steps or bool(self.started)

    def nearest(self, embeddings: Tensor) -> Tensor:
        """(..., D) -> (...) int64: rows of the nearest codes. Without gradient."""
        table, flat = self.table.detach(), embeddings.detach().flatten(0, -2)
        distances = table.square().sum(-1) - 2 * flat @ table.mT  # less the embeddings' own squares
        return distances.argmin(-1).reshape(embeddings.shape[:-1])

    @torch.no_grad()
    def update(self, embeddings: Tensor, indices: Tensor, step: int, generator: np.random.Generator) -> None:
        """After a step: start from data, follow the means, restart dead codes; (..., D), (...) of the whole batch."""
        flat, assigned = embeddings.flatten(0, -2).float(), indices.flatten()
        if not self.quantises:
            if step + 1 >= self.settings.continuous_steps:
                self._start(flat, generator)
            return
        counts = torch.bincount(assigned, minlength=len(self.table))
        if self.averaged:
            self._follow(flat, assigned, counts)
        self.watch(counts)
        if self.settings.restart:
            self._restart(flat, generator)

    def watch(self, counts: Tensor) -> None:
        """Of a step: how often each code was used, (K,)."""
        if self.watches_use:
            self.unused_steps.add_(1)
            self.unused_steps[counts > 0] = 0

    def _start(self, flat: Tensor, generator: np.random.Generator) -> None:
        self.started.fill_(1)
        if self.settings.start == "data":
            codes = torch.arange(len(self.table))
            self.put(codes, _choose(flat, len(codes), generator))

    def _follow(self, flat: Tensor, assigned: Tensor, counts: Tensor) -> None:
        decay = self.settings.decay
        sums = torch.zeros_like(self.sums).index_add_(0, assigned, flat)
        self.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
        self.sums.mul_(decay).add_(sums, alpha=1 - decay)
        self.table.copy_(self.sums / self.smoothed_sizes()[:, None])

    def smoothed_sizes(self) -> Tensor:
        """(K,): what the sums are divided by."""
        return self.cluster_size.clamp_min(SMOOTHING)

    def _restart(self, flat: Tensor, generator: np.random.Generator) -> None:
        dead = (self.unused_steps >= self.dead_after).nonzero().flatten()
        if len(dead):
            self.put(dead, _choose(flat, len(dead), generator))

    @torch.no_grad()
    def put(self, codes: Tensor, vectors: Tensor) -> None:
        """New vectors (N, D) of the codes (N,), as if each had been assigned once."""
        codes, vectors = codes.to(self.table.device), vectors.to(self.table)
        self.table[codes] = vectors
        if self.averaged:
            self.cluster_size[codes] = 1.0
            self.sums[codes] = vectors
        if self.watches_use:
            self.unused_steps[codes] = 0


class VectorQuantiser(Codebook):
    """A codebook `embedding.weight` (codes, D): a parameter, or (`ema`) running means.

    Buffers of `ema`: `cluster_size` (codes,), `cluster_sum` (codes, D); `unused_steps` (codes,) where codes restart;
    `started` where there are continuous steps.
    """

    cluster_sum: Tensor
    dead_after = UNUSED_STEPS

    def __init__(self, codes: int, width: int, config: Quantiser) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(codes, width)
        self.averaged, self.watches_use = config.kind == "ema", config.restart
        self.embedding.weight.requires_grad_(not self.averaged)
        if self.averaged:
            self.register_buffer("cluster_size", torch.ones(codes))
            self.register_buffer("cluster_sum", torch.zeros(codes, width))
        if self.watches_use:
            self.register_buffer("unused_steps", torch.zeros(codes, dtype=torch.int64))
        if config.continuous_steps:
            self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    @property
    def settings(self) -> Quantiser:
        return self.config

    @property
    def table(self) -> Tensor:
        return self.embedding.weight

    @property
    def sums(self) -> Tensor:
        return self.cluster_sum

    def draw(self, generator: np.random.Generator) -> None:
        """First codes: uniform in +-1/codes."""
        bound = 1 / self.embedding.num_embeddings
        drawn = generator.uniform(-bound, bound, tuple(self.embedding.weight.shape)).astype(np.float32)
        self.put(torch.arange(len(drawn)), torch.from_numpy(drawn))

    def forward(self, embeddings: Tensor) -> Quantised:
        """(B, Q, D) -> the nearest codes; the codebook gets gradients through `codes`."""
        indices = self.nearest(embeddings)
        return Quantised(self.embedding.weight[indices], indices)


def _choose(flat: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """`count` of the rows of (N, D), none twice where there are enough."""
    chosen = generator.choice(len(flat), count, replace=count > len(flat))
    return flat[torch.from_numpy(chosen).to(flat.device)]
