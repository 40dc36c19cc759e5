"""transformers' V-JEPA 2 encoder, from Meta's training checkpoint or the hub's folder."""

from pathlib import Path

import torch
from lary_worker.checkpoints import build, load_pretrained, read_state, split_qkv
from lary_worker.preprocessing import imagenet_normalised
from torch import nn
from transformers import VJEPA2Config, VJEPA2Model

from lary_vjepa2.config import Config
from lary_vjepa2.preprocessing import CROP

# Names of the original file, with attn.qkv split -> names in transformers.
_RENAMES = (
    (r"^module\.", ""),
    (r"^backbone\.", ""),
    (r"^patch_embed\.", "embeddings.patch_embeddings."),
    (r"^blocks\.", "layer."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.", ".attention."),
)


class VJepa2Encoder(nn.Module):
    """Clips -> patch features after the final layer norm. The predictor is not part of it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 RGB (B, T, 224, 224, 3) -> (B, T // 2 * 196, D): tokens by time, row, column."""
        pixels = imagenet_normalised(frames).permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W)
        features: torch.Tensor = self.encoder(pixels).last_hidden_state
        return features


def load(path: Path | None, config: Config, device: torch.device, dtype: torch.dtype) -> VJepa2Encoder:
    """The encoder with the `target_encoder` of a training checkpoint, or of a hub folder with its own config.

    None: random weights, from torch's generator. Raises WeightsError for a file of something else.
    """
    if path is not None and path.is_dir():
        # With the folder's own crop of 256 the rotary positions would be those of a 16 x 16 grid.
        model = load_pretrained(VJEPA2Model, path, model_type="vjepa2", crop_size=CROP, dtype=dtype)
        return VJepa2Encoder(model.encoder).to(device).eval()
    state = None if path is None else split_qkv(read_state(path, entry="target_encoder"), ("query", "key", "value"))
    encoder = build(lambda: _encoder(config), state, path, renames=_RENAMES, device=device, dtype=dtype)
    return VJepa2Encoder(encoder)


def _encoder(config: Config) -> nn.Module:
    """The encoder alone; the predictor is made as small as it gets, and dropped."""
    model = VJEPA2Model(
        VJEPA2Config(
            crop_size=CROP,
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            patch_size=config.patch_size,
            tubelet_size=config.tubelet_size,
            pred_num_hidden_layers=1,
        )
    )
    encoder: nn.Module = model.encoder
    return encoder
