"""What recipes may say of the shared parts. Without torch."""

from typing import Literal, Protocol, Self

from lary_schema.base import ContractError, Document
from lary_schema.cards import WeightSpec
from lary_schema.training import Recipe
from pydantic import Field, model_validator

Convention = Literal["imagenet", "unit"]
"""How pixels are fed: [0, 1] less ImageNet's mean over its deviation, or [0, 1] as they are."""
EncoderKey = Literal["pixel", "random-vit", "mae-l", "dinov2-b-reg"]

PIXELS = {
    "imagenet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "unit": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
}
"""Of each convention, as `config.json` of a checkpoint says it."""

ENCODER_WEIGHTS = {
    "mae-l": WeightSpec(
        name="encoder",
        path="vit-mae-large",
        env="MAE_L_CKPT_PATH",
        repo="facebook/vit-mae-large",
        files=("config.json", "model.safetensors"),
        license="Apache-2.0",
    ),
    "dinov2-b-reg": WeightSpec(
        name="encoder",
        path="dinov2-with-registers-base",
        env="DINO_V2_REG_CKPT_PATH",
        repo="facebook/dinov2-with-registers-base",
        files=("config.json", "model.safetensors"),
        license="Apache-2.0",
    ),
}
"""Of frozen encoders that are downloaded."""


class EncoderSettings(Protocol):
    """What `encoders.make_encoder` reads of a configuration."""

    @property
    def encoder(self) -> EncoderKey: ...

    @property
    def size(self) -> int:
        """Height and width of a frame, pixels."""
        ...

    @property
    def patch(self) -> int:
        """Height and width of a patch of `pixel` and `random-vit`."""
        ...

    @property
    def pixel_convention(self) -> Convention: ...


def check_encoder(settings: EncoderSettings) -> None:
    """Raises ValueError where an encoder cannot read frames of that size, patch or convention."""
    if settings.size % settings.patch:
        raise ValueError(f"patch {settings.patch} does not divide size {settings.size}")
    if settings.encoder == "mae-l" and settings.size != 224:
        raise ValueError("encoder mae-l reads frames of size 224")
    if settings.encoder == "dinov2-b-reg" and settings.size % 14:
        raise ValueError("encoder dinov2-b-reg needs a size that 14 divides")
    if settings.encoder in ENCODER_WEIGHTS and settings.pixel_convention != "imagenet":
        raise ValueError(f"encoder {settings.encoder} was trained with pixel_convention imagenet")


class Quantiser(Document):
    """The codebook, shared by all queries."""

    kind: Literal["gradient", "ema"] = "gradient"
    """`gradient`: the codebook is a parameter; `ema`: it follows the running means of what was assigned to it."""
    order: Literal["legacy", "standard"] = "standard"
    """Where `beta` stands: on the codebook's term, as in the release, or on the commitment."""
    beta: float = Field(default=0.25, ge=0)
    start: Literal["uniform", "data"] = "uniform"
    """First codes: uniform in +-1/codes, or embeddings of the batch after which quantising begins."""
    continuous_steps: int = Field(default=0, ge=0)
    """Steps before quantising begins: the decoder reads the embedding itself."""
    restart: bool = False
    """Codes unused for 50 steps start again from embeddings of the batch."""
    decay: float = Field(default=0.99, gt=0, lt=1)
    """Of the running means (`ema`)."""

    @model_validator(mode="after")
    def _data_need_a_batch(self) -> Self:
        if self.start == "data" and self.continuous_steps == 0:
            raise ValueError("start: data takes the codes from a batch, so continuous_steps must be 1 or more")
        return self


def check_losses(recipe: Recipe, needed: set[str], optional: set[str]) -> None:
    """Raises ContractError where the recipe's terms are not those that this trainee computes."""
    named = set(recipe.losses)
    problems = [f"without a weight: {', '.join(sorted(needed - named))}"] if needed - named else []
    if unknown := named - needed - optional:
        problems.append(f"unknown: {', '.join(sorted(unknown))}")
    if problems:
        known = ", ".join(sorted(needed | optional))
        raise ContractError(f"recipe {recipe.key}: losses: {'; '.join(problems)}; it computes {known}")
