"""What a trainee has to be. This is all that a new one implements; the loop around it is not its business.

A trainee is a class registered under the entry-point group `lary.trainees` by the name that recipes give in
`trainee:`. The loop makes one instance per process and calls, at each step, `forward` on its part of the batch (in
micro-batches where memory is short), then `losses` and `after_step` on the outputs of the whole batch over all
processes. What it draws comes from `Batch.seed`, `Batch.step` and `Batch.rows` through `lary_trainer.chance`.

What lasts from step to step lies in the network's parameters and persistent buffers, and nowhere else: that alone is in
states (`docs/train.md`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lary_schema.cards import Latents as LatentsCard
from lary_schema.cards import ModelCard
from lary_schema.training import Recipe, Supervision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

LatentArray = Literal["latent_idx", "latent_z"]
Outputs = dict[str, "torch.Tensor"]
"""By name, one entry per row: (B, ...)."""


@dataclass(frozen=True)
class Batch:
    """Some rows of one step (B of them), on the device."""

    seed: int
    step: int
    """0 for the first. Of an evaluation: the number of steps that were done."""
    rows: NDArray[np.int64]
    """(B,) numbers of the rows in the metadata CSV."""
    frames: torch.Tensor
    """uint8 (B, 2, H, W, 3): the two frames as `preprocess` gave them. (B, 0): the trainee reads none."""
    actions: torch.Tensor | None = None
    """float32 (B, stride, dim), standardised by mean and deviation of the labelled rows; None: no labels are read."""
    labelled: torch.Tensor | None = None
    """bool (B,): rows whose actions may be looked at. Those of the others are NaN: replace them before a loss is taken,
    since a NaN that is masked afterwards still makes gradients NaN."""
    text: tuple[str, ...] = ()
    """Instructions, where the recipe reads them."""
    latents: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Latent labels, where the recipe reads them: `latent_idx` int64 (B, T, K), `latent_z` float32 (B, T, K, D), and
    `latent_valid` bool (B, T). Where that is False the others are 0."""


@dataclass(frozen=True)
class ActionFacts:
    """Of the labelled training rows' actions, over rows and steps: float64 (dim,) each, physical units."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """What `Batch.actions` were divided by: 1 where an action does not move."""
    low: NDArray[np.float64]
    """Quantile .01."""
    high: NDArray[np.float64]
    """Quantile .99."""
    sample: NDArray[np.float64]
    """(n, stride, dim): some of the chunks, at equal distances among the rows; for baselines that are fitted."""


@dataclass(frozen=True)
class Facts:
    """What a trainee is told of its data before it is built."""

    rows: int
    action_shape: tuple[int, int] | None = None
    """(stride, dim) of an action chunk; None: no labels are read."""
    words: tuple[str, ...] = ()
    """All words of the training rows' instructions, sorted."""
    actions: ActionFacts | None = None
    """None: no labels are read."""
    latents: LatentsCard | None = None
    """Sizes of the latent labels; None: none are read."""


class Trainee(ABC):
    """Base of every trainee.

    Attributes: `recipe`, its own; `facts`; `seed`, the job's.
    """

    def __init__(self, recipe: Recipe, facts: Facts, seed: int) -> None:
        self.recipe = recipe
        self.facts = facts
        self.seed = seed

    # --- what planning asks, without torch ------------------------------------------------------

    @classmethod
    @abstractmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        """The facts of the model that this recipe trains; its key is the recipe's.

        Raises ContractError for a configuration that it does not know, naming the key.
        """

    @classmethod
    def supervision(cls, recipe: Recipe) -> Supervision:
        """Which labels it sees: `none` where it never reads `Batch.actions`."""
        return "none"

    @classmethod
    def reads_text(cls, recipe: Recipe) -> bool:
        """Whether it reads `Batch.text`."""
        return False

    @classmethod
    def label_share(cls, recipe: Recipe) -> float | None:
        """The share of all groups whose actions it sees while it trains on every row: part of the job's labelled share.

        None: it trains on the rows of the job's labelled share alone, and sees the actions of all of them.
        """
        return None

    @classmethod
    def reads_frames(cls, recipe: Recipe) -> bool:
        """Whether it reads `Batch.frames`; else no media are opened, and a row is a pair by itself."""
        return True

    @classmethod
    def reads_latents(cls, recipe: Recipe) -> tuple[LatentArray, ...]:
        """Which of the latent labels it reads; none: sets without them will do."""
        return ()

    # --- training ------------------------------------------------------------------------------

    @abstractmethod
    def preprocess(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The two frames of a pair, uint8 (2, H, W, 3) RGB at native size -> uint8 (2, h, w, 3), as `extract` does it.

        Runs in decode processes, whose `facts` hold the number of rows alone; imports no torch. h and w are those of
        the card's input.
        """

    @abstractmethod
    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        """The network, its start drawn from `seed`; `init` has files and checkpoint folders by name.

        `init["start"]` is the checkpoint that this training goes on from. Frozen parts have `requires_grad` False.
        Raises WeightsError naming what is missing, unexpected or of another size.
        """

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by the names that `optimiser.scale` of recipes gives."""
        return {"all": [p for p in network.parameters() if p.requires_grad]}

    @abstractmethod
    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        """What the losses need, per row, with gradients. A row's outputs must not depend on the other rows."""

    @abstractmethod
    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalar terms over the whole batch by name, each a key of the recipe's `losses`, and no key left out.

        They depend on parameters through `outputs` alone: with micro-batches these are detached.
        """

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        """Updates without gradient (an EMA codebook, restart of dead codes); outputs are detached. Default: none."""
        del network, outputs, batch

    @abstractmethod
    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """Held-out measures, controls of its kind among them. `batches()` may be called more than once."""

    def by_row(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, NDArray[np.float64]]:
        """Measures of single held-out rows by the finished network: (n,) each, in the order of one pass of `batches()`.

        Studies compare arms by them, paired by row. Their means are measures of `evaluate` of the same names. Default:
        none.
        """
        del network, batches
        return {}

    def picture(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> NDArray[np.uint8] | None:
        """What the finished network makes of some held-out rows, for people: RGB (height, width, 3). Default: none."""
        del network, batches
        return None

    def health(self, measured: Mapping[str, float]) -> list[str]:
        """What is wrong with these measures, in words (a collapsed codebook); each becomes a warning."""
        return []

    @abstractmethod
    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors of `model.safetensors` (without frozen parts) and the document of `config.json`."""
