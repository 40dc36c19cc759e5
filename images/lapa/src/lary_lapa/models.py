"""The model keys of this image: which frames go in, which network, which read-out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from lary_schema.base import ContractError
from lary_worker.model import Latents, Weights
from lary_worker.preprocessing import unit_range

from lary_lapa.bases import Cubic224, LaqModel, channels_first
from lary_lapa.facts import DINOV2, DINOV3, SIGLIP2, LaqConfig, MagvitConfig, VitKind, code_count

if TYPE_CHECKING:
    import torch
    from lary_schema.cards import Mode, ModelCard
    from lary_worker.checkpoints import State
    from numpy.typing import NDArray
    from torch import nn


# --- patch features -----------------------------------------------------------------------------


class _PatchFeatureModel(Cubic224):
    """Patch features of every frame, (T, h*w, d)."""

    kind: VitKind
    features: nn.Module

    def _make_tiny(self) -> None:
        self.kind = self.kind.tiny()

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        from lary_lapa.vit import load_vit

        self.dtype = dtype
        torch.manual_seed(seed)
        self.features = load_vit(self.kind, weights.get("backbone"), device, dtype)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        frames = self._mixed_planes(batch) if self.variant == "lary-v1" else channels_first(batch)
        features = self.features(frames.to(self.dtype))  # (B*T, h, w, d)
        return Latents(features.reshape(*batch.shape[:2], -1, features.shape[-1]))

    @staticmethod
    def _mixed_planes(batch: torch.Tensor) -> torch.Tensor:
        """(B, T, H, W, 3) -> (B*T, 3, H, W), with LARYBench's fault: (3, T) planes are read as (T, 3).

        Each image is three consecutive planes of R0 R1 ... G0 G1 ... B0 B1 ..., not one frame.
        """
        planes = batch.permute(0, 4, 1, 2, 3).contiguous()  # (B, 3, T, H, W)
        return unit_range(planes.reshape(-1, *planes.shape[1:2], *planes.shape[3:]))


class Dinov2Origin(_PatchFeatureModel):
    """`dinov2-origin`"""

    kind = DINOV2


class Dinov3Origin(_PatchFeatureModel):
    """`dinov3-origin`"""

    kind = DINOV3


class Siglip2Origin(_PatchFeatureModel):
    """`siglip2-origin`"""

    kind = SIGLIP2


# --- latent actions -----------------------------------------------------------------------------


class Lapa(LaqModel):
    """`lapa`: pixel patches straight into the transformer."""

    config = LaqConfig(spatial_depth=8, temporal_depth=8, code_seq_len=4)
    patch: ClassVar[int] = 32
    """Side of a pixel patch."""
    skippable = (r"to_pixels_first_frame\.", r"to_patch_emb_first_frame\.")

    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        from lary_worker.checkpoints import build

        from lary_lapa.laq import PATCH_RENAMES, PatchEmbedding

        return build(
            lambda: PatchEmbedding(self.patch, self.config.dim),
            state,
            weights.get("model"),
            renames=PATCH_RENAMES,
            skippable=(r"(?!to_patch_emb_first_frame\.)",),
            device=device,
            dtype=dtype,
        )


class _VitLaq(LaqModel):
    """LAQ over the patch features of a frozen vision transformer."""

    kind: VitKind

    def _make_tiny(self) -> None:
        super()._make_tiny()
        self.kind = self.kind.tiny()

    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        from lary_lapa.vit import load_vit

        return load_vit(self.kind, weights.get("backbone"), device, dtype)

    def _compare_copy(self, state: State, weights: Weights) -> None:
        from lary_lapa.copies import compare_copy

        assert self.copy is not None
        compare_copy(
            state,
            self.copy,
            self.features.get_submodule("backbone"),
            renames=self.kind.old_names,
            skippable=self.kind.skippable,
            where=weights["model"],
            source=weights["backbone"],
        )


class LapaDinov2(_VitLaq):
    """`dinov2`"""

    kind, config = DINOV2, LaqConfig()
    copy = "dino_tokenizer."


class LapaDinov3(_VitLaq):
    """`dinov3`"""

    kind, config = DINOV3, LaqConfig()
    copy = "dino_tokenizer."
    entry = "model"


class LapaSiglip2(_VitLaq):
    """`siglip2`"""

    kind, config = SIGLIP2, LaqConfig(dim=768)
    copy = "encoder.vision_model."


class LapaDinov3Ablation(LapaDinov3):
    """`dinov3-cs{N}_sl{L}_dim{D}_lr{lr}`: sizes are in the key."""

    _SIDE = 14

    def __init__(self, card: ModelCard, mode: Mode, variant: str) -> None:
        super().__init__(card, mode, variant)
        self.config = _ablation_config(card.key, self.config)

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The family's card with this key's file and shapes."""
        n = code_count(_ablation_config(key, cls.config).code_seq_len, cls._SIDE)
        modes = {
            mode: spec.model_copy(
                update={"tokens": (spec.tokens[0], n, spec.tokens[2]), "indices": (spec.tokens[0], n)}
            )
            for mode, spec in card.modes.items()
        }
        model, *others = card.weights
        model = model.model_copy(update={"path": f"{key.replace('dinov3-', 'dinov3_', 1)}.pt"})
        return card.model_copy(update={"key": key, "pattern": None, "modes": modes, "weights": (model, *others)})


def _ablation_config(key: str, base: LaqConfig) -> LaqConfig:
    found = re.fullmatch(r"dinov3-cs(\d+)_sl(\d+)_dim(\d+)_lr.+", key)
    if found is None:
        raise ContractError(f"{key}: a key of this family reads dinov3-cs8_sl16_dim32_lr1e-4")
    codes, length, dim = map(int, found.groups())
    return replace(base, codebook_size=codes, code_seq_len=length, quant_dim=dim)


class LapaMagvit2(LaqModel):
    """`magvit2`: LAQ over the channels that Open-MAGVIT2 would binarise."""

    config = LaqConfig(dim=18)
    tokenizer: MagvitConfig = MagvitConfig()
    skippable = (r"to_pixels_first_frame\.",)
    copy = "magvit2_tokenizer."

    def _make_tiny(self) -> None:
        super()._make_tiny()
        self.tokenizer = self.tokenizer.tiny()

    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        from lary_worker.checkpoints import build, read_state

        from lary_lapa.magvit2 import RENAMES, SKIPPABLE, MagvitEncoder, check_config

        if "config" in weights:
            check_config(weights["config"], self.tokenizer)
        path = weights.get("tokenizer")
        tensors = read_state(path, "state_dict") if path else None
        return build(
            lambda: MagvitEncoder(self.tokenizer),
            tensors,
            path,
            renames=RENAMES,
            skippable=SKIPPABLE,
            device=device,
            dtype=dtype,
        )

    def _compare_copy(self, state: State, weights: Weights) -> None:
        from lary_lapa.copies import compare_copy
        from lary_lapa.magvit2 import RENAMES, SKIPPABLE

        assert self.copy is not None
        compare_copy(
            state,
            self.copy,
            self.features,
            renames=RENAMES,
            skippable=SKIPPABLE,
            where=weights["model"],
            source=weights["tokenizer"],
        )
