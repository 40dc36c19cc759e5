"""What a model's folder says: its kind, its input, its tokens. Reads JSON; no tensor is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError, WeightsError, read_json
from lary_schema.cards import Mode, ModelCard, ModeSpec, TensorSpec
from lary_schema.mounts import Mounts

from lary_hf.kinds import KINDS, Kind
from lary_hf.transform import Transform, read_transform

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMES = {"video": 9, "image": 2}
"""Frames of a row: LARYBench's clips, and pairs."""
SMALL = {"num_hidden_layers": 1}
EXAMPLE = Transform(3, None, (224, 224), (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Backbone:
    """One folder, read."""

    model_type: str
    kind: Kind
    transform: Transform
    grid: tuple[int, int]
    """Patches by row and column."""
    width: int
    special: int
    """Class and register tokens ahead of the patches, which are dropped."""
    tubelet: int = 1
    """Frames of a step."""

    def steps(self, frames: int) -> int:
        return frames // self.tubelet

    def tokens(self, frames: int) -> tuple[int, int, int]:
        return self.steps(frames), self.grid[0] * self.grid[1], self.width


def folder_of(key: str) -> Path:
    """Where the folder of a model is looked for, in a job and in `describe --weights`."""
    return Mounts.from_env().weights / key


def read_backbone(folder: Path) -> Backbone:
    """Raises WeightsError for a folder that is missing, or of a network that is not known here."""
    path = folder / "config.json"
    try:
        content = read_json(path)
    except ContractError as error:
        raise WeightsError(f"{error}; a model's folder as the hub has it is expected at {folder}") from None
    found = content.get("model_type") if isinstance(content, dict) else None
    if found not in KINDS:
        known = ", ".join(KINDS)
        raise WeightsError(f"{path}: a {found} model cannot be read here; model_type may be {known}")
    kind = KINDS[found]
    transform = read_transform(folder, video=kind.layout == "tubelets")
    return _measured(found, kind, transform, vision_config(folder), path)


def vision_config(folder: Path) -> Any:
    """transformers' config of the image part, with the defaults that a file may leave out."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{folder / 'config.json'}: cannot be read: {str(error).splitlines()[0]}") from None
    return getattr(config, "vision_config", config)


def _measured(name: str, kind: Kind, transform: Transform, config: Any, path: Path) -> Backbone:
    sizes = getattr(config, "hidden_sizes", None)
    # ConvNeXt: a stem of 4, and each later stage halves the sides.
    patch = 2 ** (len(sizes) + 1) if sizes else _side(config.patch_size)
    height, width = transform.size
    trained = _side(getattr(config, "image_size", None) or getattr(config, "crop_size", height))
    if height % patch or width % patch:
        raise WeightsError(f"{path}: images of {height} x {width} are no multiple of its patches of {patch}")
    if not kind.any_size and (height, width) != (trained, trained):
        raise WeightsError(
            f"{path}: its positions are for images of {trained} x {trained}, its processor makes {height} x {width}"
        )
    return Backbone(
        name,
        kind,
        transform,
        (height // patch, width // patch),
        sizes[-1] if sizes else config.hidden_size,
        kind.class_tokens + (getattr(config, "num_register_tokens", 0) or 0),
        getattr(config, "tubelet_size", 1) if kind.layout == "tubelets" else 1,
    )


def _side(value: Any) -> int:
    """Of a square that a config gives by one number or by two."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise WeightsError(f"patches or images of {sorted(sides)} are not square")
    return int(sides.pop())


def resolved(card: ModelCard, key: str, backbone: Backbone) -> ModelCard:
    """The family's card with the facts of one folder."""
    weights = tuple(spec.model_copy(update={"path": spec.path.replace("{key}", key)}) for spec in card.weights)
    dropped = f", {backbone.special} class and register tokens dropped" if backbone.special else ""
    note = f", {backbone.kind.note}" if backbone.kind.note else ""
    what = "per step" if backbone.tubelet > 1 else "per frame"
    return card.model_copy(
        update={
            "key": key,
            "pattern": None,
            "example": None,
            "title": f"{backbone.model_type} from {key}, patch features {what}{dropped}{note}",
            "modes": dict(_modes(backbone)),
            "preprocessing": backbone.transform.name,
            "weights": weights,
        }
    )


def _modes(backbone: Backbone) -> Iterator[tuple[Mode, ModeSpec]]:
    modes: tuple[Mode, ...] = ("video", "image")
    for mode in modes:
        frames = FRAMES[mode]
        if backbone.steps(frames):
            inputs = TensorSpec(shape=(frames, *backbone.transform.size, 3), dtype="uint8")
            tokens = backbone.tokens(frames)
            flat = backbone.tubelet > 1 and tokens[0] == 1
            yield mode, ModeSpec(input=inputs, tokens=tokens, time_axis=not flat)


def is_there(key: str) -> bool:
    return os.path.lexists(folder_of(key))
