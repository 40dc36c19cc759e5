"""What recipes may say of a latent motion tokenizer, and what its card says. Without torch."""

from typing import Literal, Self

from lary_parts.pairs import pair_card
from lary_parts.settings import Convention, EncoderKey, Quantiser, check_encoder
from lary_schema.base import Document
from lary_schema.cards import ModelCard, WeightSpec
from lary_schema.training import Recipe
from pydantic import Field, model_validator

LPIPS_TERM = "lpips"

LPIPS_WEIGHTS = WeightSpec(
    name=LPIPS_TERM,
    path="lpips_vgg.safetensors",
    env="LPIPS_CKPT_PATH",
    optional=True,
    license="BSD-2-Clause",
    note="save lpips.LPIPS(net='vgg').state_dict(); training alone reads it",
)
"""Optional, since extraction does without; a training whose recipe names the term refuses to start without it."""


class MotoConfig(Document):
    """Sizes and switches of the tokenizer. Defaults of switches are the release's."""

    size: int = Field(ge=1)
    """Height and width of a frame, pixels."""
    patch: int = Field(ge=1)
    """Of the decoder, and of the encoders `pixel` and `random-vit`."""
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    encoder_layers: int = Field(ge=1)
    decoder_layers: int = Field(ge=1)
    queries: int = Field(default=8, ge=1)
    codes: int = Field(default=128, ge=2)
    code_width: int = Field(default=32, ge=1)
    encoder: EncoderKey
    pixel_convention: Convention = "imagenet"
    initial: Literal["normal", "fan-in"] = "normal"
    """First weights: normal of deviation .02 as in the release, or of 1 / sqrt(3 inputs) for small widths."""
    target_input: Literal["frame", "difference"] = "frame"
    """What the queries see of the target: its features, or their difference to the first frame's."""
    fusion: Literal["add", "tokens"] = "add"
    """How the decoder gets the code: added to every patch, or as tokens in front of them."""
    residual: bool = False
    """The decoder gives what changes, not the frame."""
    latent: Literal["query", "none"] = "query"
    """`none`: the decoder gets no code: a baseline. What is left to extract is the network as it is drawn."""
    quantiser: Quantiser = Quantiser()

    @property
    def side(self) -> int:
        """Patches along one side of a frame."""
        return self.size // self.patch

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        check_encoder(self)
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4")
        return self


def model_card(recipe: Recipe, config: MotoConfig) -> ModelCard:
    """The facts of what a recipe trains."""
    return pair_card(
        recipe,
        config,
        config.queries,
        weights=(LPIPS_WEIGHTS,) if LPIPS_TERM in recipe.losses else (),
        source="trained here; after Moto (Chen et al., ICCV 2025) and LARA (2026)",
    )
