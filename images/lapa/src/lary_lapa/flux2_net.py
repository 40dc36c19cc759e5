"""The encoder of diffusers' FLUX.2 autoencoder, from the original file or the hub's folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2
from lary_schema.base import WeightsError
from lary_worker.checkpoints import Renames, State, build, read_config, read_state, require_folder
from torch import nn

from lary_lapa.flux2_size import Flux2Size

HUB_FILES = ("config.json", "diffusion_pytorch_model.safetensors")

# Names of the original file -> names in diffusers, which has no converter for this class.
_RENAMES = (
    (r"^encoder\.quant_conv\.", "quant_conv."),
    (r"^encoder\.norm_out\.", "encoder.conv_norm_out."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"^encoder\.mid\.block_1\.", "encoder.mid_block.resnets.0."),
    (r"^encoder\.mid\.block_2\.", "encoder.mid_block.resnets.1."),
    (r"^encoder\.mid\.attn_1\.norm\.", "encoder.mid_block.attentions.0.group_norm."),
    (r"^encoder\.mid\.attn_1\.proj_out\.", "encoder.mid_block.attentions.0.to_out.0."),
    (r"^encoder\.mid\.attn_1\.([qkv])\.", r"encoder.mid_block.attentions.0.to_\1."),
)
_SKIPPABLE = (r"decoder\.", r"post_quant_conv\.")


class Flux2Encoder(nn.Module):
    """Images -> latents as the diffusion model sees them. The decoder is not part of it."""

    def __init__(self, size: Flux2Size) -> None:
        super().__init__()
        self.vae = _encoder_only(size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) in [-1, 1] -> (b, 4 z, H / 16, W / 16).

        The mean of the latent distribution, 2 x 2 neighbours folded into channels (channel, row, column),
        standardised with the file's running statistics.
        """
        means = self.vae.encode(pixels).latent_dist.mode()  # (b, z, H / 8, W / 8)
        folded = nn.functional.pixel_unshuffle(means, 2)
        normalised: torch.Tensor = self.vae.bn(folded)
        return normalised


def load(path: Path | None, size: Flux2Size, device: torch.device, dtype: torch.dtype) -> Flux2Encoder:
    """The encoder with the weights of `ae.safetensors`, or of a diffusers folder with its own sizes.

    None: random weights, from torch's generator. Raises WeightsError for a file of something else.
    """
    state: State | None = None
    renames: Renames = ()
    if path is not None and path.is_dir():
        size = _hub_size(path, size)
        state = read_state(path / HUB_FILES[1])
    elif path is not None:
        state, renames = _linear_attention(read_state(path)), _RENAMES
    renames = (*renames, (r"^", "vae."))
    return build(
        lambda: Flux2Encoder(size), state, path, renames=renames, skippable=_SKIPPABLE, device=device, dtype=dtype
    )


def _linear_attention(state: State) -> State:
    """The 1 x 1 convolutions of the attention, (out, in, 1, 1), as the linear layers they are."""
    attention = r"encoder.mid.attn_1."
    return {
        name: tensor.flatten(1) if name.startswith(attention) and tensor.ndim > 1 else tensor
        for name, tensor in state.items()
    }


def _hub_size(folder: Path, size: Flux2Size) -> Flux2Size:
    require_folder(folder, HUB_FILES)
    where = folder / HUB_FILES[0]
    found: dict[str, Any] = read_config(where)
    if found.get("_class_name") != "AutoencoderKLFlux2":
        raise WeightsError(f"{where}: is a {found.get('_class_name')}, but AutoencoderKLFlux2 is expected")
    widths = tuple(found.get("block_out_channels", [size.ch * m for m in size.ch_mult]))
    return replace(
        size,
        ch=widths[0],
        ch_mult=tuple(width // widths[0] for width in widths),
        num_res_blocks=found.get("layers_per_block", size.num_res_blocks),
        z_channels=found.get("latent_channels", size.z_channels),
    )


def _encoder_only(size: Flux2Size) -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        block_out_channels=tuple(size.ch * m for m in size.ch_mult),
        layers_per_block=size.num_res_blocks,
        latent_channels=size.z_channels,
    )
    del vae.decoder, vae.post_quant_conv
    return vae
