"""The latent motion tokenizer: two frames' features -> a few codes -> the second frame from the first.

After Moto (Chen et al., 2025), whose tensor names it has on disk; LARA's tokenizer is the same. B rows, N tokens of
the frozen encoder, P patches of the decoder, Q queries, W width, D width of a code.
"""

from __future__ import annotations

import torch
from lary_parts.encoders import FrameEncoder, draw_weights
from lary_parts.layers import EPS, Stack, sines
from lary_parts.pair_network import Latent, PairNetwork, carried
from lary_parts.quantiser import VectorQuantiser
from lary_trainer.chance import stream
from torch import Tensor, nn

from lary_lara.facts import MotoConfig

RESIDUAL_START = 0.1
"""Factor of the last layer's first weights where the decoder gives what changes."""


class _FormerEmbeddings(nn.Module):
    def __init__(self, config: MotoConfig, tokens: int, features: int) -> None:
        super().__init__()
        width = config.width
        self.latent_motion_token = nn.Parameter(torch.zeros(1, config.queries, width))
        self.sep_token = nn.Parameter(torch.zeros(1, 1, width))
        self.projection = nn.Linear(features, width)
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.queries + 2 * tokens + 1, width))
        self.token_type_embeddings = nn.Parameter(torch.zeros(2, width))


class MFormer(nn.Module):
    """Queries that read two frames' features. Of the two token types the release uses the first for every token."""

    def __init__(self, config: MotoConfig, tokens: int, features: int, positions: bool) -> None:
        super().__init__()
        self.queries, self.side, self.positions = config.queries, config.side, positions
        self.embeddings = _FormerEmbeddings(config, tokens, features)
        self.encoder = Stack(config.width, config.heads, config.encoder_layers)
        self.layernorm = nn.LayerNorm(config.width, EPS)

    def forward(self, first: Tensor, target: Tensor) -> Tensor:
        """Features (B, N, F) of both frames -> (B, Q, W)."""
        parts = self.embeddings
        frames = [parts.projection(features) for features in (first, target)]
        if self.positions:
            frames = [frame + sines(self.side, frame.shape[-1], frame) for frame in frames]
        queries, separator = (t.expand(len(first), -1, -1) for t in (parts.latent_motion_token, parts.sep_token))
        x = torch.cat((queries, frames[0], separator, frames[1]), dim=1)
        x = x + parts.position_embeddings + parts.token_type_embeddings[0]
        result: Tensor = self.layernorm(self.encoder(x, self.queries))
        return result


class _Patches(nn.Module):
    def __init__(self, config: MotoConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.width, config.patch, config.patch)


class _DecoderEmbeddings(nn.Module):
    def __init__(self, config: MotoConfig) -> None:
        super().__init__()
        self.side, self.sines = config.side, config.encoder == "pixel"
        self.patch_embeddings = _Patches(config)
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.side**2, config.width))
        if config.fusion == "add":
            self.query_pooling_layer = nn.Linear(config.queries * config.width, config.width)
        else:
            self.code_positions = nn.Parameter(torch.zeros(1, config.queries, config.width))

    def freeze_code(self) -> None:
        """Freeze what only a code would train."""
        (self.query_pooling_layer if hasattr(self, "query_pooling_layer") else self.code_positions).requires_grad_(
            False
        )

    def forward(self, frame: Tensor, code: Tensor | None) -> Tensor:
        """(B, 3, S, S) and (B, Q, W) -> (B, P, W), or with code tokens in front (B, Q + P, W)."""
        patches = self.patch_embeddings.projection(frame).flatten(2).mT + self.position_embeddings
        if self.sines:
            patches = patches + sines(self.side, patches.shape[-1], patches)
        return self._joined(patches, code)

    def _joined(self, patches: Tensor, code: Tensor | None) -> Tensor:
        if code is None:
            return patches
        if hasattr(self, "query_pooling_layer"):
            added: Tensor = patches + self.query_pooling_layer(code.flatten(1))[:, None]
            return added
        joined: Tensor = torch.cat((code + self.code_positions, patches), dim=1)
        return joined


class _Transformer(nn.Module):
    def __init__(self, config: MotoConfig) -> None:
        super().__init__()
        self.embeddings = _DecoderEmbeddings(config)
        self.encoder = Stack(config.width, config.heads, config.decoder_layers)
        self.layernorm = nn.LayerNorm(config.width, EPS)


class Decoder(nn.Module):
    """The first frame's raw pixels and a code -> the second frame."""

    def __init__(self, config: MotoConfig) -> None:
        super().__init__()
        self.side, self.residual = config.side, config.residual
        self.transformer = _Transformer(config)
        self.decoder = nn.Sequential(nn.Conv2d(config.width, 3 * config.patch**2, 1), nn.PixelShuffle(config.patch))

    def forward(self, frame: Tensor, code: Tensor | None) -> Tensor:
        """(B, 3, S, S) and (B, Q, W), or no code -> (B, 3, S, S)."""
        x = self.transformer.encoder(self.transformer.embeddings(frame, code))
        x = self.transformer.layernorm(x[:, -(self.side**2) :])
        predicted: Tensor = self.decoder(x.mT.unflatten(2, (self.side, self.side)))
        return frame + predicted if self.residual else predicted


class Tokenizer(PairNetwork):
    """The whole of it."""

    def __init__(self, config: MotoConfig, encoder: FrameEncoder) -> None:
        super().__init__()
        self.config = config
        width, codes = config.width, config.code_width
        self.image_encoder = encoder
        self.m_former = MFormer(config, encoder.tokens, encoder.width, encoder.positions)
        self.vq_down_resampler = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, codes))
        self.vector_quantizer = VectorQuantiser(config.codes, codes, config.quantiser)
        self.vq_up_resampler = nn.Sequential(nn.Linear(codes, codes), nn.Tanh(), nn.Linear(codes, width))
        self.decoder = Decoder(config)

    @property
    def settings(self) -> MotoConfig:
        return self.config

    @property
    def dtype(self) -> torch.dtype:
        return self.m_former.embeddings.sep_token.dtype

    def embed(self, first: Tensor, target: Tensor) -> Tensor:
        """Features (B, N, F) of both frames -> (B, Q, D), before the quantiser."""
        second = target - first if self.config.target_input == "difference" else target
        embeddings: Tensor = self.vq_down_resampler(self.m_former(first, second))
        return embeddings

    def latent(self, first: Tensor, target: Tensor) -> Latent:
        """Features (B, N, F) of both frames -> what is read out of them."""
        embeddings = self.embed(first, target)
        found = self.vector_quantizer(embeddings)
        return Latent(embeddings, found.codes, found.indices)

    def decode(self, frame: Tensor, code: Tensor) -> Tensor:
        """(B, 3, S, S) and (B, Q, D) -> the predicted second frame (B, 3, S, S)."""
        known = None if self.config.latent == "none" else self.vq_up_resampler(code)
        result: Tensor = self.decoder(frame, known)
        return result

    def carried(self, latent: Latent) -> Tensor:
        """(B, Q, D): what the decoder reads, with the gradient of its codes passed straight to the embeddings."""
        return carried(self.vector_quantizer, latent)


def make_tokenizer(config: MotoConfig, encoder: FrameEncoder, seed: int) -> Tokenizer:
    """A network on the CPU, its first weights drawn from `seed`; without a latent, what makes one is frozen."""
    network = Tokenizer(config, encoder)
    for name, part in network.named_children():
        if part is not network.image_encoder and part is not network.vector_quantizer:
            draw_weights(part, seed, name, config.initial)
    network.vector_quantizer.draw(stream(seed, "vector_quantizer"))
    if config.residual:  # so that training begins near a copy of the first frame
        with torch.no_grad():
            network.decoder.get_parameter("decoder.0.weight").mul_(RESIDUAL_START)
    if config.latent == "none":
        for part in (network.m_former, network.vq_down_resampler, network.vector_quantizer, network.vq_up_resampler):
            part.requires_grad_(False)
        network.decoder.transformer.embeddings.freeze_code()
    return network
