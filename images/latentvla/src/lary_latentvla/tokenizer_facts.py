"""What recipes may say of an action tokenizer, and what its card says. Without torch."""

from typing import Any, Literal, Self

from lary_parts.pairs import DATA_LICENSE, checkpoint_weight
from lary_schema.base import ContractError, Document
from lary_schema.cards import Mode, ModelCard, ModeSpec, TensorSpec
from lary_schema.training import Recipe
from pydantic import Field, model_validator

TERMS = ("actions", "consistency", "commitment")
VARIANTS = ("codebook", "embed", "onehot")
"""Of each step: its code's vector, the vector before the quantiser, or 1 at its code's number."""
RELEASED: dict[str, Any] = {
    "continuous_steps": 0,
    "start": "normal",
    "decay": 0.99,
    "restart": False,
    "masked_in_statistics": True,
    "consistency_gradient": True,
}
"""The switches as published."""


class TokenizerConfig(Document):
    """Sizes and switches of the tokenizer. Sizes are the published ones by default, switches are not."""

    width: int = Field(default=128, ge=2)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    codes: int = Field(default=256, ge=2)
    mask: float = Field(default=0.15, ge=0, lt=1)
    """Share of the steps of a chunk whose embedding is 0 in training."""
    released: bool = False
    """All switches below as published: for comparison, since that codebook collapses."""
    continuous_steps: int = Field(default=220, ge=0)
    """Steps before quantising begins: the decoder reads embeddings."""
    start: Literal["data", "normal"] = "data"
    """First codes: embeddings of the batch after which quantising begins, or normal numbers whose counts are 0."""
    decay: float = Field(default=0.9, gt=0, lt=1)
    """Of the running means that the codes follow."""
    restart: bool = True
    """Codes unused for `unused_steps` start again from embeddings of the batch."""
    unused_steps: int = Field(default=25, ge=1)
    masked_in_statistics: bool = False
    """Whether the zeros of masked steps move the codes."""
    consistency_gradient: bool = False
    """Whether the target of the consistency term is trained by it."""

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, data: Any) -> Any:
        if not (isinstance(data, dict) and data.get("released") is True):
            return data
        if other := sorted(name for name, value in RELEASED.items() if data.get(name, value) != value):
            raise ValueError(f"released: true sets {', '.join(other)}; leave one of the two out")
        return {**data, **RELEASED}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        if self.start == "data" and not self.continuous_steps:
            raise ValueError("start: data takes the codes from a batch, so continuous_steps must be 1 or more")
        return self


def read_config(recipe: Recipe) -> TokenizerConfig:
    """Raises ContractError naming unknown keys, values that do not fit, and terms that are not `TERMS`."""
    config = TokenizerConfig.parse(recipe.config, f"recipe {recipe.key}: config")
    if set(recipe.losses) != set(TERMS):
        raise ContractError(f"recipe {recipe.key}: losses: give a weight to each of {', '.join(TERMS)}, and no other")
    return config


def _reads(width: int) -> dict[Mode, ModeSpec]:
    """Vectors of `width` numbers and a code for each step; steps and dimensions are the data's."""
    chunk = TensorSpec(shape=(0, 0), dtype="float32")
    return {"actions": ModeSpec(input=chunk, tokens=(0, 1, width), indices=(0, 1))}


def model_card(recipe: Recipe, config: TokenizerConfig) -> ModelCard:
    """The facts of what a recipe trains. It reads actions and no frames."""
    return ModelCard(
        key=recipe.key,
        title=recipe.title,
        paradigm="baseline",
        modes=_reads(config.width),
        variants=VARIANTS,
        variant_modes={"onehot": _reads(config.codes)},
        preprocessing="actions",
        draws=False,
        revision=1,
        batch_size=256,
        weights=(checkpoint_weight(),),
        license=DATA_LICENSE,
        source="trained here; after From Pixels to Tokens (2026), action tokenizer",
    )
