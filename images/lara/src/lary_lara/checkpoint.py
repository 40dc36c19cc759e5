"""Checkpoints of the tokenizer: ours, a folder of `model.safetensors` and `config.json`, and the released ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lary_parts.checkpoints import PairConfig, fit_counters, load_kept, pair_fields, read_pair_config, require_same
from lary_schema.training import MODEL_FILE, Recipe
from lary_worker.checkpoints import State, read_state

from lary_lara.facts import MotoConfig
from lary_lara.network import Tokenizer

SKIPPABLE = (r"loss_fn_lpips\.", r"policy\.", r"alignment\.", r"regression\.")
"""What a file may hold beyond the tokenizer and its frozen encoder: a policy that was trained with it."""
RELEASED_PREFIX = "action_head.latent_motion_tokenizer."
"""Of the tokenizer's tensors inside the shards of a released policy."""
_FREE = ("latent", "initial")
"""Of the config: what may differ between a training and the one that it goes on from."""


class CheckpointConfig(PairConfig):
    """`config.json` of a checkpoint of ours."""

    tokenizer: MotoConfig
    policy: dict[str, Any] | None = None
    """Of `lara`: the joint stage's part of the recipe."""

    @property
    def settings(self) -> MotoConfig:
        return self.tokenizer


def config_document(recipe: Recipe, config: MotoConfig, policy: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of `config.json`."""
    fields = pair_fields(recipe, config) | {"tokenizer": config, "policy": policy}
    return CheckpointConfig.model_validate(fields).model_dump(mode="json")


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Of a checkpoint's folder. Raises WeightsError where it is missing, not valid, or contradicts itself."""
    return read_pair_config(folder, CheckpointConfig)


def load_tokenizer(network: Tokenizer, folder: Path) -> None:
    """Give a fresh network the tensors of a checkpoint folder of ours.

    Raises WeightsError naming settings in which the two differ, and tensors missing or left over.
    """
    require_same(folder, read_checkpoint_config(folder).tokenizer, network.config, _FREE)
    load_state(network, read_state(folder / MODEL_FILE), folder / MODEL_FILE)


def load_state(network: Tokenizer, state: State, where: Path) -> None:
    """Strictly, but for the frozen encoder, which the network has already."""
    state = released_names(state)
    fit_counters(network.vector_quantizer, state, "vector_quantizer.")
    load_kept(network, state, where, skippable=SKIPPABLE)


def released_names(state: Mapping[str, torch.Tensor]) -> State:
    """Without the prefix that the names carry inside a policy's shards; its other tensors are dropped there."""
    inside = {n.removeprefix(RELEASED_PREFIX): t for n, t in state.items() if n.startswith(RELEASED_PREFIX)}
    return inside or dict(state)
