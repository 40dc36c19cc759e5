"""Every model that is installed here, with random weights, and clips drawn in memory: for `gpu.py`."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from lary_schema.cards import ImageCard, ModelCard
from lary_worker.model import Model
from lary_worker.selftest import tiny_clip
from torch import nn

FULL, SELFTEST = "full", "self-test"
CPU = torch.device("cpu")
ALWAYS_FLOAT32 = ("pca",)
"""Models that compute in float32 whatever the precision."""


@dataclass(frozen=True)
class Installed:
    """A key of an installed image."""

    key: str
    image: str
    point: EntryPoint
    card: ModelCard


def installed() -> Iterator[Installed]:
    """One key of each card, of a family its example, in the order of the images' names."""
    for point in sorted(entry_points(group="lary.models"), key=lambda point: (point.module, point.name)):
        path = files(point.module.partition(".")[0]) / "image.yaml"
        image = ImageCard.load(path)  # type: ignore[arg-type]
        card = next(card for card in image.models if card.key == point.name)
        yield Installed(card.example or card.key, image.name, point, card)


def make(entry: Installed, *, toy: bool) -> tuple[Model, str]:
    """The model in float32 on the CPU, and what size it has: the released one, or a self test's.

    A family's sizes lie in its checkpoints, so without one there is only a self test's. What an import lacks is
    raised as it comes.
    """
    model = _unloaded(entry)
    if not toy:
        try:
            if not _released_lara(model):
                model.load({}, CPU, torch.float32, 0)
        except (KeyError, ValueError, RuntimeError):  # needs files: it has no sizes of its own
            model = _unloaded(entry)
        else:
            return model, FULL
    model.random_weights(CPU, torch.float32, 0)
    return model, SELFTEST


def _unloaded(entry: Installed) -> Model:
    cls = entry.point.load()
    card = cls.resolve(entry.card, entry.key)
    mode = "video" if "video" in card.modes else "image"
    model: Model = cls(card, mode, card.variants[0])
    return model


def _released_lara(model: Any) -> bool:
    """Moto's and LARA's released tokenizers take no empty weights: made at their sizes here."""
    if type(model).__module__ != "lary_lara.released":
        return False
    from lary_lara.released import released_config
    from lary_parts.encoders import make_encoder

    config = released_config(model.card)
    model._place(model._make(config, make_encoder(config, None, untrained=True)), 1, CPU, torch.float32)
    return True


def on_device(model: Model, size: str, device: torch.device, dtype: torch.dtype) -> Model:
    """The same weights on a device: as `load` does, the whole network in `dtype`."""
    there = copy.copy(model)
    fixed = size == SELFTEST and model.card.key.startswith(ALWAYS_FLOAT32)
    for name, value in vars(model).items():
        if isinstance(value, nn.Module):
            setattr(there, name, copy.deepcopy(value).to(device, torch.float32 if fixed else dtype))
    if hasattr(model, "dtype"):
        there.dtype = dtype
    return there


def inputs(model: Model, rows: int) -> torch.Tensor:
    """(rows, *spec.input.shape) on the host: a few drawn clips through the model's own preprocessing, repeated."""
    frames = 2 if model.mode == "image" else model.spec.input.shape[0]
    drawn = [model.preprocess(_noisy(tiny_clip(frames, seed), seed)) for seed in range(min(rows, 4))]
    return torch.from_numpy(np.stack([drawn[row % len(drawn)] for row in range(rows)]))


def _noisy(clip: Any, seed: int) -> Any:
    """Flat areas would make the tokens of a random network alike."""
    noise = np.random.default_rng(seed).integers(0, 60, clip.shape, np.uint8)
    return np.minimum(clip, 195) + noise
