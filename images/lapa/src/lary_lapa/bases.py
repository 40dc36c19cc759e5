"""What the keys of this image have in common: how frames go in, and LAQ's read-outs."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from lary_worker.model import Latents, Model, Weights
from lary_worker.preprocessing import resize_cubic, unit_range

from lary_lapa.facts import LaqConfig

if TYPE_CHECKING:
    import torch
    from lary_worker.checkpoints import State
    from numpy.typing import NDArray
    from torch import nn

    from lary_lapa.laq import Codes


class Cubic224(Model):
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


def channels_first(batch: torch.Tensor) -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B*T, 3, H, W) in [0, 1]; moved while it is small."""
    return unit_range(batch.permute(0, 1, 4, 2, 3).flatten(0, 1).contiguous())


class LaqModel(Cubic224):
    """Codes of the change between neighbouring frames: T - 1 pairs of n tokens.

    Variants: `corrected` reads the change itself, `codebook` the nearest code vector, `lary-v1` the change
    with NSVQ's training noise, as LARYBench extracts it. A row's noise is drawn from a generator of its
    own, seeded by the job's seed and the row's number.
    """

    config: LaqConfig
    entry: ClassVar[str | None] = None
    """Key of the checkpoint's dictionary that holds the tensors."""
    skippable: ClassVar[tuple[str, ...]] = ()
    """Tensors of the file, beside the decoder and a copy of the frozen backbone, that this key does not read."""
    copy: ClassVar[str | None] = None
    """Prefix of that copy in the file, which may be there or not."""

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
        skippable = (*SKIPPABLE, *self.skippable, *([re.escape(self.copy)] if self.copy else []))
        self.laq = build(
            lambda: Laq(self.config), state, path, renames=RENAMES, skippable=skippable, device=device, dtype=dtype
        )
        self.features = self._load_features(weights, state, device, dtype)
        if state is not None:
            self._compare_copy(state, weights)

    @abstractmethod
    def _load_features(
        self, weights: Weights, state: State | None, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        """A module (b, 3, H, W) in [0, 1] -> (b, h, w, d). `state` is the LAQ file's."""

    def _compare_copy(self, state: State, weights: Weights) -> None:
        """Refuse a LAQ file that was trained on other features than these, where it tells."""

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        import torch

        features = self.features(channels_first(batch).to(self.dtype))
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
