"""Released files as models: UniVLA's stages, the second one of From Pixels to Tokens (P2T), and its action tokenizers.

Each has a folder below the weights root, whose name is its key: what `lary-orch weights convert` made of the file, and
`config.json` with what cannot be seen in the tensors. Sizes are read from the shapes. Imports torch late.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from lary_parts.pairs import VARIANTS, pair_modes, preprocessing_id
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.mounts import Mounts
from lary_schema.training import CONFIG_FILE, MODEL_FILE
from pydantic import Field, FiniteFloat, model_validator
from safetensors import SafetensorError, safe_open

from lary_latentvla.action_tokenizer import ActionTokens
from lary_latentvla.tokenizer_facts import TokenizerConfig
from lary_latentvla.univla_extract import TINY, Univla
from lary_latentvla.univla_facts import UNCONTROLLED, UnivlaConfig

if TYPE_CHECKING:
    import torch
    from lary_schema.cards import ModelCard, ModeSpec
    from lary_worker import Weights

MODEL, ENCODER = "model", "encoder"
"""Names of the weights."""
HEAD_WIDTH = 64
"""Numbers of one attention head, in the released sizes: 768 / 12."""
SIZE, PATCH = 224, 14
Shapes = dict[str, tuple[int, ...]]
D = TypeVar("D", bound=Document)


class UnivlaFile(Document):
    """`config.json` next to a file of UniVLA or P2T."""

    text_states: Literal["text", "encoded"] | None = None
    """Of stage 1: what its decoder was given. Files from before 2025-08-21 and after have equal names."""


class TokenizerFile(Document):
    """`config.json` next to the three parts of `tokenizer_step_N.pt`."""

    steps: int = Field(ge=1)
    """T of its chunks."""
    low: tuple[FiniteFloat, ...] = Field(min_length=1)
    """What of each dimension became -1 in its training: a quantile or the minimum; physical units."""
    high: tuple[FiniteFloat, ...]
    """And 1. A dimension in which the two are equal passes through as it is."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} numbers, high {len(self.high)}; each dimension has both")
        if wrong := [n for n, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low > high]:
            raise ValueError(f"low is above high in dimension {wrong[0]} (counted from 0)")
        return self


def _folder(key: str) -> Path:
    return Mounts.from_env().weights / key


def _read(folder: Path, kind: type[D]) -> D:
    try:
        return kind.read(folder / CONFIG_FILE)
    except ContractError as error:
        raise WeightsError(f"{error}; the README of the image latentvla says what belongs there") from None


def _shapes(path: Path) -> Shapes:
    """Of all tensors, by their names in the network."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({error}); convert the released file again"
        ) from None
    return {name.removeprefix("state_dict.").removeprefix("lam."): shape for name, shape in found.items()}


def _own_weights(card: ModelCard, key: str) -> dict[str, object]:
    """Of a family's card: what makes it that of one key."""
    weights = tuple(spec.model_copy(update={"path": spec.path.replace("{key}", key)}) for spec in card.weights)
    return {"key": key, "pattern": None, "example": None, "weights": weights}


# --- UniVLA -----------------------------------------------------------------------------------


def read_univla(folder: Path) -> UnivlaConfig:
    """The sizes of the file in a folder, and what its `config.json` says. No tensor is read.

    Raises WeightsError for another model's file, and where `text_states` is missing or has no meaning.
    """
    path, states = folder / MODEL_FILE, _read(folder, UnivlaFile).text_states
    shapes = _shapes(path)
    reads_text = "lang_proj.weight" in shapes
    if reads_text and states is None:
        raise WeightsError(
            f"{path}: is of stage 1, whose decoder reads text. Files from before 2025-08-21 and after mean other "
            f'things: write {{"text_states": "encoded"}} (before) or {{"text_states": "text"}} (after) into '
            f"{folder / CONFIG_FILE}"
        )
    try:
        config = _config(shapes, states or "text")
    except KeyError as error:
        raise WeightsError(f"{path}: has no {error}; this is no latent action model of UniVLA") from None
    except ValueError as error:
        raise WeightsError(f"{path}: its shapes are not those of UniVLA: {str(error).splitlines()[0]}") from None
    if not reads_text and states is not None:
        raise WeightsError(
            f"{path}: reads no text (it is of stage {config.stage}); leave text_states out of {folder / CONFIG_FILE}"
        )
    return config


def _config(shapes: Shapes, states: Literal["text", "encoded"]) -> UnivlaConfig:
    codes, code_width = shapes["vq.codebook.weight"]
    width, _ = shapes["patch_up.weight"]
    _, _, tokens, _ = shapes["action_latent"]
    return UnivlaConfig(
        stage=2 if "vq_action.codebook.weight" in shapes else 1,
        size=SIZE,
        patch=PATCH,
        width=width,
        heads=max(1, width // HEAD_WIDTH),
        encoder_layers=_layers(shapes, "encoder"),
        decoder_layers=_layers(shapes, "decoder"),
        tokens=tokens,
        codes=codes,
        code_width=code_width,
        encoder="dinov2-b-reg",
        text="t5-base" if "lang_proj.weight" in shapes else "none",
        text_states=states,
    )


def _layers(shapes: Shapes, part: str) -> int:
    numbers = {int(found[1]) for name in shapes if (found := re.match(rf"{part}\.transformer_blocks\.(\d+)\.", name))}
    if not numbers:
        raise KeyError(f"{part}.transformer_blocks.0")
    return max(numbers) + 1


class ReleasedUnivla(Univla):
    """Variants as of one that was trained here. No text is read, and so neither is T5."""

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The facts of the folder `key` below the weights. Raises WeightsError for one that cannot be read."""
        own = _own_weights(card, key)
        if key == card.example and not _folder(key).exists():
            return card.model_copy(update=own)
        config = read_univla(_folder(key))
        facts = {
            "title": f"UniVLA, stage {config.stage}, as released, from {key}",
            "modes": pair_modes(SIZE, 1, config.tokens, config.code_width),
            "variants": (*VARIANTS, UNCONTROLLED) if config.stage == 2 else VARIANTS,
            "variant_modes": {"onehot": pair_modes(SIZE, 1, config.tokens, config.codes)},
            "preprocessing": preprocessing_id(config),
        }
        return card.model_copy(update=own | facts)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_parts.encoders import make_encoder
        from lary_worker.checkpoints import read_state

        from lary_latentvla.text import T5_WIDTH, TextEncoder
        from lary_latentvla.univla_checkpoint import load_released
        from lary_latentvla.univla_network import UnivlaLam

        class Unread(TextEncoder):
            """In the place of T5, for the layer behind it, which the file has."""

            width = T5_WIDTH

        path = weights[MODEL] / MODEL_FILE
        config = read_univla(weights[MODEL])
        text = None if config.text == "none" else Unread()
        network = UnivlaLam(config, make_encoder(config, weights[ENCODER]), text)
        load_released(network, read_state(path, entry="state_dict"), path)
        self.use(network, config.codes, 1, device, dtype)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A small network of the shapes of the family's example."""
        from lary_parts.encoders import make_encoder

        from lary_latentvla.univla_network import make_univla

        config = TINY.model_copy(update={"size": SIZE, "patch": PATCH, "code_width": 128})
        self.use(make_univla(config, make_encoder(config, None), 0), config.codes, 1, device, dtype)


# --- the action tokenizer ---------------------------------------------------------------------


class ReleasedTokenizer(ActionTokens):
    """Variants as of one that was trained here; sizes are the published ones."""

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The facts of the folder `key` below the weights. Raises WeightsError for one that cannot be read."""
        own = _own_weights(card, key)
        if key == card.example and not _folder(key).exists():
            return card.model_copy(update=own)
        file = _read(_folder(key), TokenizerFile)

        def sized(spec: ModeSpec) -> ModeSpec:
            steps, dim = file.steps, len(file.low)
            update = {"tokens": (steps, *spec.tokens[1:]), "indices": (steps, 1)}
            return spec.model_copy(update=update | {"input": spec.input.model_copy(update={"shape": (steps, dim)})})

        facts = {
            "title": f"action tokenizer of From Pixels to Tokens, as released, from {key}",
            "modes": {mode: sized(spec) for mode, spec in card.modes.items()},
            "variant_modes": {
                name: {mode: sized(spec) for mode, spec in modes.items()} for name, modes in card.variant_modes.items()
            },
        }
        return card.model_copy(update=own | facts)

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_latentvla.action_range import ActionRange
        from lary_latentvla.tokenizer_checkpoint import load_released
        from lary_latentvla.tokenizer_network import ActionTokenizer

        folder = weights[MODEL]
        file = _read(folder, TokenizerFile)
        # Always in float32: a code's number must not depend on the precision that is asked for.
        network = ActionTokenizer(TokenizerConfig(), len(file.low))
        load_released(network, folder)
        self.range = ActionRange.parse({"low": file.low, "high": file.high})
        self.network = network.eval().to(device)
