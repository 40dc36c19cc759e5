"""Checkpoints of action tokenizers: ours, and the names of `tokenizer_step_N.pt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lary_parts.checkpoints import read_document
from lary_schema.base import Document, WeightsError
from lary_schema.training import MODEL_FILE
from lary_worker.checkpoints import State, load_strict, read_state

from lary_latentvla.action_range import ActionRange
from lary_latentvla.tokenizer_facts import TokenizerConfig
from lary_latentvla.tokenizer_network import ActionTokenizer

_FIXED = ("width", "heads", "feed_forward", "layers", "codes")
"""Of the config: what two tokenizers of one checkpoint must share."""


class TokenizerDocument(Document):
    """`config.json`."""

    format: int = 1
    trainee: str = "action-tokenizer"
    recipe: str
    shape: tuple[int, int]
    """(T, A)."""
    range: dict[str, list[float] | list[int]]
    """`low`, `high` (A numbers each), and `constant`: dimensions that pass through as they are."""
    tokenizer: TokenizerConfig


def config_document(
    recipe: str, config: TokenizerConfig, shape: tuple[int, int], actions: ActionRange
) -> dict[str, Any]:
    """The content of `config.json`."""
    document = TokenizerDocument(recipe=recipe, shape=shape, range=actions.document(), tokenizer=config)
    return document.model_dump(mode="json")


def load_tokenizer(folder: Path) -> tuple[ActionTokenizer, ActionRange, TokenizerDocument]:
    """A trained one on the CPU, with the range of its training rows. Raises WeightsError."""
    document = read_document(folder, TokenizerDocument)
    network = ActionTokenizer(document.tokenizer, document.shape[1])
    load_state(network, folder / MODEL_FILE)
    return network.eval(), ActionRange.parse(document.range), document


def load_state(network: ActionTokenizer, path: Path) -> None:
    """Strictly: the tensors of the release and no others. What was saved has begun to quantise."""
    counters = {n: t for n, t in network.state_dict().items() if n not in network.kept_state()}
    counters["vq.started"] = torch.ones_like(counters["vq.started"])
    load_strict(network, read_state(path) | counters, path)


def load_released(network: ActionTokenizer, folder: Path) -> None:
    """The released file's three parts, converted each by itself (`--entry encoder`, `vq`, `decoder`) into
    `encoder.safetensors`, `vq.safetensors` and `decoder.safetensors` of a folder. Strictly; raises WeightsError."""
    state: State = {}
    for part in ("encoder", "vq", "decoder"):
        state |= {f"{part}.{name}": tensor for name, tensor in read_state(folder / f"{part}.safetensors").items()}
    counters = {n: t for n, t in network.state_dict().items() if n not in network.kept_state()}
    counters["vq.started"] = torch.ones_like(counters["vq.started"])
    load_strict(network, state | counters, folder)


def load_start(network: ActionTokenizer, actions: ActionRange, folder: Path) -> None:
    """Go on from a checkpoint. Raises WeightsError naming what differs."""
    document = read_document(folder, TokenizerDocument)
    one, other = document.tokenizer.model_dump(), network.config.model_dump()
    differing = [f"{name} {one[name]}, here {other[name]}" for name in _FIXED if one[name] != other[name]]
    if document.shape[1] != network.dimensions:
        differing.append(f"{document.shape[1]} action dimensions, here {network.dimensions}")
    elif not _same(ActionRange.parse(document.range), actions):
        differing.append("the range of its training rows' actions")
    if differing:
        raise WeightsError(f"{folder}: was trained otherwise than this recipe says: {'; '.join(differing)}")
    load_state(network, folder / MODEL_FILE)


def _same(one: ActionRange, other: ActionRange) -> bool:
    return all(np.allclose(a, b, rtol=1e-9) for a, b in ((one.low, other.low), (one.high, other.high)))
