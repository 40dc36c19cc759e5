"""Frozen encoders of one frame, by key: what the queries read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lary_schema.base import WeightsError
from lary_trainer.chance import stream
from lary_worker.checkpoints import load_pretrained
from torch import Tensor, nn

from lary_parts.layers import EPS, Stack, sines
from lary_parts.settings import EncoderSettings

MAE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DINO = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
RANDOM_WIDTH, RANDOM_DEPTH, RANDOM_HEADS = 128, 4, 4


class FrameEncoder(nn.Module):
    """Frames (B, 3, S, S) in the pixel convention of the settings -> features (B, tokens, width), without gradient."""

    tokens: int
    width: int
    positions: bool = False
    """Whether the reader must add positions itself: the features have none."""


class PixelEncoder(FrameEncoder):
    """The pixels of each patch: (B, side * side, 3 * patch * patch)."""

    positions = True

    def __init__(self, config: EncoderSettings) -> None:
        super().__init__()
        self.patch = config.patch
        self.side = config.size // config.patch
        self.tokens, self.width = self.side**2, 3 * config.patch**2

    def forward(self, frames: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(frames, self.patch).flatten(2).mT


class RandomVit(FrameEncoder):
    """A transformer that is never trained: its weights are the same for every seed, on every machine."""

    def __init__(self, config: EncoderSettings) -> None:
        super().__init__()
        self.pixels = PixelEncoder(config)
        self.side, self.tokens, self.width = self.pixels.side, self.pixels.tokens, RANDOM_WIDTH
        self.projection = nn.Linear(self.pixels.width, RANDOM_WIDTH)
        self.encoder = Stack(RANDOM_WIDTH, RANDOM_HEADS, RANDOM_DEPTH)
        self.layernorm = nn.LayerNorm(RANDOM_WIDTH, EPS)

    def forward(self, frames: Tensor) -> Tensor:
        embedded = self.projection(self.pixels(frames))
        result: Tensor = self.layernorm(self.encoder(embedded + sines(self.side, RANDOM_WIDTH, embedded)))
        return result


class MaeEncoder(FrameEncoder):
    """ViT-MAE: the class token and all patches, in the image's order.

    transformers shuffles patches by random noise even where none is masked; a rising `noise` keeps their order.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        sizes: Any = backbone.config
        self.tokens, self.width = 1 + (sizes.image_size // sizes.patch_size) ** 2, sizes.hidden_size

    def forward(self, frames: Tensor) -> Tensor:
        noise = torch.arange(self.tokens - 1, device=frames.device, dtype=torch.float32).expand(len(frames), -1)
        features: Tensor = self.backbone(pixel_values=frames, noise=noise).last_hidden_state
        return features


class DinoEncoder(FrameEncoder):
    """DINOv2 with registers: patch tokens after the last norm; class and register tokens are dropped."""

    def __init__(self, backbone: nn.Module, size: int) -> None:
        super().__init__()
        self.backbone: Any = backbone
        sizes: Any = backbone.config
        self.special = 1 + sizes.num_register_tokens
        self.tokens, self.width = (size // sizes.patch_size) ** 2, sizes.hidden_size

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.backbone(pixel_values=frames).last_hidden_state
        return features[:, self.special :]


def make_encoder(config: EncoderSettings, weights: Path | None, *, untrained: bool = False) -> FrameEncoder:
    """The frozen encoder of `config.encoder`, in evaluation mode.

    `weights` is the hub folder of those that have one; `untrained` takes random ones instead (self tests, shapes).
    Raises WeightsError where the folder is not given or holds another model.
    """
    if config.encoder == "pixel":
        encoder: FrameEncoder = PixelEncoder(config)
    elif config.encoder == "random-vit":
        encoder = RandomVit(config)
        draw_weights(encoder, 0, "random-vit", "fan-in")
    elif weights is None and not untrained:
        raise WeightsError(f"encoder {config.encoder} needs its weights, and none are given under the name 'encoder'")
    else:
        encoder = _pretrained(config, weights)
    return encoder.requires_grad_(False).eval()


def _pretrained(config: EncoderSettings, folder: Path | None) -> FrameEncoder:
    import transformers

    networks: Any = transformers
    if config.encoder == "mae-l":
        options = {**MAE, "mask_ratio": 0.0}
        if folder is None:
            return MaeEncoder(networks.ViTMAEModel(networks.ViTMAEConfig(**options)))
        loaded = load_pretrained(
            networks.ViTMAEModel, folder, model_type="vit_mae", skippable=(r"decoder\.",), mask_ratio=0.0
        )
        return MaeEncoder(_checked(loaded, MAE, folder))
    if folder is None:
        return DinoEncoder(
            networks.Dinov2WithRegistersModel(networks.Dinov2WithRegistersConfig(**DINO, patch_size=14)), config.size
        )
    loaded = load_pretrained(
        networks.Dinov2WithRegistersModel, folder, model_type="dinov2_with_registers", skippable=(r"classifier\.",)
    )
    return DinoEncoder(_checked(loaded, DINO, folder), config.size)


def _checked(network: Any, sizes: dict[str, int], folder: Path) -> Any:
    wrong = {k: getattr(network.config, k) for k, v in sizes.items() if getattr(network.config, k) != v}
    if wrong:
        expected = {k: sizes[k] for k in wrong}
        raise WeightsError(f"{folder}: has {wrong}, expected {expected}; this is another model")
    return network


def draw_weights(module: nn.Module, seed: int, purpose: str, initial: str) -> None:
    """Give every parameter its first value, a function of seed, `purpose` and the parameter's name.

    Matrices: normal of deviation .02 (`normal`) or 1 / sqrt(3 inputs) (`fan-in`); words 1; positions and tokens .02;
    biases 0; norms 1.
    """
    norms = {id(p) for m in module.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    matrices = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    words = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in module.named_parameters():
        if id(parameter) in norms or name.endswith("bias"):
            value = torch.full(parameter.shape, float(id(parameter) in norms and name.endswith("weight")))
        else:
            scaled = initial == "fan-in" and id(parameter) in matrices
            deviation = (3 * parameter[0].numel()) ** -0.5 if scaled else 1.0 if id(parameter) in words else 0.02
            drawn = stream(seed, f"{purpose}/{name}").standard_normal(tuple(parameter.shape), dtype="float32")
            value = torch.from_numpy(drawn) * deviation
        with torch.no_grad():
            parameter.copy_(value)
