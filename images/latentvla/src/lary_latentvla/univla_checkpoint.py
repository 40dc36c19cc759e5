"""Checkpoints of the two-stage model: ours, what stage 2 takes of stage 1, and the names of released files."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from lary_parts.checkpoints import PairConfig, fit_counters, load_kept, pair_fields, read_pair_config, require_same
from lary_parts.quantiser import VectorQuantiser
from lary_schema.base import ContractError, WeightsError
from lary_schema.training import MODEL_FILE, Recipe
from lary_worker.checkpoints import State, read_state, renamed
from torch import nn

from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import UnivlaLam

RELEASED_NAMES = ((r"^lam\.", ""), (r"^(vq|vq_action)\.codebook\.", r"\1.embedding."))
"""From released names to ours; P2T's `action_decoder` has no prefix there."""
RELEASED_FROZEN = (r"(lam\.)?dino_encoder\.", r"(lam\.)?text_encoder\.")
"""Of released files: frozen networks, which are downloaded by themselves."""
_STRUCTURE = ("size", "patch", "tokens", "codes", "code_width", "encoder", "pixel_convention")
"""In what stage 2 must be as stage 1, whatever it takes."""
_NETWORK = ("width", "heads", "encoder_layers", "decoder_layers", "target_input", "residual")
"""And where it takes all."""
_FREE = ("latent", "initial", "labels", "taken", "head_width")
_HEAD = "action_decoder."
_SECOND_NAMES = (
    (r"^to_codebook\.", "to_codebook_uncontrol."),
    (r"^action_up\.", "action_up_uncontrol."),
)
"""What stage 1 reads its only codes by, stage 2 has for the uncontrolled ones."""


class CheckpointConfig(PairConfig):
    """`config.json` of a checkpoint of ours."""

    univla: UnivlaConfig
    words: tuple[str, ...] = ()
    """Of text `words`: those that have a vector."""
    action_shape: list[int] | None = None
    """(stride, dim) of the action head's chunk."""

    @property
    def settings(self) -> UnivlaConfig:
        return self.univla


def config_document(
    recipe: Recipe, config: UnivlaConfig, words: tuple[str, ...], action_shape: tuple[int, int] | None
) -> CheckpointConfig:
    """The content of `config.json`."""
    fields: dict[str, object] = {
        "univla": config,
        "words": words if config.text == "words" else (),
        "action_shape": None if action_shape is None else list(action_shape),
    }
    return CheckpointConfig.model_validate(pair_fields(recipe, config) | fields)


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Of a checkpoint's folder. Raises WeightsError where it is missing, not valid, or contradicts itself."""
    return read_pair_config(folder, CheckpointConfig)


def load_checkpoint(network: UnivlaLam, folder: Path, words: tuple[str, ...] = ()) -> None:
    """Give a fresh network all tensors of a checkpoint of its own stage.

    Raises WeightsError naming settings in which the two differ, and tensors missing or left over.
    """
    found = read_checkpoint_config(folder)
    require_same(folder, found.univla, network.config, _FREE)
    if network.config.text == "words" and words != found.words:
        raise WeightsError(f"{folder}: knows {len(found.words)} words, and not the {len(words)} of this data")
    load_state(network, read_state(folder / MODEL_FILE), folder / MODEL_FILE)


def load_state(network: UnivlaLam, state: State, where: Path | str) -> None:
    """Strictly, but for what is frozen and downloaded, and an action head that one of the two has not."""
    state = dict(state)
    for name in ("vq", "vq_action"):
        if isinstance(quantiser := getattr(network, name, None), VectorQuantiser):
            fit_counters(quantiser, state, f"{name}.")
    has_head = any(name.startswith(_HEAD) for name in state)
    load_kept(
        network,
        state,
        where,
        skippable=() if network.action_decoder is not None else (re.escape(_HEAD),),
        own=() if has_head else (_HEAD,),
    )


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


def is_univla(network: nn.Module) -> UnivlaLam:
    """`network`, which has to be one. Raises ContractError for another."""
    if not isinstance(network, UnivlaLam):
        raise ContractError(f"a UnivlaLam is expected, not {type(network).__name__}")
    return network
