"""The encoder of diffusers' Wan 2.2 autoencoder, from the original file or the hub's folder."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from lary_schema.base import WeightsError
from lary_worker.checkpoints import Renames, State, build, read_config, read_state, require_folder
from lary_worker.preprocessing import unit_range
from torch import nn

from lary_wan.config import Config

HUB_FILES = ("config.json", "diffusion_pytorch_model.safetensors")

# Names of the original file -> names in diffusers, whose own converter knows the layout of 2.1 alone.
_RENAMES = (
    (r"^conv1\.", "quant_conv."),
    (r"^encoder\.conv1\.", "encoder.conv_in."),
    (r"^encoder\.head\.0\.", "encoder.norm_out."),
    (r"^encoder\.head\.2\.", "encoder.conv_out."),
    (r"^encoder\.middle\.0\.", "encoder.mid_block.resnets.0."),
    (r"^encoder\.middle\.1\.", "encoder.mid_block.attentions.0."),
    (r"^encoder\.middle\.2\.", "encoder.mid_block.resnets.1."),
    (r"^encoder\.downsamples\.(\d+)\.downsamples\.", r"encoder.down_blocks.\1."),
    (r"(^encoder\.down_blocks\.\d+)\.\d+\.(resample|time_conv)\.", r"\1.downsampler.\2."),
    (r"(^encoder\.down_blocks\.\d+)\.(\d+)\.", r"\1.resnets.\2."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)
_SKIPPABLE = (r"decoder\.", r"conv2\.", r"post_quant_conv\.")


class WanEncoder(nn.Module):
    """Clips -> standardised latent means. The decoder is not part of it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.vae = _encoder_only(config)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 RGB (B, T, 224, 224, 3) -> float32 (B, 1 + (T - 1) // 4, 196, 48).

        Frames beyond 1 + 4k do not count: the network reads the first frame, then groups of four.
        """
        pixels = (unit_range(frames) - 0.5) / 0.5
        pixels = pixels.permute(0, 4, 1, 2, 3).contiguous().to(self.vae.dtype)  # (B, 3, T, H, W)
        means = self.vae.encode(pixels).latent_dist.mode().float()  # (B, 48, T', 14, 14)
        tokens = means.flatten(3).permute(0, 2, 3, 1)  # (B, T', 196, 48)
        mean, std = (tokens.new_tensor(values) for values in (self.config.latents_mean, self.config.latents_std))
        standardised: torch.Tensor = (tokens - mean) / std
        return standardised


def load(path: Path | None, config: Config, device: torch.device, dtype: torch.dtype) -> WanEncoder:
    """The encoder with the weights of `Wan2.2_VAE.pth`, or of a diffusers folder with its own config.

    None: random weights, from torch's generator. Raises WeightsError for a file of something else.
    """
    state: State | None = None
    renames: Renames = ()
    if path is not None and path.is_dir():
        config = _hub_config(path)
        state = read_state(path / HUB_FILES[1])
    elif path is not None:
        state, renames = read_state(path), _RENAMES
    renames = (*renames, (r"^", "vae."))
    return build(
        lambda: WanEncoder(config), state, path, renames=renames, skippable=_SKIPPABLE, device=device, dtype=dtype
    )


def _hub_config(folder: Path) -> Config:
    require_folder(folder, HUB_FILES)
    found = read_config(folder / "config.json")
    if found.get("_class_name") != "AutoencoderKLWan" or not found.get("is_residual"):
        raise WeightsError(f"{folder / 'config.json'}: is not the config of a Wan 2.2 autoencoder")
    try:
        return Config.from_hub(found)
    except KeyError as error:
        raise WeightsError(f"{folder / 'config.json'}: has no entry {error}") from None


def _encoder_only(config: Config) -> AutoencoderKLWan:
    vae = AutoencoderKLWan(
        base_dim=config.dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=list(config.temperal_downsample),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    del vae.decoder, vae.post_quant_conv
    return vae
