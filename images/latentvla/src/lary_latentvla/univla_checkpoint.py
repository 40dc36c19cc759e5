"""Checkpoints of the two-stage model: ours, what stage 2 takes of stage 1, and the names of released files."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from lary_parts.quantiser import VectorQuantiser
from lary_parts.settings import PIXELS
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.training import CONFIG_FILE, MODEL_FILE, Recipe
from lary_worker.checkpoints import State, load_strict, read_config, read_state, renamed
from torch import nn

from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import FROZEN, UnivlaLam

RELEASED_NAMES = ((r"^lam\.", ""), (r"^(vq|vq_action)\.codebook\.", r"\1.embedding."))
"""From released names to ours; P2T's `action_decoder` has no prefix there."""
RELEASED_FROZEN = (r"(lam\.)?dino_encoder\.", r"(lam\.)?text_encoder\.")
"""Of released files: frozen networks, which are downloaded by themselves."""
_COUNTERS = ("started", "unused_steps", "cluster_size", "cluster_sum")
_STRUCTURE = ("size", "patch", "tokens", "codes", "code_width", "encoder", "pixel_convention")
"""In what stage 2 must be as stage 1, whatever it takes."""
_NETWORK = ("width", "heads", "encoder_layers", "decoder_layers", "target_input", "residual")
"""And where it takes all."""
_FREE = ("latent", "initial", "labels", "taken", "head_width")
_FREE_QUANTISER = ("order", "beta", "start", "continuous_steps", "restart", "decay")
_SECOND_NAMES = (
    (r"^to_codebook\.", "to_codebook_uncontrol."),
    (r"^action_up\.", "action_up_uncontrol."),
)
"""What stage 1 reads its only codes by, stage 2 has for the uncontrolled ones."""


class CheckpointConfig(Document):
    """`config.json` of a checkpoint of ours."""

    format: int = 1
    trainee: str
    recipe: str
    dt: int | None
    """Of clips: frames between the two of a pair."""
    pixels: dict[str, list[float]]
    univla: UnivlaConfig
    words: tuple[str, ...] = ()
    """Of text `words`: those that have a vector."""
    action_shape: list[int] | None = None
    """(stride, dim) of the action head's chunk."""


def config_document(
    recipe: Recipe, config: UnivlaConfig, words: tuple[str, ...], action_shape: tuple[int, int] | None
) -> CheckpointConfig:
    """The content of `config.json`."""
    return CheckpointConfig(
        trainee=recipe.trainee,
        recipe=recipe.key,
        dt=recipe.dt,
        pixels=PIXELS[config.pixel_convention],
        univla=config,
        words=words if config.text == "words" else (),
        action_shape=None if action_shape is None else list(action_shape),
    )


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Of a checkpoint's folder. Raises WeightsError where it is missing, not valid, or contradicts itself."""
    path = folder / CONFIG_FILE
    try:
        config = CheckpointConfig.parse(read_config(path), str(path))
    except WeightsError:
        raise
    except ContractError as error:
        raise WeightsError(str(error)) from None
    if config.pixels != PIXELS[config.univla.pixel_convention]:
        raise WeightsError(
            f"{path}: pixels {config.pixels} are not those of pixel_convention {config.univla.pixel_convention}; the "
            "file was changed"
        )
    return config


def load_checkpoint(network: UnivlaLam, folder: Path, words: tuple[str, ...] = ()) -> None:
    """Give a fresh network all tensors of a checkpoint of its own stage.

    Raises WeightsError naming settings in which the two differ, and tensors missing or left over.
    """
    found = read_checkpoint_config(folder)
    if differing := _differences(found.univla, network.config):
        raise WeightsError(f"{folder}: was trained otherwise than this recipe says: {'; '.join(differing)}")
    if network.config.text == "words" and words != found.words:
        raise WeightsError(f"{folder}: knows {len(found.words)} words, and not the {len(words)} of this data")
    load_state(network, read_state(folder / MODEL_FILE), folder / MODEL_FILE)


def load_state(network: UnivlaLam, state: State, where: Path | str) -> None:
    """Strictly, but for what is frozen and downloaded, and an action head that one of the two has not."""
    state = dict(state)
    for name in ("vq", "vq_action"):
        if isinstance(quantiser := getattr(network, name, None), VectorQuantiser):
            _fit_counters(quantiser, state, f"{name}.")
    own = network.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.startswith(FROZEN)}
    if not any(name.startswith("action_decoder.") for name in state):
        kept |= {name: tensor for name, tensor in own.items() if name.startswith("action_decoder.")}
    skippable = () if network.action_decoder is not None else (r"action_decoder\.",)
    trains = {name: p.requires_grad for name, p in network.named_parameters()}
    load_strict(network, state | kept, where, skippable=skippable)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains[name])


def _fit_counters(quantiser: VectorQuantiser, state: State, prefix: str) -> None:
    """Counters of training that one side has and the other has not: a codebook from a file has started."""
    wanted = quantiser.state_dict()
    for name in _COUNTERS:
        if name not in wanted:
            state.pop(prefix + name, None)
        elif prefix + name not in state:
            state[prefix + name] = torch.ones_like(wanted[name]) if name == "started" else wanted[name].clone()


def take(network: UnivlaLam, folder: Path) -> None:
    """Give a fresh network of stage 2 what its config says of the checkpoint of a stage 1.

    Raises WeightsError naming what does not fit.
    """
    config, found = network.config, read_checkpoint_config(folder).univla
    if found.stage != 1:
        raise WeightsError(f"{folder}: is of stage {found.stage}; stage 2 begins at a checkpoint of stage 1")
    names = (*_STRUCTURE, *(_NETWORK if "all" in config.taken else ()))
    one, other = found.model_dump(), config.model_dump()
    if differing := [f"{n} {one[n]}, here {other[n]}" for n in names if one[n] != other[n]]:
        raise WeightsError(f"{folder}: stage 1 was trained otherwise than stage 2: {'; '.join(differing)}")
    if found.latent == "none":
        raise WeightsError(f"{folder}: has no latent (latent: none), and so no codebook to go on from")
    state, own = read_state(folder / MODEL_FILE), network.state_dict()
    wanted = [name for name in state if _is_taken(name, config) and renamed(name, _SECOND_NAMES) in own]
    for name in wanted:
        if state[name].shape != own[renamed(name, _SECOND_NAMES)].shape:
            raise WeightsError(f"{folder / MODEL_FILE}: {name} is {tuple(state[name].shape)}, of another size here")
    with torch.no_grad():
        for name in wanted:
            own[renamed(name, _SECOND_NAMES)].copy_(state[name])


def _is_taken(name: str, config: UnivlaConfig) -> bool:
    if name.startswith("vq."):
        return name == "vq.embedding.weight"  # counters of training are of no use to a frozen codebook
    if name == "action_latent":
        return "queries" in config.taken or "all" in config.taken
    return "all" in config.taken and not name.startswith(("text_encoder.", "lang_proj.", "action_decoder."))


def load_released(network: UnivlaLam, state: State, where: Path | str) -> None:
    """The tensors of a released file (UniVLA's stages, P2T's second), by their names there, strictly."""
    kept = {name: tensor for name, tensor in state.items() if not any(re.match(s, name) for s in RELEASED_FROZEN)}
    load_state(network, {renamed(name, RELEASED_NAMES): tensor for name, tensor in kept.items()}, where)


def _differences(found: UnivlaConfig, wanted: UnivlaConfig) -> list[str]:
    one, other = _fixed(found), _fixed(wanted)
    return [f"{name} {one[name]}, here {other[name]}" for name in one if one[name] != other[name]]


def _fixed(config: UnivlaConfig) -> dict[str, object]:
    flat = {k: v for k, v in config.model_dump().items() if k not in (*_FREE, "quantiser")}
    quantiser = config.quantiser.model_dump()
    return flat | {f"quantiser.{k}": v for k, v in quantiser.items() if k not in _FREE_QUANTISER}


def is_univla(network: nn.Module) -> UnivlaLam:
    """`network`, which has to be one. Raises ContractError for another."""
    if not isinstance(network, UnivlaLam):
        raise ContractError(f"a UnivlaLam is expected, not {type(network).__name__}")
    return network
