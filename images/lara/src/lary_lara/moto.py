"""The trainee `moto`: a latent motion tokenizer from frames alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.frames import resize_area
from lary_parts.settings import check_losses
from lary_schema.base import ContractError, WeightsError
from lary_trainer.trainee import Batch, Facts, Outputs, Trainee

from lary_lara.facts import LPIPS_TERM, MotoConfig, model_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from lary_schema.cards import ModelCard
    from lary_schema.training import Recipe
    from numpy.typing import NDArray
    from torch import nn

    from lary_lara.network import Tokenizer

COLLAPSED = 4.0
"""Perplexity below which a codebook has collapsed."""
STATIC = 1e-6
"""Mean squared difference between the frames below which nothing moves."""


class MotoTrainee(Trainee):
    """Terms: `pixels` (mean squared error), `quantiser` (0 without a latent), and where the recipe names it `lpips`."""

    config: MotoConfig

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        super().__init__(recipe, facts, seed)
        self.config = self.read_config(recipe)

    @classmethod
    def read_config(cls, recipe: Recipe) -> MotoConfig:
        """The tokenizer's sizes and switches. Raises ContractError for what it does not know."""
        return MotoConfig.parse(recipe.config, f"recipe {recipe.key}: config")

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        config = cls.read_config(recipe)
        coded = set() if config.latent == "none" else {"quantiser"}
        check_losses(recipe, {"pixels"} | coded, {"quantiser", LPIPS_TERM} - coded)
        return model_card(recipe, config)

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_area(frames, self.config.size)

    # --- the network ------------------------------------------------------------------------------

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        network = self.build_tokenizer(self.config, init)
        self.perceptual = self._perceptual(init, device)
        return network.to(device)

    def build_tokenizer(self, config: MotoConfig, init: Mapping[str, Path]) -> Tokenizer:
        """On the CPU: as it is drawn from the seed, or from the checkpoint `start`."""
        from lary_parts.encoders import make_encoder

        from lary_lara.checkpoint import load_tokenizer
        from lary_lara.network import make_tokenizer

        network = make_tokenizer(config, make_encoder(config, init.get("encoder")), self.seed)
        if "start" in init:
            load_tokenizer(network, init["start"])
        return network

    def _perceptual(self, init: Mapping[str, Path], device: torch.device) -> Any:
        if LPIPS_TERM not in self.recipe.losses:
            return None
        if LPIPS_TERM not in init:
            raise WeightsError(
                f"recipe {self.recipe.key}: losses.lpips needs the weights of VGG16 and of LPIPS in one file, given as "
                "init 'lpips' (see images/lara/README.md); without them take the term out of the recipe"
            )
        from lary_lara.perceptual import load_perceptual

        return load_perceptual(init[LPIPS_TERM], device)

    # --- a step -----------------------------------------------------------------------------------

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        return self.forward_tokenizer(_tokenizer(network), batch)

    def forward_tokenizer(self, tokenizer: Tokenizer, batch: Batch) -> Outputs:
        """Squared errors per row, and the latent."""
        first, target = tokenizer.pixels(batch.frames).unbind(1)
        latent = tokenizer.latent(tokenizer.features(first), tokenizer.features(target))
        predicted = tokenizer.decode(first, tokenizer.carried(latent))
        outputs = {"pixels": (predicted - target).square().flatten(1).mean(1)}
        if self.config.latent != "none":
            outputs |= {
                "embeddings": latent.embeddings,
                "codes": latent.codes if tokenizer.vector_quantizer.quantises else latent.embeddings.detach(),
                "indices": latent.indices,
            }
        if self.perceptual is not None:
            outputs[LPIPS_TERM] = self.perceptual(predicted, target, self.config.pixel_convention)
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        from lary_parts.quantiser import quantiser_loss

        terms = {"pixels": outputs["pixels"].mean()}
        if "embeddings" in outputs:
            terms["quantiser"] = quantiser_loss(self.config.quantiser, outputs["embeddings"], outputs["codes"])
        if LPIPS_TERM in outputs:
            terms[LPIPS_TERM] = outputs[LPIPS_TERM].mean()
        off = {"quantiser"} & set(self.recipe.losses) - set(terms)
        return terms | {name: outputs["pixels"].new_zeros(()) for name in off}

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        from lary_trainer.chance import stream

        if "embeddings" in outputs:
            generator = stream(batch.seed, "codebook", batch.step)
            _tokenizer(network).vector_quantizer.update(
                outputs["embeddings"], outputs["indices"], batch.step, generator
            )

    # --- what comes of it -------------------------------------------------------------------------

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        from lary_lara.measures import measure_tokenizer

        return measure_tokenizer(_tokenizer(network), batches)

    def picture(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> NDArray[np.uint8] | None:
        from lary_lara.pictures import draw_pairs

        return draw_pairs(_tokenizer(network), batches)

    def health(self, measured: Mapping[str, float]) -> list[str]:
        found = []
        if measured.get("copy", 1.0) < STATIC:
            found.append("the two frames of every held-out pair are alike: copying is perfect, and rec says nothing")
        if measured.get("perplexity", COLLAPSED) < COLLAPSED:
            found.append(
                f"{measured['codes_used']:.0f} of {self.config.codes} codes in use (perplexity "
                f"{measured['perplexity']:.1f}); the codebook has collapsed"
            )
        return found

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from lary_lara.checkpoint import config_document

        return _tokenizer(network).kept_state(), config_document(self.recipe, self.config)


def _tokenizer(network: nn.Module) -> Tokenizer:
    from lary_lara.network import Tokenizer

    if not isinstance(network, Tokenizer):
        raise ContractError(f"a Tokenizer is expected, not {type(network).__name__}")
    return network
