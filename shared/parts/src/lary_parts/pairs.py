"""Facts of models that make a latent of each pair of frames: modes, read-outs, preprocessing, card. Without torch."""

from typing import Protocol

from lary_schema.cards import Mode, ModelCard, ModeSpec, TensorSpec, WeightSpec
from lary_schema.trained import CHECKPOINT
from lary_schema.training import Recipe

from lary_parts.settings import ENCODER_WEIGHTS, EncoderSettings

VARIANTS = ("embed", "codebook", "onehot")
"""Before the quantiser (the default), the nearest code's vector, its number as a one-hot vector."""
CLIP_FRAMES = 9
"""Sampled frames of a clip in `video` mode."""
DATA_LICENSE = "that of its training data"


class PairSettings(EncoderSettings, Protocol):
    """What a configuration says of an encoder and of a codebook."""

    @property
    def codes(self) -> int: ...

    @property
    def code_width(self) -> int: ...


def preprocessing_id(settings: EncoderSettings) -> str:
    """Names what pixels go through."""
    return f"area-{settings.size}-{settings.pixel_convention}"


def checkpoint_weight() -> WeightSpec:
    """The folder of a model's training: optional, since it is no file that a user provides; the plan adds it."""
    return WeightSpec(name=CHECKPOINT, path=CHECKPOINT, optional=True, license=DATA_LICENSE)


def pair_modes(size: int, dt: int, tokens: int, width: int, *, coded: bool = True) -> dict[Mode, ModeSpec]:
    """Latents of `tokens` x `width`, with as many indices where they are `coded`.

    `image`: a pair of frames; `video`: of a clip every two frames `dt` apart give a time step, where it has any.
    """

    def spec(frames: int, pairs: int, time_axis: bool) -> ModeSpec:
        return ModeSpec(
            input=TensorSpec(shape=(frames, size, size, 3), dtype="uint8"),
            tokens=(pairs, tokens, width),
            indices=(pairs, tokens) if coded else None,
            time_axis=time_axis,
        )

    modes: dict[Mode, ModeSpec] = {"image": spec(2, 1, False)}
    if dt < CLIP_FRAMES:
        modes["video"] = spec(CLIP_FRAMES, CLIP_FRAMES - dt, True)
    return modes


def pair_card(
    recipe: Recipe,
    settings: PairSettings,
    tokens: int,
    *,
    source: str,
    variants: tuple[str, ...] = VARIANTS,
    weights: tuple[WeightSpec, ...] = (),
) -> ModelCard:
    """The facts of what a recipe trains: `tokens` codes of a pair. `weights`: beyond checkpoint and encoder."""
    encoder = ENCODER_WEIGHTS.get(settings.encoder)
    dt = recipe.dt or 1
    return ModelCard(
        key=recipe.key,
        title=recipe.title,
        paradigm="general-lam",
        modes=pair_modes(settings.size, dt, tokens, settings.code_width),
        variants=variants,
        variant_modes={"onehot": pair_modes(settings.size, dt, tokens, settings.codes)},
        preprocessing=preprocessing_id(settings),
        draws=False,
        revision=1,
        batch_size=64 if encoder is None else 16,
        weights=(checkpoint_weight(), *((encoder,) if encoder else ()), *weights),
        license=DATA_LICENSE,
        source=source,
    )
