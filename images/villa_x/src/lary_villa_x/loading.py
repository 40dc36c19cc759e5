"""villa-X's folder -> network."""

from pathlib import Path

import torch
from lary_worker.checkpoints import load_strict, read_config, read_state, require_folder
from torch import nn

from lary_villa_x.config import Config
from lary_villa_x.network import VillaXLam

FILES = ("model_config.json", "model.safetensors")


def read(folder: Path) -> Config:
    """The config of a folder with `model_config.json` and `model.safetensors`. Raises WeightsError."""
    require_folder(folder, FILES)
    where = folder / FILES[0]
    return Config.from_json(read_config(where), where)


def load(folder: Path, config: Config, device: torch.device, dtype: torch.dtype) -> VillaXLam:
    """The network with the folder's weights. Raises WeightsError for what does not fit."""
    with torch.device("meta"):
        network = VillaXLam(config)
    path = folder / FILES[1]
    load_strict(network, read_state(path), path, skippable=[r"decoder\."], device=device, dtype=dtype)
    return network.eval()


def random(config: Config, device: torch.device, dtype: torch.dtype, seed: int) -> nn.Module:
    """The network with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VillaXLam(config)
    return network.to(device, dtype).eval()
