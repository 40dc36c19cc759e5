"""What recipes may say of a vision-language-action model, and what its card says. Without torch."""

from typing import Literal, NamedTuple, Self

from lary_parts.pairs import DATA_LICENSE, checkpoint_weight
from lary_schema.base import ContractError, Document
from lary_schema.cards import ModelCard, ModeSpec, TensorSpec, WeightSpec
from lary_schema.training import Recipe
from pydantic import Field, model_validator

Strategy = Literal["baseline", "la-align", "la-direct", "la-cond", "la-tok"]
BackboneKey = Literal["qwen3-vl-tiny", "smolvlm-tiny", "smolvlm-256m", "smolvlm-500m", "qwen3-vl-2b"]

TERMS: dict[Strategy, tuple[str, ...]] = {
    "baseline": ("actions",),
    "la-align": ("actions", "alignment"),
    "la-direct": ("actions", "labels"),
    "la-cond": ("actions", "labels"),
    "la-tok": ("actions", "labels"),
}
"""Of each strategy: the losses that it computes."""


class BackboneFacts(NamedTuple):
    """Of an image-text model."""

    family: Literal["qwen3-vl", "smolvlm"]
    width: int
    """Of its hidden states."""
    pixels: int
    """A frame's height and width must be multiples of it."""
    weights: WeightSpec | None
    """None: drawn, not downloaded."""


def _downloaded(repo: str) -> WeightSpec:
    name = repo.rpartition("/")[2].lower()
    return WeightSpec(name="backbone", path=name, env="VLA_BACKBONE_MODEL_PATH", repo=repo, license="Apache-2.0")


BACKBONES: dict[BackboneKey, BackboneFacts] = {
    "qwen3-vl-tiny": BackboneFacts("qwen3-vl", 64, 32, None),
    "smolvlm-tiny": BackboneFacts("smolvlm", 64, 32, None),
    "smolvlm-256m": BackboneFacts("smolvlm", 576, 512, _downloaded("HuggingFaceTB/SmolVLM2-256M-Video-Instruct")),
    "smolvlm-500m": BackboneFacts("smolvlm", 960, 512, _downloaded("HuggingFaceTB/SmolVLM2-500M-Video-Instruct")),
    "qwen3-vl-2b": BackboneFacts("qwen3-vl", 2048, 32, _downloaded("Qwen/Qwen3-VL-2B-Instruct")),
}


class Lora(Document):
    """Low-rank adapters on every linear layer; the rest of the backbone is frozen, new tokens apart."""

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)


class VlaConfig(Document):
    """Strategy, sizes and switches."""

    strategy: Strategy = "baseline"
    backbone: BackboneKey
    size: int = Field(ge=1)
    """Height and width of a frame, pixels."""
    chunk: int = Field(ge=1)
    """N: steps of an action chunk."""
    latent_tokens: int = Field(default=4, ge=1)
    """K: codes of a latent label."""
    compute: Literal["matched", "released"] = "matched"
    """Placeholders: (K + 1) N in every strategy, or the paper's numbers."""
    prompt: str = "{instruction}"
    """What the model is asked."""
    head_width: int = Field(default=64, ge=2)
    head_blocks: int = Field(default=4, ge=1)
    head_heads: int = Field(default=4, ge=1)
    align_layer: int = -2
    """Of the hidden states: entry 0 is what goes into the first layer."""
    align_width: int = Field(default=256, ge=1)
    lora: Lora | None = None

    @property
    def facts(self) -> BackboneFacts:
        return BACKBONES[self.backbone]

    @property
    def slots(self) -> tuple[int, int]:
        """Placeholders for latents and for actions."""
        latent = self.latent_tokens * self.chunk
        if self.compute == "released":
            return (0 if self.strategy == "la-tok" else latent, 0 if self.strategy == "la-direct" else self.chunk)
        return latent, self.chunk

    @property
    def labelled(self) -> Literal["none", "latent", "action"]:
        """Which placeholders have a label."""
        if self.strategy == "la-tok":
            return "action"
        return "latent" if self.strategy in ("la-direct", "la-cond") else "none"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % self.facts.pixels:
            raise ValueError(f"size {self.size} is no multiple of {self.facts.pixels}, as {self.backbone} needs it")
        if self.head_width % self.head_heads:
            raise ValueError(f"head_heads {self.head_heads} do not divide head_width {self.head_width}")
        if "{instruction}" not in self.prompt:
            raise ValueError("prompt has no {instruction}")
        return self


def read_config(recipe: Recipe) -> VlaConfig:
    """Raises ContractError naming unknown keys, values that do not fit, and terms that the strategy does not have."""
    config = VlaConfig.parse(recipe.config, f"recipe {recipe.key}: config")
    terms = TERMS[config.strategy]
    if set(recipe.losses) != set(terms):
        raise ContractError(
            f"recipe {recipe.key}: losses: strategy {config.strategy} computes {', '.join(terms)}; give each a weight, "
            f"and no other (given: {', '.join(recipe.losses) or 'none'})"
        )
    return config


def model_card(recipe: Recipe, config: VlaConfig) -> ModelCard:
    """The facts of what a recipe trains. Its latent: hidden states at the placeholders, of the first frame alone."""
    backbone = config.facts.weights
    return ModelCard(
        key=recipe.key,
        title=recipe.title,
        paradigm="semantic",
        modes={
            "image": ModeSpec(
                input=TensorSpec(shape=(2, config.size, config.size, 3), dtype="uint8"),
                tokens=(1, sum(config.slots), config.facts.width),
                time_axis=False,
            )
        },
        variants=("embed",),
        preprocessing=f"area-{config.size}",
        draws=False,
        revision=1,
        batch_size=32,
        weights=(checkpoint_weight(), *((backbone,) if backbone else ())),
        license=DATA_LICENSE,
        source="trained here; after From Pixels to Tokens (2026), five strategies of supervision",
    )
