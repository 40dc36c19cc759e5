"""The command `selftest`: does every model of this image give what its card declares?"""

import json
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import Mode, ModelCard
from numpy.typing import NDArray

from lary_worker import registry
from lary_worker.encode import check_latents
from lary_worker.model import Model

_ROWS = 2


def selftest(key: str | None, device: str, out: TextIO) -> None:
    """Encode a tiny clip with random weights in every mode and variant; one JSON line per model.

    Shapes, dtypes and finite values are checked, not values: nothing here needs a checkpoint. Of a
    family, its `example` is taken. Raises ContractError naming the models that break their card.
    """
    image = registry.find_image().card
    keys = [key] if key is not None else [card.example or card.key for card in image.models]
    broken = []
    for tested in keys:
        problems = dict(_problems(registry.find_card(tested), torch.device(device)))
        out.write(json.dumps({"model": tested, "ok": not problems, "problems": problems}) + "\n")
        out.flush()
        if problems:
            broken.append(tested)
    if broken:
        raise ContractError(f"image {image.name}: {', '.join(broken)} failed the self test; see the lines above")


def _problems(card: ModelCard, device: torch.device) -> Iterator[tuple[str, str]]:
    model_class = registry.find_class(card.key)
    for mode, variant in _combinations(card):
        try:
            _check(model_class(card, mode, variant), device)
        except Exception as error:  # noqa: BLE001 - whatever a model's code raises is the finding
            traceback.print_exception(error)
            yield f"{mode}/{variant}", f"{type(error).__name__}: {error}"


def _combinations(card: ModelCard) -> Iterator[tuple[Mode, str]]:
    for variant in card.variants:
        modes = dict.fromkeys([*card.modes, *card.variant_modes.get(variant, {})])
        yield from ((mode, variant) for mode in modes)


@torch.inference_mode()
def _check(model: Model, device: torch.device) -> None:
    spec = model.spec.input
    inputs = np.stack([model.preprocess(_tiny_row(model, seed)) for seed in range(_ROWS)])
    if inputs.shape[1:] != spec.shape or str(inputs.dtype) != spec.dtype:
        found = f"{inputs.dtype} {inputs.shape[1:]}"
        raise ContractError(f"preprocess gave {found}, the card says {spec.dtype} {spec.shape}")
    model.random_weights(device, torch.float32, seed=0)
    latents = model.encode(torch.from_numpy(inputs).to(device), np.arange(_ROWS))
    check_latents(model, latents, _ROWS)
    if not torch.isfinite(latents.tokens).all():
        raise ContractError("encode gave NaN or infinity")


def _tiny_row(model: Model, seed: int) -> NDArray[Any]:
    if model.mode == "actions":
        return np.random.default_rng(seed).normal(size=model.spec.input.shape)
    return tiny_clip(2 if model.mode == "image" else model.spec.input.shape[0], seed)


def tiny_clip(frames: int, seed: int) -> NDArray[np.uint8]:
    """uint8 (frames, 48, 64, 3): a bright square that moves over a gradient."""
    y, x = np.mgrid[:48, :64]
    clip = np.empty((frames, 48, 64, 3), np.uint8)
    for t in range(frames):
        clip[t] = np.stack([x * 3, y * 4, np.full_like(x, 40 * seed)], axis=-1)
        left = 5 * t + 7 * seed
        clip[t, 10:22, left : left + 12] = 250
    return clip
