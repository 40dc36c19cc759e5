"""Vision-language-action models from their parts, and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lary_parts.checkpoints import read_document
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.training import MODEL_FILE
from lary_worker.checkpoints import State, load_strict, read_state

from lary_latentvla.action_range import ActionRange
from lary_latentvla.backbones import make_backbone
from lary_latentvla.vla_facts import VlaConfig
from lary_latentvla.vla_network import VlaNetwork
from lary_latentvla.vocabulary import WRAPPINGS, Vocabulary, downloaded_tokenizer, word_tokenizer


class Parts(NamedTuple):
    """What of the data fixes a network's shapes."""

    words: tuple[str, ...]
    """Of a backbone that is not downloaded: its vocabulary."""
    labels: int
    """Codes that are added to the vocabulary."""
    dimensions: int
    """A of an action."""
    aligned: int
    """Width of the latents that are aligned with; 0 where none are."""


class VlaDocument(Document):
    """`config.json`."""

    format: int = 1
    trainee: str = "latent-vla"
    recipe: str
    vla: VlaConfig
    words: tuple[str, ...]
    labels: int
    dimensions: int
    aligned: int
    range: dict[str, list[float] | list[int]]
    """`low`, `high` (A numbers each), and `constant`: dimensions that pass through as they are."""

    @property
    def parts(self) -> Parts:
        return Parts(self.words, self.labels, self.dimensions, self.aligned)


def config_document(recipe: str, config: VlaConfig, parts: Parts, actions: ActionRange) -> dict[str, Any]:
    """The content of `config.json`."""
    return VlaDocument(recipe=recipe, vla=config, range=actions.document(), **parts._asdict()).model_dump(mode="json")


def make_network(config: VlaConfig, parts: Parts, backbone: Path | None) -> VlaNetwork:
    """On the CPU, what is drawn by torch's generator. Raises WeightsError for a backbone that is not the recipe's."""
    if config.facts.weights is None:
        tokenizer, wrapping = word_tokenizer(parts.words), WRAPPINGS["tiny"]
    elif backbone is None:
        raise WeightsError(f"backbone {config.backbone} needs its downloaded folder, given as weights 'backbone'")
    else:
        tokenizer, wrapping = downloaded_tokenizer(backbone), WRAPPINGS[config.facts.family]
    base = len(tokenizer)
    vocabulary = Vocabulary(tokenizer, wrapping, parts.labels)
    made = make_backbone(config, vocabulary, base, backbone)
    _require_layer(config, made)
    return VlaNetwork(config, made, vocabulary, parts.dimensions, parts.aligned)


def _require_layer(config: VlaConfig, backbone: Any) -> None:
    layers = int(backbone.config.get_text_config().num_hidden_layers)
    if config.strategy == "la-align" and not -layers - 1 <= config.align_layer <= layers:
        raise ContractError(
            f"align_layer {config.align_layer}: {config.backbone} has {layers} layers, so the hidden states are "
            f"0 to {layers}, or -1 to {-layers - 1} from the last"
        )


def load_network(folder: Path, backbone: Path | None) -> VlaNetwork:
    """A trained one on the CPU. Raises WeightsError where the folder does not hold one whole."""
    document = read_document(folder, VlaDocument)
    with torch.random.fork_rng(devices=[]):
        network = make_network(document.vla, document.parts, backbone)
    state = read_state(folder / MODEL_FILE)
    load_strict(network, _with_shared(network, state), folder / MODEL_FILE)
    return network


def _with_shared(network: VlaNetwork, state: State) -> State:
    """A file's tensors, also under the further names of shared ones, and those that no file has: frozen ones."""
    kept = network.kept_state()
    own = network.state_dict(keep_vars=True)
    first = {id(own[name]): name for name in kept}
    for name, tensor in own.items():
        if name in kept:
            continue
        if (other := first.get(id(tensor))) is None:
            state[name] = tensor.detach()
        elif other in state:
            state[name] = state[other]
    return state
