"""The trainee `latent-vla`: a policy on an image-text model, supervised in one of five ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_parts.frames import resize_area
from lary_parts.pair_model import FramesModel
from lary_schema.base import ContractError, WeightsError
from lary_trainer.trainee import Batch, Facts, Outputs, Trainee
from lary_worker import Latents

from lary_latentvla.vla_facts import VlaConfig, model_card, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from lary_schema.cards import ModelCard
    from lary_schema.training import Recipe, Supervision
    from lary_trainer.trainee import LatentArray
    from lary_worker import Weights
    from numpy.typing import NDArray
    from torch import nn

    from lary_latentvla.action_range import ActionRange
    from lary_latentvla.vla_network import Seen, VlaNetwork

START = "start"


class LatentVlaTrainee(Trainee):
    """Terms: `actions` (mean absolute error in [-1, 1]), `labels` (cross-entropy over the whole vocabulary),
    `alignment` (1 - cosine with the latent of each step)."""

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        super().__init__(recipe, facts, seed)
        self.config = read_config(recipe)

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        return model_card(recipe, read_config(recipe))

    @classmethod
    def supervision(cls, recipe: Recipe) -> Supervision:
        return "actions"

    @classmethod
    def reads_text(cls, recipe: Recipe) -> bool:
        return True

    @classmethod
    def reads_latents(cls, recipe: Recipe) -> tuple[LatentArray, ...]:
        strategy = read_config(recipe).strategy
        if strategy == "la-align":
            return ("latent_z",)
        return ("latent_idx",) if strategy in ("la-direct", "la-cond") else ()

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_area(frames, self.config.size)

    # --- the network ------------------------------------------------------------------------------

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        from lary_latentvla.vla_build import Parts, make_network

        self._require_data()
        self._tokenizer = self._action_tokenizer(init)
        network = make_network(self.config, self.parts, init.get("backbone"))
        assert isinstance(self.parts, Parts)
        return network.to(device)

    @property
    def parts(self) -> Any:
        """What of the data fixes the network's shapes."""
        from lary_latentvla.vla_build import Parts

        assert self.facts.action_shape is not None
        latents, labels = self.facts.latents, 0
        if self._tokenizer is not None:
            labels = self._tokenizer.config.codes
        elif latents is not None and self.config.labelled == "latent":
            labels = latents.codes
        aligned = latents.width if latents is not None and self.config.strategy == "la-align" else 0
        return Parts(self.facts.words, labels, self.facts.action_shape[1], aligned)

    def _require_data(self) -> None:
        """Raises ContractError where the data's sizes are not the recipe's."""
        shape, latents, config = self.facts.action_shape, self.facts.latents, self.config
        assert shape is not None
        problems = (
            [] if shape[0] == config.chunk else [f"chunk {config.chunk}, and the card's actions have {shape[0]} steps"]
        )
        if latents is not None and latents.steps != config.chunk:
            problems.append(f"chunk {config.chunk}, and the card's latents: say steps {latents.steps}")
        if latents is not None and latents.tokens != config.latent_tokens:
            problems.append(f"latent_tokens {config.latent_tokens}, and the card's latents have {latents.tokens}")
        if problems:
            raise ContractError(f"recipe {self.recipe.key}: {'; '.join(problems)}; correct the recipe's config")

    def _action_tokenizer(self, init: Mapping[str, Path]) -> Any:
        """Of `la-tok`: the trained tokenizer whose codes are the labels; not a part of the network."""
        if self.config.strategy != "la-tok":
            if START in init:
                raise WeightsError(
                    f"recipe {self.recipe.key}: strategy {self.config.strategy} starts from no checkpoint"
                )
            return None
        if START not in init:
            raise WeightsError(
                f"recipe {self.recipe.key}: strategy la-tok needs a trained action tokenizer; give it by --start "
                "action-tokenizer-..., or as the stage's init"
            )
        from lary_latentvla.tokenizer_checkpoint import load_tokenizer

        network, actions, document = load_tokenizer(init[START])
        if document.shape != self.facts.action_shape:
            raise WeightsError(
                f"{init[START]}: codes chunks {document.shape}, the data's are {self.facts.action_shape}"
            )
        self._token_range = actions
        return network.requires_grad_(False)

    # --- targets ----------------------------------------------------------------------------------

    @property
    def range(self) -> ActionRange:
        """Of the training rows."""
        from lary_latentvla.action_range import ActionRange

        assert self.facts.actions is not None
        return ActionRange.of(self.facts.actions)

    def targets(self, batch: Batch) -> torch.Tensor:
        """float32 (B, N, A) in [-1, 1], clipped."""
        import torch

        from lary_latentvla.action_range import physical

        found = self.range.clip(self.range.scale(physical(batch, self.facts)))
        return torch.from_numpy(found).float().to(batch.frames.device)

    def labels(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Code numbers int64 (B, labels) in the order of their placeholders, and which of them are there, bool."""
        import torch

        if self.config.strategy == "la-tok":
            from lary_latentvla.action_range import physical

            actions = self._token_range.clip(self._token_range.scale(physical(batch, self.facts)))
            with torch.no_grad():
                codes = self._tokenizer(torch.from_numpy(actions).float()).indices.to(batch.frames.device)
            return codes, torch.ones_like(codes, dtype=torch.bool)
        codes = batch.latents["latent_idx"]
        valid = batch.latents["latent_valid"][..., None].expand_as(codes)
        return codes.flatten(1), valid.flatten(1)

    # --- a step -----------------------------------------------------------------------------------

    def see(self, network: VlaNetwork, batch: Batch) -> Seen:
        """The policy's pass: it sees first frame and instruction."""
        seen: Seen = network(batch.frames[:, 0], batch.text)
        return seen

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        import torch
        from torch.nn import functional

        vla = _network(network)
        seen = self.see(vla, batch)
        outputs: Outputs = {"actions": (seen.actions - self.targets(batch)).abs().flatten(1).mean(1)}
        if seen.scores is not None:
            codes, valid = self.labels(batch)
            ids = vla.label_ids[codes]
            losses = functional.cross_entropy(seen.scores.float().mT, ids, reduction="none")
            outputs |= {"labels": (losses * valid).sum(1), "label_count": valid.sum(1)}
        if seen.aligned is not None:
            target, valid = batch.latents["latent_z"].mean(2), batch.latents["latent_valid"]
            distance = 1 - functional.cosine_similarity(seen.aligned.float(), target, dim=-1)
            outputs |= {"alignment": torch.where(valid, distance, 0.0).sum(1), "aligned_count": valid.sum(1)}
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        terms = {"actions": outputs["actions"].mean()}
        for name, count in (("labels", "label_count"), ("alignment", "aligned_count")):
            if name in outputs:
                terms[name] = outputs[name].sum() / outputs[count].sum().clamp_min(1)
        return terms

    # --- what comes of it -------------------------------------------------------------------------

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        from lary_latentvla.vla_measures import Measures

        vla = _network(network)
        assert self.facts.actions is not None
        measures = Measures(self.range.scale(self.facts.actions.mean))
        outside, rows = 0.0, 0
        for batch in batches():
            seen = self.see(vla, batch)
            measures.made.append(seen.actions.float().cpu())
            measures.true.append(self.targets(batch).cpu())
            if seen.scores is not None:
                measures.add_labels(seen.scores[..., vla.label_ids].argmax(-1), *self.labels(batch))
            if seen.aligned is not None:
                measures.add_aligned(seen.aligned, batch.latents["latent_z"].mean(2), batch.latents["latent_valid"])
            outside += self._outside(batch) * len(batch.rows)
            rows += len(batch.rows)
        constant = float(self.range.constant.sum())
        return measures.result() | {"clipped": outside / rows, "constant_dimensions": constant}

    def by_row(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, NDArray[np.float64]]:
        """`l1` and `l1_step_i` of actions in [-1, 1]."""
        import numpy as np

        vla = _network(network)
        errors = [(self.see(vla, b).actions.float() - self.targets(b)).abs().mean(2).cpu().numpy() for b in batches()]
        by_step = np.concatenate(errors).astype(np.float64)  # (n, N)
        return {"l1": by_step.mean(1), **{f"l1_step_{n + 1}": column for n, column in enumerate(by_step.T)}}

    def _outside(self, batch: Batch) -> float:
        from lary_latentvla.action_range import physical

        return self.range.outside(self.range.scale(physical(batch, self.facts)))

    def health(self, measured: Mapping[str, float]) -> list[str]:
        if self.config.chunk > 1 and measured["spread"] < 0.01:
            return [f"the predicted chunk does not vary over time ({measured['spread']:.3f} of the truth's deviation)"]
        return []

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from lary_latentvla.vla_build import config_document

        vla = _network(network)
        return vla.kept_state(), config_document(self.recipe.key, self.config, self.parts, self.range)


class LatentVla(FramesModel):
    """A trained policy as a model of frames: its hidden states at the placeholders, of a pair's first frame alone, with
    an empty instruction."""

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_latentvla.vla_build import load_network

        self.network = load_network(self.checkpoint(weights), weights.get("backbone")).to(device, dtype).eval()

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """A drawn network of the shapes of the family's example."""
        from lary_latentvla.vla_build import Parts, make_network

        config = VlaConfig(backbone="qwen3-vl-tiny", size=self.spec.input.shape[1], chunk=4)
        self.network = make_network(config, Parts((), 0, 3, 0), None).to(device, dtype).eval()

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """uint8 (B, 2, S, S, 3) -> (B, 1, placeholders, width)."""
        seen: Seen = self.network(batch[:, 0], ("",) * len(batch))
        return Latents(seen.slots[:, None])


def _network(network: nn.Module) -> VlaNetwork:
    from lary_latentvla.vla_network import VlaNetwork

    if not isinstance(network, VlaNetwork):
        raise ContractError(f"a VlaNetwork is expected, not {type(network).__name__}")
    return network
