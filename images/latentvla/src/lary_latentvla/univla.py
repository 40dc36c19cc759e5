"""The trainee `univla-lam`: latent actions in two stages.

Stage 1 gives its decoder (and its encoder) the instruction, so that codes need not hold what it says. Stage 2 has new
codes beside those of the frozen codebook of stage 1, and no text: what the first codes leave, the new ones hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.frames import resize_area
from lary_schema.base import ContractError, WeightsError
from lary_trainer.trainee import Batch, Facts, Outputs, Trainee

from lary_latentvla.univla_facts import model_card, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from lary_schema.cards import ModelCard
    from lary_schema.training import Recipe, Supervision
    from numpy.typing import NDArray
    from torch import nn

COLLAPSED = 2.0
"""Perplexity below which a codebook of 16 has collapsed."""
STATIC = 1e-6
"""Mean squared difference between the frames' features below which nothing moves."""


class UnivlaTrainee(Trainee):
    """Terms: `features` (mean squared error), `quantiser` (both codebooks), and with labels `actions`."""

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        super().__init__(recipe, facts, seed)
        self.config = read_config(recipe)

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        return model_card(recipe, read_config(recipe))

    @classmethod
    def supervision(cls, recipe: Recipe) -> Supervision:
        return "weak" if read_config(recipe).labels.share else "none"

    @classmethod
    def reads_text(cls, recipe: Recipe) -> bool:
        return read_config(recipe).text != "none"

    @classmethod
    def label_share(cls, recipe: Recipe) -> float | None:
        return read_config(recipe).labels.share or None

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_area(frames, self.config.size)

    # --- the network ------------------------------------------------------------------------------

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        from lary_parts.encoders import make_encoder

        from lary_latentvla.text import make_text_encoder
        from lary_latentvla.univla_checkpoint import load_checkpoint, read_checkpoint_config, take
        from lary_latentvla.univla_network import make_univla

        config, start = self.config, init.get("start")
        text = make_text_encoder(config.text, self.facts.words, init.get("text"))
        encoder = make_encoder(config, init.get("encoder"))
        network = make_univla(config, encoder, self.seed, text, self._numbers())
        if start is None and config.stage == 2:
            raise WeightsError(f"recipe {self.recipe.key}: stage 2 goes on from a checkpoint of stage 1; give --start")
        if start is not None and config.stage == 2 and read_checkpoint_config(start).univla.stage == 1:
            take(network, start)
        elif start is not None:
            load_checkpoint(network, start, self.facts.words)
        return network.to(device)

    def _numbers(self) -> int | None:
        if not self.config.labels.share:
            return None
        if self.facts.action_shape is None:
            raise ContractError(f"recipe {self.recipe.key}: labels have a share, and the data give no actions")
        return self.facts.action_shape[0] * self.facts.action_shape[1]

    # --- a step -----------------------------------------------------------------------------------

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        from lary_latentvla.univla_checkpoint import is_univla

        lam = is_univla(network)
        self._require_text(batch)
        first, target = (lam.features(frames) for frames in lam.pixels(batch.frames).unbind(1))
        found = lam.find(first, target, batch.text)
        predicted = lam.decode(first, found.carried, found.text)
        outputs = {"features": (predicted - target).square().flatten(1).mean(1)}
        if self.config.latent == "none":
            return outputs
        mine = found.controllable
        codes = mine.codes if lam.trained_vq.quantises else mine.embeddings.detach()
        outputs |= {"embeddings": mine.embeddings, "codes": codes, "indices": mine.indices}
        if found.uncontrolled is not None:
            outputs |= {"other_embeddings": found.uncontrolled.embeddings, "other_codes": found.uncontrolled.codes}
        return outputs | self._actions(lam.action_decoder, mine.carried, batch)

    def _actions(self, head: nn.Module | None, carried: torch.Tensor, batch: Batch) -> Outputs:
        """Squared errors (B,) of the head, 0 where a row has no label, and whose label is known."""
        import torch

        if head is None or batch.actions is None or batch.labelled is None:
            return {}
        known = batch.labelled.to(carried.dtype)
        actions = torch.where(batch.labelled[:, None, None], batch.actions, 0.0).flatten(1)
        return {"actions": (head(carried.mean(1)) - actions).square().mean(1) * known, "labelled": known}

    def _require_text(self, batch: Batch) -> None:
        if self.config.text == "none":
            return
        for row, text in zip(batch.rows, batch.text, strict=True):
            if not text.strip():
                raise ContractError(f"row {row}: its instruction is empty, and recipe {self.recipe.key} reads text")

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        from lary_parts.quantiser import quantiser_loss

        from lary_latentvla.univla_network import FIXED

        terms = {"features": outputs["features"].mean()}
        if "embeddings" in outputs:
            terms["quantiser"] = quantiser_loss(self.config.quantiser, outputs["embeddings"], outputs["codes"])
        if "other_embeddings" in outputs:
            fixed = FIXED.model_copy(update={"beta": self.config.quantiser.beta})
            terms["quantiser"] = terms["quantiser"] + quantiser_loss(
                fixed, outputs["other_embeddings"], outputs["other_codes"]
            )
        if "actions" in outputs:
            terms["actions"] = outputs["actions"].sum() / outputs["labelled"].sum().clamp_min(1)
        off = {"quantiser", "actions"} & set(self.recipe.losses) - set(terms)
        return terms | {name: outputs["features"].new_zeros(()) for name in off}

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        from lary_trainer.chance import stream

        from lary_latentvla.univla_checkpoint import is_univla

        if "embeddings" in outputs:
            generator = stream(batch.seed, "codebook", batch.step)
            is_univla(network).trained_vq.update(outputs["embeddings"], outputs["indices"], batch.step, generator)

    # --- what comes of it -------------------------------------------------------------------------

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        from lary_latentvla.univla_checkpoint import is_univla
        from lary_latentvla.univla_measures import measure_univla

        return measure_univla(is_univla(network), batches)

    def health(self, measured: Mapping[str, float]) -> list[str]:
        found = []
        if measured.get("copy", 1.0) < STATIC:
            found.append("the two frames of every held-out pair are alike: copying is perfect, and rec says nothing")
        for suffix, name in (("", "codebook"), ("_uncontrolled", "codebook of stage 1")):
            if measured.get(f"perplexity{suffix}", COLLAPSED) < COLLAPSED:
                found.append(
                    f"{measured[f'codes_used{suffix}']:.0f} of {self.config.codes} codes in use (perplexity "
                    f"{measured[f'perplexity{suffix}']:.1f}); the {name} has collapsed"
                )
        return found

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from lary_latentvla.univla_checkpoint import config_document, is_univla

        shape = self.facts.action_shape if self.config.labels.share else None
        document = config_document(self.recipe, self.config, self.facts.words, shape)
        return is_univla(network).kept_state(), document.model_dump(mode="json")
