"""LPIPS with VGG16 (Zhang et al., 2018), from a file of its weights: none is carried or downloaded.

Names of tensors are those of `lpips.LPIPS(net="vgg").state_dict()`, which anybody with that package can save.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lary_parts.settings import Convention
from lary_worker.checkpoints import load_strict, read_state
from lary_worker.preprocessing import imagenet_normalised
from torch import Tensor, nn
from torch.nn import functional

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of VGG16's convolutions; a pooling by 2 stands before all stages but the first."""
WIDTHS = (64, 128, 256, 512, 512)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the input in [-1, 1], per channel."""
SKIPPABLE = (r"scaling_layer\.", r"lins\.")
"""Constants, and the second name of the same layers."""


class _Linear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))


class Perceptual(nn.Module):
    """Distance of two images by VGG16's features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        width = 3
        for number, (stage, wide) in enumerate(zip(STAGES, WIDTHS, strict=True)):
            convolutions = nn.ModuleDict()
            for name in stage:
                convolutions[str(name)] = nn.Conv2d(width, wide, 3, padding=1)
                width = wide
            self.net.add_module(f"slice{number + 1}", convolutions)
            self.add_module(f"lin{number}", _Linear(wide))

    def forward(self, predicted: Tensor, target: Tensor, convention: Convention) -> Tensor:
        """(B, 3, S, S) each, in a pixel convention -> (B,)."""
        both = torch.cat((unit_pixels(predicted, convention), unit_pixels(target, convention)))
        x = (2 * both - 1 - both.new_tensor(SHIFT)[:, None, None]) / both.new_tensor(SCALE)[:, None, None]
        total = x.new_zeros(len(predicted))
        for number in range(len(STAGES)):
            x = functional.max_pool2d(x, 2) if number else x
            for convolution in self.net.get_submodule(f"slice{number + 1}").children():
                x = convolution(x).relu()
            one, other = functional.normalize(x, dim=1, eps=1e-10).chunk(2)
            weighted = self.get_submodule(f"lin{number}.model.1")((one - other).square())
            total = total + weighted.mean((1, 2, 3))
        return total


def unit_pixels(frames: Tensor, convention: Convention) -> Tensor:
    """Back to [0, 1]."""
    if convention == "unit":
        return frames
    black, white = (imagenet_normalised(torch.full((3,), v, dtype=torch.uint8)).to(frames) for v in (0, 255))
    unit: Tensor = (frames - black[:, None, None]) / (white - black)[:, None, None]
    return unit


def load_perceptual(path: Path, device: torch.device) -> Perceptual:
    """Strictly, frozen. Raises WeightsError naming what is missing or left over."""
    network = Perceptual()
    load_strict(network, read_state(path), path, skippable=SKIPPABLE, device=device)
    return network.requires_grad_(False).eval()
