"""The two-stage latent action model: two frames' features -> a few codes -> the second frame's features.

After UniVLA (2025), whose tensor names it has, and From Pixels to Tokens (2026). B rows, N patches, F width of a
feature, K codes of a kind, W width, D width of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lary_parts.encoders import FrameEncoder, draw_weights
from lary_parts.pair_network import Latent, PairNetwork, carried
from lary_parts.quantiser import VectorQuantiser
from lary_parts.settings import Quantiser
from lary_trainer.chance import stream
from torch import Tensor, nn

from lary_latentvla.text import T5, TextEncoder
from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_layers import SpatialBlock, SpatioTemporalBlock, entrance, positions

RESIDUAL_START = 0.1
"""Factor of the last layer's first weights where the decoder gives what changes."""
FIXED = Quantiser(kind="ema")
"""Of the codebook of stage 1 in stage 2: embeddings go to its codes, and it does not follow them."""

States = tuple[Tensor, Tensor]
"""Text (B, L, W), and which of it there is (B, L)."""


@dataclass(frozen=True)
class Codes(Latent):
    """One kind of codes of B pairs."""

    carried: Tensor
    """(B, K, D): what the decoder reads; the gradient of its codes goes straight to the embeddings."""


@dataclass(frozen=True)
class Found:
    """What the encoder finds in B pairs."""

    controllable: Codes
    """Of stage 1: the only ones."""
    uncontrolled: Codes | None
    text: States | None
    """For the decoder."""

    @property
    def carried(self) -> Tensor:
        """(B, K or 2 K, D)."""
        parts = [self.controllable.carried, *([self.uncontrolled.carried] if self.uncontrolled else [])]
        return torch.cat(parts, dim=1)


class Encoder(nn.Module):
    """Slots of both frames -> the same slots, informed of each other."""

    def __init__(self, config: UnivlaConfig, features: int) -> None:
        super().__init__()
        self.ffn = entrance(features, config.width)
        self.transformer_blocks = nn.ModuleList(
            SpatioTemporalBlock(config.width, config.heads) for _ in range(config.encoder_layers)
        )

    def forward(self, slots: Tensor, text: States | None) -> Tensor:
        """(B, 2, S, F) -> (B, 2, S + L, W); text stands behind the slots of both frames."""
        x: Tensor = self.ffn(slots)
        x, seen = _with_text(x + positions(x), text)
        for block in self.transformer_blocks:
            x = block(x, seen)
        return x


class Decoder(nn.Module):
    """Codes, patches of the first frame and text -> features at the patches."""

    def __init__(self, config: UnivlaConfig, features: int) -> None:
        super().__init__()
        self.ffn = entrance(config.width, config.width)
        self.transformer_blocks = nn.ModuleList(
            SpatialBlock(config.width, config.heads) for _ in range(config.decoder_layers)
        )
        self.out = nn.Linear(config.width, features)

    def forward(self, slots: Tensor, text: States | None, patches: int) -> Tensor:
        """(B, S, W), whose last `patches` slots are those of the frame -> (B, patches, F)."""
        length = slots.shape[1]
        x = self.ffn(slots)
        x, seen = _with_text(x + positions(x), text)
        for block in self.transformer_blocks:
            x = block(x, seen)
        result: Tensor = self.out(x[:, length - patches : length])
        return result


def _with_text(x: Tensor, text: States | None) -> tuple[Tensor, Tensor | None]:
    """(..., S, W) with text behind it, and which of the S + L slots of a row there are."""
    if text is None:
        return x, None
    states, there = text
    if x.ndim == 4:
        states = states[:, None].expand(-1, x.shape[1], -1, -1)
    slots = there.new_ones(len(x), x.shape[-2])
    return torch.cat((x, states), dim=-2), torch.cat((slots, there), dim=1)


class UnivlaLam(PairNetwork):
    """The whole of it. `image_encoder` is frozen, and so is T5; neither is in a file of ours."""

    frozen = ("image_encoder.", "text_encoder.encoder.")

    def __init__(
        self, config: UnivlaConfig, encoder: FrameEncoder, text: TextEncoder | None = None, numbers: int | None = None
    ) -> None:
        """`numbers`: those of an action chunk, where a head reads them."""
        super().__init__()
        self.config = config
        features, width, codes = encoder.width, config.width, config.code_width
        self.image_encoder = encoder
        self.action_latent = nn.Parameter(torch.zeros(1, 1, config.tokens, features))
        self.encoder = Encoder(config, features)
        self.to_codebook = nn.Linear(width, codes)
        first = config.quantiser if config.stage == 1 else FIXED
        self.vq = VectorQuantiser(config.codes, codes, first)
        self.patch_up, self.action_up = nn.Linear(features, width), nn.Linear(codes, width)
        self.decoder = Decoder(config, features)
        if config.stage == 2:
            self.action_latent_controllable = nn.Parameter(torch.zeros(1, 1, config.tokens, features))
            self.to_codebook_uncontrol = nn.Linear(width, codes)
            self.action_up_uncontrol = nn.Linear(codes, width)
            self.vq_action = VectorQuantiser(config.codes, codes, config.quantiser)
            self.vq.requires_grad_(False)
        self.text_encoder = text
        self.lang_proj = None if text is None else nn.Linear(text.width, width)
        self.action_decoder = None
        if numbers is not None:
            self.action_decoder = nn.Sequential(
                nn.Linear(codes, config.head_width), nn.ReLU(), nn.Linear(config.head_width, numbers)
            )

    @property
    def settings(self) -> UnivlaConfig:
        return self.config

    @property
    def dtype(self) -> torch.dtype:
        return self.action_latent.dtype

    @property
    def trained_vq(self) -> VectorQuantiser:
        """The codebook that trains."""
        return self.vq_action if self.config.stage == 2 else self.vq

    def read_text(self, texts: tuple[str, ...]) -> States | None:
        """Of a network with a text encoder."""
        if self.text_encoder is None or self.lang_proj is None or not texts:
            return None
        states, there = self.text_encoder(texts)
        return self.lang_proj(states.to(self.dtype)), there

    def find(self, first: Tensor, target: Tensor, texts: tuple[str, ...] = ()) -> Found:
        """Features (B, N, F) of both frames, and texts where there are any -> codes."""
        text = self.read_text(texts)
        second = target - first if self.config.target_input == "difference" else target
        known = text if "encoder" in self.config.text_to else None
        encoded = self.encoder(self._slots(torch.stack((first, second), dim=1)), known)[:, 1]
        count = self.config.tokens
        if text is not None and self.config.text_states == "encoded":
            text = encoded[:, -text[0].shape[1] :], text[1]
        if "decoder" not in self.config.text_to:
            text = None
        mine = _quantised(self.trained_vq, self.to_codebook(encoded[:, :count]))
        if self.config.stage == 1:
            return Found(mine, None, text)
        other = _quantised(self.vq, self.to_codebook_uncontrol(encoded[:, count : 2 * count]))
        return Found(mine, other, text)

    def _slots(self, frames: Tensor) -> Tensor:
        """(B, 2, N, F) -> with the learned tokens in front, the controllable ones first."""
        parts = [self.action_latent]
        if self.config.stage == 2:
            parts.insert(0, self.action_latent_controllable)
        return torch.cat((*(p.expand(*frames.shape[:2], -1, -1) for p in parts), frames), dim=2)

    def decode(self, first: Tensor, carried: Tensor, text: States | None = None) -> Tensor:
        """Features (B, N, F) of the first frame and codes (B, K or 2 K, D) -> features of the second."""
        slots = [self.patch_up(first)]
        if self.config.latent == "codes":
            count = self.config.tokens
            codes = [self.action_up(carried[:, :count])]
            if self.config.stage == 2:
                codes.append(self.action_up_uncontrol(carried[:, count:]))
            slots = [*codes, *slots]
        predicted: Tensor = self.decoder(torch.cat(slots, dim=1), text, first.shape[1])
        return first + predicted if self.config.residual else predicted


def _quantised(quantiser: VectorQuantiser, embeddings: Tensor) -> Codes:
    found = quantiser(embeddings)
    latent = Latent(embeddings, found.codes, found.indices)
    return Codes(embeddings, found.codes, found.indices, carried(quantiser, latent))


def make_univla(
    config: UnivlaConfig, encoder: FrameEncoder, seed: int, text: TextEncoder | None = None, numbers: int | None = None
) -> UnivlaLam:
    """A network on the CPU, its first weights drawn from `seed`; without a latent, what makes one is frozen.

    Learned tokens: uniform in +-1, as released.
    """
    network = UnivlaLam(config, encoder, text, numbers)
    codebooks = [module for module in network.children() if isinstance(module, VectorQuantiser)]
    for name, part in network.named_children():
        downloaded = part is network.image_encoder or isinstance(part, T5)
        if not downloaded and part not in codebooks:
            draw_weights(part, seed, name, config.initial)
    for name, parameter in network.named_parameters(recurse=False):
        drawn = stream(seed, name).uniform(-1, 1, tuple(parameter.shape)).astype("float32")
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(drawn))
    network.vq.draw(stream(seed, "vq"))
    if config.stage == 2:
        network.vq_action.draw(stream(seed, "vq_action"))
    if config.residual:  # so that training begins near a copy of the first frame's features
        with torch.no_grad():
            network.decoder.out.weight.mul_(RESIDUAL_START)
    if config.latent == "none":
        _freeze_codes(network)
    return network


def _freeze_codes(network: UnivlaLam) -> None:
    for name, parameter in network.named_parameters():
        if not name.startswith(("patch_up.", "decoder.", "text_encoder.", "lang_proj.")):
            parameter.requires_grad_(False)
