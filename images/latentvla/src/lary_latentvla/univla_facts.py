"""What recipes may say of a two-stage latent action model, and what its card says. Without torch."""

from typing import Annotated, Literal, Self

from lary_parts.pairs import VARIANTS, pair_card
from lary_parts.settings import Convention, EncoderKey, Quantiser, check_encoder, check_losses
from lary_schema.base import Document
from lary_schema.cards import Distinct, ModelCard, WeightSpec
from lary_schema.training import Recipe
from pydantic import Field, model_validator

Text = Literal["none", "words", "t5-base"]
Part = Literal["codebook", "queries", "all"]
"""What stage 2 takes from stage 1: the codebook; the learned tokens that read a frame; the whole network, so far as
both stages have it."""

UNCONTROLLED = "uncontrolled"
"""Of stage 2: the vectors of the other codes, from the codebook of stage 1."""
TEXT_WEIGHTS = WeightSpec(
    name="text",
    path="t5-base",
    env="T5_CKPT_PATH",
    repo="google-t5/t5-base",
    files=("config.json", "model.safetensors", "tokenizer.json"),
    license="Apache-2.0",
)


class Labels(Document):
    """The action labels that an action head sees."""

    share: float = Field(ge=0, le=1)
    """Of all groups (episodes); 0: no head is built."""
    by: Literal["episode"] = "episode"


class UnivlaConfig(Document):
    """Sizes and switches. Defaults of switches are the release's."""

    stage: Literal[1, 2]
    """2: new controllable codes beside those of the frozen codebook of stage 1."""
    size: int = Field(ge=1)
    """Height and width of a frame, pixels."""
    patch: int = Field(ge=1)
    """Of the encoders `pixel` and `random-vit`."""
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    encoder_layers: int = Field(ge=1)
    decoder_layers: int = Field(ge=1)
    tokens: int = Field(default=4, ge=1)
    """Codes of each kind."""
    codes: int = Field(default=16, ge=2)
    """Of each codebook."""
    code_width: int = Field(default=128, ge=1)
    encoder: EncoderKey
    pixel_convention: Convention = "imagenet"
    text: Text = "none"
    text_to: Annotated[tuple[Literal["encoder", "decoder"], ...], Distinct] = ("encoder", "decoder")
    text_states: Literal["text", "encoded"] = "text"
    """What the decoder gets: the text encoder's states (released files since 2025-08-21), or those that have gone
    through the encoder of the codes (files from before)."""
    initial: Literal["normal", "fan-in"] = "fan-in"
    """First weights: normal of deviation .02, or of 1 / sqrt(3 inputs): what torch's layers begin with, as released."""
    target_input: Literal["frame", "difference"] = "frame"
    """What the encoder sees of the second frame: its features, or their difference to the first frame's."""
    residual: bool = False
    """The decoder gives what changes, not the features themselves."""
    latent: Literal["codes", "none"] = "codes"
    """`none`: the decoder gets no code: a baseline. What is left to extract is the network as it is drawn."""
    taken: Annotated[tuple[Part, ...], Distinct] = ("codebook", "queries")
    """Of stage 2."""
    quantiser: Quantiser = Quantiser()
    """Of the codebook that trains: in stage 2 that of the controllable codes."""
    labels: Labels = Labels(share=0)
    head_width: int = Field(default=128, ge=1)
    """Of the action head's hidden layer."""

    @property
    def latent_tokens(self) -> int:
        """Codes of a transition."""
        return self.tokens * self.stage

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        check_encoder(self)
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} is not a multiple of 2 and of heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage == 2 and self.text != "none":
            raise ValueError(f"text: {self.text}: stage 2 reads no text; leave it out")
        if self.stage == 2 and "codebook" not in self.taken and "all" not in self.taken:
            raise ValueError(f"taken: {list(self.taken)}: stage 2 needs the codebook of stage 1; add codebook")
        if self.text != "none" and not self.text_to:
            raise ValueError("text_to: nothing reads the text; write text: none, or name encoder, decoder or both")
        if self.text_states == "encoded" and "encoder" not in self.text_to:
            raise ValueError("text_states: encoded are states of the encoder, and text_to does not name it")
        if self.latent == "none" and self.labels.share:
            raise ValueError("latent: none leaves nothing from which actions are read; write labels: {share: 0}")
        return self


def read_config(recipe: Recipe) -> UnivlaConfig:
    """Raises ContractError naming unknown keys, values that do not fit, and terms without a weight."""
    config = UnivlaConfig.parse(recipe.config, f"recipe {recipe.key}: config")
    terms = {"features"} | (set() if config.latent == "none" else {"quantiser"})
    check_losses(recipe, terms | ({"actions"} if config.labels.share else set()), {"quantiser", "actions"})
    return config


def model_card(recipe: Recipe, config: UnivlaConfig) -> ModelCard:
    """The facts of what a recipe trains. Of stage 2 the latents are the controllable codes."""
    return pair_card(
        recipe,
        config,
        config.tokens,
        variants=(*VARIANTS, UNCONTROLLED) if config.stage == 2 else VARIANTS,
        weights=(TEXT_WEIGHTS,) if config.text == "t5-base" else (),
        source="trained here; after UniVLA (2025) and From Pixels to Tokens (2026)",
    )
