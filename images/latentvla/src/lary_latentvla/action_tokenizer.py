"""The trainee `action-tokenizer`: chunks of T actions as T codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError, WeightsError
from lary_trainer.trained import TrainedModel
from lary_trainer.trainee import Batch, Facts, Outputs, Trainee
from lary_worker import Latents

from lary_latentvla.tokenizer_facts import model_card, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from lary_schema.cards import ModelCard
    from lary_schema.training import Recipe, Supervision
    from lary_worker import Weights
    from numpy.typing import NDArray
    from torch import nn

    from lary_latentvla.action_range import ActionRange
    from lary_latentvla.tokenizer_measures import Simple
    from lary_latentvla.tokenizer_network import ActionTokenizer

COLLAPSED = 16.0
"""Perplexity below which a codebook has collapsed."""


class ActionTokenizerTrainee(Trainee):
    """Terms: `actions` (mean squared error), `consistency` (of the encoder's second look at masked steps),
    `commitment` (0 before quantising)."""

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        super().__init__(recipe, facts, seed)
        self.config = read_config(recipe)
        self._simple: Simple | None = None

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        return model_card(recipe, read_config(recipe))

    @classmethod
    def supervision(cls, recipe: Recipe) -> Supervision:
        return "actions"

    @classmethod
    def reads_frames(cls, recipe: Recipe) -> bool:
        return False

    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise ContractError(f"trainee {self.recipe.trainee} reads no frames")

    # --- the network ------------------------------------------------------------------------------

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        from lary_trainer.chance import stream

        from lary_latentvla.tokenizer_checkpoint import load_start
        from lary_latentvla.tokenizer_network import ActionTokenizer

        if unknown := sorted(set(init) - {"start"}):
            raise WeightsError(f"recipe {self.recipe.key}: takes no weights {', '.join(unknown)}")
        network = ActionTokenizer(self.config, self._shape[1])
        network.vq.draw(stream(self.seed, "codebook"))
        if "start" in init:
            load_start(network, self.range, init["start"])
        return network.to(device)

    @property
    def _shape(self) -> tuple[int, int]:
        assert self.facts.action_shape is not None
        return self.facts.action_shape

    @property
    def range(self) -> ActionRange:
        """Of the training rows."""
        from lary_latentvla.action_range import ActionRange

        assert self.facts.actions is not None
        return ActionRange.of(self.facts.actions)

    def scaled(self, batch: Batch) -> torch.Tensor:
        """float32 (B, T, A) in [-1, 1], clipped."""
        import torch

        from lary_latentvla.action_range import physical

        found = self.range.clip(self.range.scale(physical(batch, self.facts)))
        return torch.from_numpy(found).float().to(batch.frames.device)

    # --- a step -----------------------------------------------------------------------------------

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        tokenizer, actions = _tokenizer(network), self.scaled(batch)
        masked = self._masked(batch).to(actions.device)
        coded = tokenizer(actions, masked)
        kept = coded.embeddings.masked_fill(masked[..., None], 0.0)
        again = tokenizer.encoder(coded.decoded)
        target = coded.embeddings if self.config.consistency_gradient else coded.embeddings.detach()
        return {
            "actions": (coded.decoded - actions).square().flatten(1).mean(1),
            "consistency": ((again - target).square().mean(-1) * masked).sum(1),
            "commitment": (kept - coded.codes).square().flatten(1).mean(1) * tokenizer.vq.quantises,
            "embeddings": kept.detach(),
            "indices": coded.indices,
            "masked": masked,
        }

    def _masked(self, batch: Batch) -> torch.Tensor:
        import numpy as np
        import torch
        from lary_trainer.chance import stream

        steps = self._shape[0]
        drawn = [stream(batch.seed, "mask", batch.step, row).random(steps) for row in batch.rows.tolist()]
        return torch.from_numpy(np.stack(drawn) < self.config.mask)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        return {
            "actions": outputs["actions"].mean(),
            "consistency": outputs["consistency"].sum() / outputs["masked"].sum().clamp_min(1),
            "commitment": outputs["commitment"].mean(),
        }

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        from lary_trainer.chance import stream

        counted = ~outputs["masked"] | self.config.masked_in_statistics
        generator = stream(batch.seed, "codes", batch.step)
        codebook = _tokenizer(network).vq
        codebook.update(outputs["embeddings"][counted], outputs["indices"][counted], batch.step, generator)

    # --- what comes of it -------------------------------------------------------------------------

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """Errors are mean squares of actions in [-1, 1]: `mse`, beside it those of `tokenizer_measures.Simple`.

        `clipped`: share of values outside the training rows' quantiles; `jerk`: of the decoded over the true chunks;
        `fewest_codes`: in any training batch since quantising was on for 50 steps.
        """
        import numpy as np

        from lary_latentvla.action_range import physical
        from lary_latentvla.tokenizer_measures import jerk, usage

        tokenizer = _tokenizer(network)
        coded, decoded, truth, outside = [], [], [], []
        for batch in batches():
            found = tokenizer(self.scaled(batch))
            coded.append(found.indices.cpu().numpy())
            decoded.append(found.decoded.cpu().double().numpy())
            scaled = self.range.scale(physical(batch, self.facts))
            outside.append(self.range.outside(scaled) * len(batch.rows))
            truth.append(self.range.clip(scaled))
        indices, made, true = (np.concatenate(parts) for parts in (coded, decoded, truth))
        mse, simple = float(np.square(made - true).mean()), self._simple_codes().errors(true)
        measured = {
            "mse": mse,
            "ratio": mse / max(simple["mean"], 1e-12),
            **simple,
            **usage(indices, self.config.codes),
        }
        measured |= {"jerk": jerk(made) / max(jerk(true), 1e-12), "clipped": sum(outside) / len(true)}
        return measured | {
            "constant_dimensions": float(self.range.constant.sum()),
            "fewest_codes": float(tokenizer.vq.fewest),
            "quantises": float(tokenizer.vq.quantises),
        }

    def _simple_codes(self) -> Simple:
        from lary_latentvla.tokenizer_measures import Simple

        if self._simple is None:
            assert self.facts.actions is not None
            self._simple = Simple(self.range.clip(self.range.scale(self.facts.actions.sample)))
        return self._simple

    def health(self, measured: Mapping[str, float]) -> list[str]:
        if not measured["quantises"] or measured["perplexity"] >= min(COLLAPSED, self.config.codes / 4):
            return []
        return [
            f"{measured['codes_used']:.0f} of {self.config.codes} codes in use (perplexity "
            f"{measured['perplexity']:.1f}); the codebook has collapsed"
        ]

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from lary_latentvla.tokenizer_checkpoint import config_document

        tokenizer = _tokenizer(network)
        return tokenizer.kept_state(), config_document(self.recipe.key, self.config, self._shape, self.range)


class ActionTokens(TrainedModel):
    """A trained tokenizer as a model: the code of each step of a chunk."""

    def preprocess(self, frames: NDArray[Any]) -> NDArray[Any]:
        """A row's physical actions, float64 (T, A) -> float32; `encode` brings them to the training rows' range."""
        return frames.astype("float32")

    def load(self, weights: Weights, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from lary_latentvla.tokenizer_checkpoint import load_tokenizer

        # Always in float32: a code's number must not depend on the precision that is asked for.
        folder = self.checkpoint(weights)
        network, self.range, document = load_tokenizer(folder)
        if document.shape != self.spec.input.shape:
            raise WeightsError(
                f"{folder}: was trained on chunks {document.shape}, planned are {self.spec.input.shape}; "
                "plan the job again"
            )
        self.network = network.to(device)

    def random_weights(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        import numpy as np
        import torch

        from lary_latentvla.action_range import ActionRange
        from lary_latentvla.tokenizer_facts import TokenizerConfig
        from lary_latentvla.tokenizer_network import ActionTokenizer

        dimensions = self.spec.input.shape[1]
        torch.manual_seed(seed)
        network = ActionTokenizer(TokenizerConfig(), dimensions).eval()
        network.vq.draw(np.random.default_rng(seed))
        self.range = ActionRange(np.full(dimensions, -1.0), np.full(dimensions, 1.0))
        self.network = network.to(device)

    def encode(self, batch: torch.Tensor, rows: NDArray[np.int64]) -> Latents:
        """float32 (B, T, A) physical actions -> vectors of each step's code (B, T, 1, W), and its number (B, T, 1)."""
        import torch

        scaled = self.range.clip(self.range.scale(batch.cpu().double().numpy()))
        found = self.network(torch.from_numpy(scaled).float().to(batch.device))
        if self.variant == "onehot":
            tokens = torch.nn.functional.one_hot(found.indices, self.network.config.codes).float()
        else:
            tokens = found.codes if self.variant == "codebook" else found.embeddings
        return Latents(tokens[:, :, None], found.indices[..., None])


def _tokenizer(network: nn.Module) -> ActionTokenizer:
    from lary_latentvla.tokenizer_network import ActionTokenizer

    if not isinstance(network, ActionTokenizer):
        raise ContractError(f"an ActionTokenizer is expected, not {type(network).__name__}")
    return network
