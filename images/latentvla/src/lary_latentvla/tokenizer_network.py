"""The action tokenizer as a network: a chunk of T steps -> T codes, and back.

B chunks of T steps with A dimensions, in [-1, 1]; W width, K codes. Names of tensors are those of the release
(`tokenizer_step_N.pt`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lary_parts.quantiser import SMOOTHING, Codebook
from torch import Tensor, nn

from lary_latentvla.tokenizer_facts import TokenizerConfig

DILATIONS = (1, 2, 4)
WATCHED_AFTER = 50
"""Steps after which the fewest codes of a batch are of interest."""


class Encoder(nn.Module):
    """The chunk and its Fourier transform over time, three dilated convolutions, two blocks of attention."""

    def __init__(self, config: TokenizerConfig, dimensions: int) -> None:
        super().__init__()
        width = config.width
        self.in_proj = nn.Linear(3 * dimensions, width)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        layer = nn.TransformerEncoderLayer(
            width, config.heads, config.feed_forward, config.dropout, batch_first=True, norm_first=False
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def forward(self, actions: Tensor) -> Tensor:
        """(B, T, A) -> (B, T, W)."""
        spectrum = torch.fft.fft(actions.float(), dim=1)
        x = self.in_proj(torch.cat((actions, spectrum.real, spectrum.imag), dim=-1)).mT
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = convolution(x).relu()
        embeddings: Tensor = self.transformer(x.mT)
        return embeddings


class Decoder(nn.Module):
    """Each step by itself."""

    def __init__(self, config: TokenizerConfig, dimensions: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.width, 2 * config.width), nn.ReLU(), nn.Linear(2 * config.width, dimensions)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, A)."""
        actions: Tensor = self.net(codes)
        return actions


class RunningCodebook(Codebook):
    """K codes that follow the running means of what is assigned to them.

    Persistent, so that they lie in states: `started`, `steps_on`, `unused_steps` (K,), `fewest` of the batches' codes.
    """

    embedding: Tensor
    ema_w: Tensor
    steps_on: Tensor
    fewest: Tensor
    averaged = watches_use = True

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.dead_after = config, config.unused_steps
        self.register_buffer("embedding", torch.zeros(config.codes, config.width))
        self.register_buffer("cluster_size", torch.zeros(config.codes))
        self.register_buffer("ema_w", torch.zeros(config.codes, config.width))
        self.register_buffer("started", torch.tensor(int(not config.continuous_steps)))
        self.register_buffer("steps_on", torch.zeros((), dtype=torch.int64))
        self.register_buffer("unused_steps", torch.zeros(config.codes, dtype=torch.int64))
        self.register_buffer("fewest", torch.tensor(config.codes))

    @property
    def settings(self) -> TokenizerConfig:
        return self.config

    @property
    def table(self) -> Tensor:
        return self.embedding

    @property
    def sums(self) -> Tensor:
        return self.ema_w

    @property
    def quantises(self) -> bool:
        """Whether the decoder reads codes by now: what was saved without counters has started."""
        return bool(self.started)

    def draw(self, generator: np.random.Generator) -> None:
        """First codes, and sums of their own: normal numbers, counts 0, as published."""
        for target in (self.embedding, self.ema_w):
            target.copy_(torch.from_numpy(generator.standard_normal(tuple(target.shape), dtype=np.float32)))

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, W) -> the nearest codes (B, T, W) and their numbers (B, T)."""
        indices = self.nearest(embeddings.float())
        return self.embedding[indices], indices

    def watch(self, counts: Tensor) -> None:
        self.steps_on.add_(1)
        if self.steps_on > WATCHED_AFTER:
            self.fewest.copy_(torch.minimum(self.fewest, (counts > 0).sum()))
        super().watch(counts)

    def smoothed_sizes(self) -> Tensor:
        total = self.cluster_size.sum()
        return (self.cluster_size + SMOOTHING) / (total + self.config.codes * SMOOTHING) * total


@dataclass(frozen=True)
class Coded:
    """Of B chunks."""

    embeddings: Tensor
    """(B, T, W) as the encoder gives them."""
    codes: Tensor
    """(B, T, W)."""
    indices: Tensor
    """(B, T) int64."""
    decoded: Tensor
    """(B, T, A)."""


class ActionTokenizer(nn.Module):
    """Encoder, codebook, decoder."""

    def __init__(self, config: TokenizerConfig, dimensions: int) -> None:
        super().__init__()
        self.config, self.dimensions = config, dimensions
        self.encoder = Encoder(config, dimensions)
        self.vq = RunningCodebook(config)
        self.decoder = Decoder(config, dimensions)

    def forward(self, actions: Tensor, masked: Tensor | None = None) -> Coded:
        """(B, T, A) in [-1, 1]; the embeddings of `masked` (B, T) steps are 0 for the decoder."""
        embeddings = self.encoder(actions)
        kept = embeddings if masked is None else embeddings.masked_fill(masked[..., None], 0.0)
        codes, indices = self.vq(kept)
        read = kept + (codes - kept).detach() if self.vq.quantises else kept
        return Coded(embeddings, codes, indices, self.decoder(read))

    def kept_state(self) -> dict[str, Tensor]:
        """What of the state is a checkpoint's: the tensors that the release has as well."""
        counters = {f"vq.{name}" for name in ("started", "steps_on", "unused_steps", "fewest")}
        return {name: tensor for name, tensor in self.state_dict().items() if name not in counters}
