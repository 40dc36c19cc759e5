"""What a folder's own processor does to a frame, read from its JSON file and done with Pillow.

Resize (the short side, or both), centre crop, then mean and deviation; resizing is antialiased. The frames stay bytes
until they are on the device. Processors that pad, tile or choose a size by the image are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lary_schema.base import WeightsError, read_json
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
"""In this order for a video model; an image model has the second alone."""
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as processors write them."""
_UNKNOWN = ("do_pad", "do_thumbnail", "do_align_long_axis", "do_image_splitting", "do_flip_channel_order")


@dataclass(frozen=True)
class Transform:
    """The way from a frame to the network's pixels."""

    resample: int
    short: int | None
    """Length of the short side after the resize, the aspect kept; None: both sides are resized to `size`."""
    size: tuple[int, int]
    """Height and width of what the network gets: cut out of the middle where the short side is longer."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        """Says all that it does to a pixel before its mean and deviation, which belong to the weights."""
        height, width = self.size
        resized = f"{height}x{width}" if self.short is None else f"short{self.short}-crop{height}x{width}"
        return f"pil-{RESAMPLING[self.resample]}-{resized}"

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 RGB (T, H, W, 3) -> (T, *size, 3)."""
        return np.stack([self._frame(Image.fromarray(frame)) for frame in frames])

    def _frame(self, image: Image.Image) -> NDArray[np.uint8]:
        height, width = self.size
        resample = Image.Resampling(self.resample)
        if self.short is None:
            return np.asarray(image.resize((width, height), resample))
        old_width, old_height = image.size
        least = min(old_width, old_height)
        # The long side is cut down to an integer, as processors do.
        new = tuple(self.short if side == least else int(self.short * side / least) for side in image.size)
        resized = image.resize((new[0], new[1]), resample)
        left, top = (new[0] - width) // 2, (new[1] - height) // 2
        # Beyond the edges (a crop that is longer than the short side) there is black.
        return np.asarray(resized.crop((left, top, left + width, top + height)))


def read_transform(folder: Path, *, video: bool) -> Transform:
    """The transform of a model's folder. Raises WeightsError for one that is missing or that is not understood."""
    names = FILES if video else FILES[1:]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(f"{folder}: has no {' or '.join(names)}, which says what its images go through")
    content = read_json(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is no JSON object")
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: this processor is not understood: {error}; it needs an image of its own") from None


def _parsed(content: dict[str, Any]) -> Transform:
    odd = [name for name in _UNKNOWN if content.get(name)]
    if odd:
        raise ValueError(f"{', '.join(odd)} is set")
    if not content.get("do_resize", True):
        raise ValueError("it does not resize")
    resample = int(content.get("resample", 3))
    if resample not in RESAMPLING:
        raise ValueError(f"resample {resample} is none of {', '.join(map(str, RESAMPLING))}")
    if not np.isclose(content.get("rescale_factor", 1 / 255), 1 / 255) or not content.get("do_rescale", True):
        raise ValueError("pixels are not scaled by 1/255")
    mean, std = _statistics(content)
    short, size = _sizes(content)
    return Transform(resample, short, size, mean, std)


def _statistics(content: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not content.get("do_normalize", True):
        return (0.0,) * 3, (1.0,) * 3
    mean, std = (tuple(map(float, content[name])) for name in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("image_mean and image_std must be three numbers, std above 0")
    return mean, std


def _sizes(content: dict[str, Any]) -> tuple[int | None, tuple[int, int]]:
    """Length of the short side (None: both sides are given), and what the network gets."""
    size = content["size"]
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    if (share := content.get("crop_pct")) is not None and edge is not None:
        # ConvNeXt: small images are cut out of larger ones, large ones are resized whole.
        return (int(edge / share), (edge, edge)) if edge < 384 else (None, (edge, edge))
    if edge is None:
        return None, (int(size["height"]), int(size["width"]))
    if not content.get("do_center_crop", "crop_size" in content):
        raise ValueError("its images have no fixed size: the short side is resized and nothing is cut")
    crop = content["crop_size"]
    both = (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))
    return int(edge), both
