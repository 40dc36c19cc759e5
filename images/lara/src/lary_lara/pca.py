"""Principal components of the difference of two frames: what a linear code of as many numbers holds. A baseline.

The trainee takes one step, whose batch should be all rows, and sets the components in closed form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from lary_parts.frames import resize_area
from lary_parts.pair_model import FramesModel
from lary_parts.pairs import DATA_LICENSE, checkpoint_weight, pair_modes
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.cards import ModelCard
from lary_schema.training import CONFIG_FILE, MODEL_FILE, Recipe
from lary_trainer.trainee import Batch, Facts, Outputs, Trainee
from lary_worker import Latents, Weights
from pydantic import Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from lary_lara.pca_network import Components


class PcaConfig(Document):
    """`config:` of a recipe."""

    size: int = Field(ge=1)
    """Height and width to which frames are brought, pixels."""
    components: int = Field(ge=1)
    """Numbers of a latent."""

    @property
    def width(self) -> int:
        """Numbers of a difference."""
        return 3 * self.size**2

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> Self:
        if self.components > self.width:
            raise ValueError(f"components {self.components}: a difference of size {self.size} has {self.width} numbers")
        return self


class PcaTrainee(Trainee):
    """Term: `pixels`, the mean squared error that the components of the step before leave."""

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        super().__init__(recipe, facts, seed)
        self.config = _config(recipe)

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        config = _config(recipe)
        if recipe.steps != 1 or set(recipe.losses) != {"pixels"}:
            raise ContractError(
                f"recipe {recipe.key}: components are set in closed form by one step; write steps: 1, losses: "
                "{pixels: 1.0}, and a batch_size of all rows"
            )
        return _card(recipe, config)

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_area(frames, self.config.size)

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        from lary_lara.pca_network import Components

        if init:
            raise WeightsError(f"recipe {self.recipe.key}: takes no weights, not {', '.join(init)}")
        return Components(self.config.components, self.config.width).to(device)

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        from lary_lara.pca_network import differences

        found = differences(batch.frames, 1)[:, 0]
        return {"pixels": _components(network).left_over(found), "differences": found}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        return {"pixels": outputs["pixels"].mean()}

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        """In place of what the optimiser made of them."""
        _components(network).fit(outputs["differences"])

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """`rec`: mean squared error of the second frame from the first and the latent; `copy`: from the first alone."""
        rec = copy = 0.0
        rows = 0
        for batch in batches():
            outputs = self.forward(network, batch)
            rec += float(outputs["pixels"].sum())
            copy += float(outputs["differences"].square().mean(1).sum())
            rows += len(batch.rows)
        return {"rec": rec / rows, "copy": copy / rows}

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        config = {"trainee": self.recipe.trainee, "recipe": self.recipe.key, "dt": self.recipe.dt}
        return dict(_components(network).state_dict()), config | self.config.model_dump()


class Pca(FramesModel):
    """A latent of one token: the components of the difference, each over its deviation in training."""

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        folder = self.checkpoint(weights)
        from lary_worker.checkpoints import load_strict, read_config, read_state

        network = self._empty()
        load_strict(network, read_state(folder / MODEL_FILE), folder / MODEL_FILE)
        self._place(network, read_config(folder / CONFIG_FILE).get("dt"), device)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import torch

        network = self._empty()
        torch.nn.init.normal_(network.components, generator=torch.Generator().manual_seed(0))
        self._place(network, None, device)

    def _empty(self) -> Components:
        from lary_lara.pca_network import Components

        return Components(self.spec.tokens[2], 3 * self.spec.input.shape[1] ** 2)

    def _place(self, network: Components, dt: int | None, device: torch.device) -> None:
        # Always in float32: differences of bytes are small against what bfloat16 resolves.
        self.network, self.dt = network.to(device).eval(), 1 if self.mode == "image" else (dt or 1)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """uint8 (B, T, S, S, 3): a latent for each pair of frames `dt` apart, of an image pair for its two."""
        from lary_lara.pca_network import differences

        return Latents(self.network.latent(differences(batch, self.dt))[:, :, None])


def _config(recipe: Recipe) -> PcaConfig:
    return PcaConfig.parse(recipe.config, f"recipe {recipe.key}: config")


def _components(network: nn.Module) -> Components:
    from lary_lara.pca_network import Components

    if not isinstance(network, Components):
        raise ContractError(f"Components are expected, not {type(network).__name__}")
    return network


def _card(recipe: Recipe, config: PcaConfig) -> ModelCard:
    return ModelCard(
        key=recipe.key,
        title=recipe.title,
        paradigm="baseline",
        modes=pair_modes(config.size, recipe.dt or 1, 1, config.components, coded=False),
        variants=("embed",),
        preprocessing=f"area-{config.size}",
        draws=False,
        revision=1,
        batch_size=256,
        weights=(checkpoint_weight(),),
        license=DATA_LICENSE,
        source="trained here: principal components of the difference of the frames",
    )
