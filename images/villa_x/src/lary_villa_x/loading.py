"""villa-X's folder -> network."""

from pathlib import Path

import torch
from lary_worker.checkpoints import build, read_config, read_state, require_folder

from lary_villa_x.config import Config
from lary_villa_x.network import VillaXLam

CONFIG, WEIGHTS = "model_config.json", "model.safetensors"


def read(folder: Path) -> Config:
    """The config of a folder that also holds the weights. Raises WeightsError."""
    require_folder(folder, (CONFIG, WEIGHTS))
    return Config.from_json(read_config(folder / CONFIG), folder / CONFIG)


def load(folder: Path | None, config: Config, device: torch.device, dtype: torch.dtype) -> VillaXLam:
    """The network with the folder's weights; None: random ones, from torch's generator.

    Raises WeightsError for weights that do not fit the config.
    """
    path = folder / WEIGHTS if folder else None
    state = read_state(path) if path else None
    return build(lambda: VillaXLam(config), state, path, skippable=(r"decoder\.",), device=device, dtype=dtype)
