"""The model keys of this image: which frames go in, which network, which read-out."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from lary_schema.base import ContractError
from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import resize_cubic, unit_range

from lary_lapa.facts import DINOV2, DINOV3, SIGLIP2, LaqConfig, MagvitConfig, VitKind, code_count

if TYPE_CHECKING:
    import torch
    from lary_schema.cards import Mode, ModelCard
    from lary_worker.checkpoints import State
    from numpy.typing import NDArray
    from torch import nn

    from lary_lapa.laq import Codes


class _Cubic224(Model):
    """Frames resized by OpenCV, as bytes."""

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """With tiny networks, for `selftest`: the shapes it looks at are the same. `load({})` is full."""
        self._make_tiny()
        self.load({}, device, dtype, seed)

    @abstractmethod
    def _make_tiny(self) -> None:
        """Replace the inner sizes of this instance by the smallest."""

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """-> uint8 (T, 224, 224, 3)."""
        return resize_cubic(frames, 224)


def _channels_first(batch: torch.Tensor) -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B*T, 3, H, W) in [0, 1]; moved while it is small."""
    return unit_range(batch.permute(0, 1, 4, 2, 3).flatten(0, 1).contiguous())


# --- patch features -----------------------------------------------------------------------------


class _PatchFeatureModel(_Cubic224):
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
        frames = self._mixed_planes(batch) if self.variant == "lary-v1" else _channels_first(batch)
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


class _LaqModel(_Cubic224):
    """Codes of the change between neighbouring frames: T - 1 pairs of n tokens.

    Variants: `corrected` reads the change itself, `codebook` the nearest code vector, `lary-v1` the change
    with NSVQ's training noise, as LARYBench extracts it. A row's noise is drawn from a generator of its
    own, seeded by the job's seed and the row's number.
    """

    config: LaqConfig
    entry: ClassVar[str | None] = None
    """Key of the checkpoint's dictionary that holds the tensors."""
    skippable: ClassVar[tuple[str, ...]] = ()
    """Tensors of the file, beside the decoder, that this key does not read: mostly the frozen backbone."""

    features: nn.Module

    def _make_tiny(self) -> None:
        self.config = self.config.tiny()

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch
        from lary_worker.checkpoints import build, read_state, strip_prefix

        from lary_lapa.laq import RENAMES, SKIPPABLE, Laq

        self.dtype, self.seed = dtype, seed
        torch.manual_seed(seed)
        path = weights.get("model")
        state = strip_prefix(read_state(path, self.entry), "module.") if path else None
        skippable = (*SKIPPABLE, *self.skippable)
        self.laq = build(
            lambda: Laq(self.config), state, path, renames=RENAMES, skippable=skippable, device=device, dtype=dtype
        )
        self.features = self._load_features(weights, state, device, dtype)

    @abstractmethod
    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        """A module (b, 3, H, W) in [0, 1] -> (b, h, w, d). `state` is the LAQ file's."""

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        import torch

        features = self.features(_channels_first(batch).to(self.dtype))
        features = features.reshape(*batch.shape[:2], *features.shape[1:])  # (B, T, h, w, d): every frame once
        pairs = torch.stack((features[:, :-1], features[:, 1:]), dim=2)  # (B, T-1, 2, h, w, d)
        codes = self.laq(pairs.flatten(0, 1))
        tokens = self.laq.vq.read_out(self._vectors(codes, rows))
        by_row = pairs.shape[:2]
        return Latents(tokens.reshape(*by_row, *tokens.shape[1:]), codes.indices.reshape(*by_row, -1))

    def _vectors(self, codes: Codes, rows: NDArray[np.int64]) -> torch.Tensor:
        if self.variant == "codebook":
            return codes.nearest
        if self.variant == "corrected":
            return codes.change
        from lary_lapa.laq import with_noise

        return with_noise(codes, self._noise(codes.change, rows))

    def _noise(self, like: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        import torch

        shape = (len(like) // len(rows), *like.shape[1:])
        generators = (np.random.Generator(np.random.Philox(key=[self.seed, int(row)])) for row in rows)
        noise = np.concatenate([generator.standard_normal(shape, np.float32) for generator in generators])
        return torch.from_numpy(noise).to(like)


class Lapa(_LaqModel):
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


class _VitLaq(_LaqModel):
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


class LapaDinov2(_VitLaq):
    """`dinov2`"""

    kind, config = DINOV2, LaqConfig()
    skippable = (r"dino_tokenizer\.",)


class LapaDinov3(_VitLaq):
    """`dinov3`"""

    kind, config = DINOV3, LaqConfig()
    skippable = (r"dino_tokenizer\.",)
    entry = "model"


class LapaSiglip2(_VitLaq):
    """`siglip2`"""

    kind, config = SIGLIP2, LaqConfig(dim=768)
    skippable = (r"encoder\.vision_model\.",)


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


class LapaMagvit2(_LaqModel):
    """`magvit2`: LAQ over the channels that Open-MAGVIT2 would binarise."""

    config = LaqConfig(dim=18)
    tokenizer: MagvitConfig = MagvitConfig()
    skippable = (r"to_pixels_first_frame\.", r"magvit2_tokenizer\.")

    def _make_tiny(self) -> None:
        super()._make_tiny()
        self.tokenizer = self.tokenizer.tiny()

    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        from lary_worker.checkpoints import build, read_state

        from lary_lapa.magvit2 import RENAMES, SKIPPABLE, MagvitEncoder

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
