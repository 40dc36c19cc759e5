"""Checkpoints of the tokenizer: ours, a folder of `model.safetensors` and `config.json`, and the released ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lary_parts.quantiser import VectorQuantiser
from lary_parts.settings import PIXELS
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.training import CONFIG_FILE, MODEL_FILE, Recipe
from lary_worker.checkpoints import State, load_strict, read_config, read_state

from lary_lara.facts import MotoConfig
from lary_lara.network import FROZEN, Tokenizer

SKIPPABLE = (r"loss_fn_lpips\.", r"policy\.", r"alignment\.", r"regression\.")
"""What a file may hold beyond the tokenizer and its frozen encoder: a policy that was trained with it."""
RELEASED_PREFIX = "action_head.latent_motion_tokenizer."
"""Of the tokenizer's tensors inside the shards of a released policy."""
_FREE = {"latent", "initial"}
"""Of the config: what may differ between a training and the one that it goes on from."""
_FREE_QUANTISER = {"order", "beta", "start", "continuous_steps", "restart", "decay"}


class CheckpointConfig(Document):
    """`config.json` of a checkpoint of ours."""

    format: int = 1
    trainee: str
    recipe: str
    dt: int | None
    """Of clips: frames between the two of a pair."""
    pixels: dict[str, list[float]]
    """`mean` and `std` per channel of pixels in [0, 1], as `tokenizer.pixel_convention` says them."""
    tokenizer: MotoConfig
    policy: dict[str, Any] | None = None
    """Of `lara`: the joint stage's part of the recipe."""


def config_document(recipe: Recipe, config: MotoConfig, policy: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of `config.json`."""
    return CheckpointConfig(
        trainee=recipe.trainee,
        recipe=recipe.key,
        dt=recipe.dt,
        pixels=PIXELS[config.pixel_convention],
        tokenizer=config,
        policy=policy,
    ).model_dump(mode="json")


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Of a checkpoint's folder. Raises WeightsError where it is missing, not valid, or contradicts itself."""
    path = folder / CONFIG_FILE
    try:
        config = CheckpointConfig.parse(read_config(path), str(path))
    except WeightsError:
        raise
    except ContractError as error:
        raise WeightsError(str(error)) from None
    expected = PIXELS[config.tokenizer.pixel_convention]
    if config.pixels != expected:
        raise WeightsError(
            f"{path}: pixels {config.pixels} are not those of pixel_convention {config.tokenizer.pixel_convention} "
            f"({expected}); the file was changed"
        )
    return config


def load_tokenizer(network: Tokenizer, folder: Path) -> None:
    """Give a fresh network the tensors of a checkpoint folder of ours.

    Raises WeightsError naming settings in which the two differ, and tensors missing or left over.
    """
    found = read_checkpoint_config(folder).tokenizer
    if differing := differences(found, network.config):
        raise WeightsError(f"{folder}: was trained otherwise than this recipe says: {'; '.join(differing)}")
    state = read_state(folder / MODEL_FILE)
    load_state(network, state, folder / MODEL_FILE)


def load_state(network: Tokenizer, state: State, where: Path) -> None:
    """Strictly, but for the frozen encoder, which the network has already."""
    state = released_names(state)
    _fit_counters(network.vector_quantizer, state)
    frozen = {name: t for name, t in network.state_dict().items() if name.startswith(FROZEN)}
    trains = {name: p.requires_grad for name, p in network.named_parameters()}
    kept = {name: t for name, t in state.items() if not name.startswith(FROZEN)}
    load_strict(network, kept | frozen, where, skippable=SKIPPABLE)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains[name])


def released_names(state: Mapping[str, torch.Tensor]) -> State:
    """Without the prefix that the names carry inside a policy's shards; its other tensors are dropped there."""
    inside = {n.removeprefix(RELEASED_PREFIX): t for n, t in state.items() if n.startswith(RELEASED_PREFIX)}
    return inside or dict(state)


def _fit_counters(quantiser: VectorQuantiser, state: State) -> None:
    """Counters of training that one side has and the other has not: a codebook from a file has started."""
    prefix = "vector_quantizer."
    wanted = {name: value for name, value in quantiser.state_dict().items() if name in ("started", "unused_steps")}
    for name in ("started", "unused_steps"):
        if name not in wanted:
            state.pop(prefix + name, None)
        elif prefix + name not in state:
            state[prefix + name] = torch.ones_like(wanted[name]) if name == "started" else wanted[name].clone()


def differences(found: MotoConfig, wanted: MotoConfig) -> list[str]:
    """`codes 64, here 128`: settings that fix a network's shapes or what it reads."""
    one, other = _fixed(found), _fixed(wanted)
    return [f"{name} {one[name]}, here {other[name]}" for name in one if one[name] != other[name]]


def _fixed(config: MotoConfig) -> dict[str, Any]:
    flat = {k: v for k, v in config.model_dump().items() if k not in (*_FREE, "quantiser")}
    quantiser = config.quantiser.model_dump()
    return flat | {f"quantiser.{k}": v for k, v in quantiser.items() if k not in _FREE_QUANTISER}
