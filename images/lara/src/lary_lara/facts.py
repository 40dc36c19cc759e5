"""What recipes may say of a latent motion tokenizer, and what its card says. Without torch."""

from typing import Any, Literal, Self

from lary_schema.base import ContractError, Document
from lary_schema.cards import Mode, ModelCard, ModeSpec, TensorSpec, WeightSpec
from lary_schema.trained import CHECKPOINT
from lary_schema.training import Recipe
from pydantic import Field, model_validator

Convention = Literal["imagenet", "unit"]
"""How pixels are fed: [0, 1] less ImageNet's mean over its deviation, or [0, 1] as they are."""
EncoderKey = Literal["pixel", "random-vit", "mae-l", "dinov2-b-reg"]

VARIANTS = ("embed", "codebook", "onehot")
"""Of the read-out: before the quantiser (the default), the nearest code's vector, its number as a one-hot vector."""
CLIP_FRAMES = 9
"""Sampled frames of a clip in `video` mode."""
LPIPS_TERM = "lpips"

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
LPIPS_WEIGHTS = WeightSpec(
    name=LPIPS_TERM,
    path="lpips_vgg.safetensors",
    env="LPIPS_CKPT_PATH",
    optional=True,
    license="BSD-2-Clause",
    note="save lpips.LPIPS(net='vgg').state_dict(); training alone reads it",
)
"""Optional, since extraction does without; a training whose recipe names the term refuses to start without it."""


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
        if self.size % self.patch:
            raise ValueError(f"patch {self.patch} does not divide size {self.size}")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4")
        if self.encoder == "mae-l" and self.size != 224:
            raise ValueError("encoder mae-l reads frames of size 224")
        if self.encoder == "dinov2-b-reg" and self.size % 14:
            raise ValueError("encoder dinov2-b-reg needs a size that 14 divides")
        if self.encoder in ENCODER_WEIGHTS and self.pixel_convention != "imagenet":
            raise ValueError(f"encoder {self.encoder} was trained with pixel_convention imagenet")
        return self


def parse_config(config: dict[str, Any], where: str) -> MotoConfig:
    """The tokenizer's part of a recipe. Raises ContractError naming unknown keys and values that do not fit."""
    return MotoConfig.parse(config, where)


def check_losses(recipe: Recipe, needed: set[str], optional: set[str]) -> None:
    """Raises ContractError where the recipe's terms are not those that this trainee computes."""
    named = set(recipe.losses)
    problems = [f"without a weight: {', '.join(sorted(needed - named))}"] if needed - named else []
    if unknown := named - needed - optional:
        problems.append(f"unknown: {', '.join(sorted(unknown))}")
    if problems:
        known = ", ".join(sorted(needed | optional))
        raise ContractError(f"recipe {recipe.key}: losses: {'; '.join(problems)}; it computes {known}")


def preprocessing_id(config: MotoConfig) -> str:
    """Names what pixels go through."""
    return f"area-{config.size}-{config.pixel_convention}"


def _modes(config: MotoConfig, dt: int, variant: str) -> dict[Mode, ModeSpec]:
    width = config.codes if variant == "onehot" else config.code_width

    def spec(frames: int, pairs: int, time_axis: bool) -> ModeSpec:
        return ModeSpec(
            input=TensorSpec(shape=(frames, config.size, config.size, 3), dtype="uint8"),
            tokens=(pairs, config.queries, width),
            indices=(pairs, config.queries),
            time_axis=time_axis,
        )

    modes: dict[Mode, ModeSpec] = {"image": spec(2, 1, False)}
    if dt < CLIP_FRAMES:
        modes["video"] = spec(CLIP_FRAMES, CLIP_FRAMES - dt, True)
    return modes


def model_card(recipe: Recipe, config: MotoConfig) -> ModelCard:
    """The facts of what a recipe trains. Of clips every pair of frames `dt` apart gives a time step."""
    encoder = ENCODER_WEIGHTS.get(config.encoder)
    perceptual = (LPIPS_WEIGHTS,) if LPIPS_TERM in recipe.losses else ()
    dt = recipe.dt or 1
    # Optional, since it is no file that a user provides: the plan adds the folder of the training.
    checkpoint = WeightSpec(name=CHECKPOINT, path=CHECKPOINT, optional=True, license="that of its training data")
    return ModelCard(
        key=recipe.key,
        title=recipe.title,
        paradigm="general-lam",
        modes=_modes(config, dt, "embed"),
        variants=VARIANTS,
        variant_modes={"onehot": _modes(config, dt, "onehot")},
        preprocessing=preprocessing_id(config),
        draws=False,
        revision=1,
        batch_size=64 if encoder is None else 16,
        weights=(checkpoint, *((encoder,) if encoder else ()), *perceptual),
        license="that of its training data",
        source="trained here; after Moto (Chen et al., ICCV 2025) and LARA (2026)",
    )
