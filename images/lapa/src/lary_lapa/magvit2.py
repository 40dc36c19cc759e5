"""The image encoder of Open-MAGVIT2 (Luo et al., 2024), as far as the 18 channels before its binary codes.

Shapes: b images, c channels.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import read_yaml
from lary_worker.checkpoints import require_file
from torch import Tensor, nn
from torch.nn import functional

from lary_lapa.facts import MagvitConfig

RENAMES = (
    (r"^encoder\.", ""),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"^mid_block\.", "middle."),
)
"""From the names in the tokenizer's checkpoint to those of `MagvitEncoder`."""

SKIPPABLE = (r"decoder\.", r"model_ema\.", r"quantize\.", r"loss\.")
"""The rest of the autoencoder. The averaged weights (`model_ema.`) are unused, as in LARYBench."""


def check_config(path: Path, config: MagvitConfig) -> None:
    """Compare a tokenizer's yaml (`model.init_args.ddconfig`) with the encoder that is built.

    Only what shapes the encoder counts: `resolution` and `out_ch` do not. Raises WeightsError naming what differs.
    """
    found = _encoder_settings(path)
    built = {**asdict(config), "ch_mult": list(config.ch_mult), "in_channels": 3, "double_z": False}
    different = [
        f"{name} is {found.get(name, 'missing')}, expected {value}"
        for name, value in built.items()
        if found.get(name) != value
    ]
    if different:
        raise WeightsError(f"{path}: not the config of the tokenizer that this key reads: {'; '.join(different)}")


def _encoder_settings(path: Path) -> Mapping[str, Any]:
    try:
        found = read_yaml(require_file(path))
    except ContractError as error:
        raise WeightsError(str(error)) from None
    for name in ("model", "init_args", "ddconfig"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise WeightsError(
            f"{path}: has no model.init_args.ddconfig; this is not the config of Open-MAGVIT2's tokenizer"
        )
    return found


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Twice norm, swish, convolution; a 1x1 convolution on the way around where the width changes."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm2 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        out: Tensor = self.shortcut(x) + y
        return out


class Level(nn.Module):
    """Residual blocks at one resolution, then (but for the last level) half of it."""

    def __init__(self, c_in: int, c_out: int, blocks: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(c_out if i else c_in, c_out) for i in range(blocks)))
        self.downsample = nn.Identity() if last else nn.Conv2d(c_out, c_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.blocks(x))
        return out


class MagvitEncoder(nn.Module):
    """Pixels -> a latent of a sixteenth of the side."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        inputs = [config.ch, *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1, bias=False)
        self.down = nn.Sequential(
            *(
                Level(a, b, config.num_res_blocks, i == last)
                for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
            )
        )
        self.middle = nn.Sequential(*(ResidualBlock(widths[-1], widths[-1]) for _ in range(config.num_res_blocks)))
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) in [0, 1] -> (b, H/16, W/16, latent).

        Open-MAGVIT2 trains on [-1, 1]; the LAQ model that reads these features was trained on this range.
        """
        x = self.middle(self.down(self.conv_in(images)))
        latent: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return latent.movedim(1, -1)
