"""Trained models on disk: `TRAINED/KEY/checkpoint`, see `lary_schema.training`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import WeightSpec
from lary_schema.training import CARD_FILE, TRAINING_FILE, TrainedCard, TrainResult

CHECKPOINT = "checkpoint"
"""The folder below the model's own that holds its files; also the name of the weight that `extract` gets."""
START = "start"
"""Name of the weight that a training goes on from."""


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one trained model, there or not."""

    folder: Path

    @classmethod
    def of(cls, trained: Path, key: str) -> "Checkpoint":
        """Of a model key, below the workspace's folder of trained models."""
        return cls(trained / key / CHECKPOINT)

    @property
    def key(self) -> str:
        return self.folder.parent.name

    @property
    def is_whole(self) -> bool:
        """Whether the training has ended: `training.json` is written last."""
        return (self.folder / TRAINING_FILE).is_file()

    @property
    def card(self) -> TrainedCard:
        """Raises ContractError where it is missing or not valid."""
        return TrainedCard.read(self.folder / CARD_FILE)

    @property
    def further_weights(self) -> tuple[WeightSpec, ...]:
        """What it needs besides its own files, such as a downloaded backbone. Raises ContractError as `card`."""
        # Optional ones are what training alone reads.
        return tuple(spec for spec in self.card.card.weights if not spec.optional and spec.name != CHECKPOINT)

    @property
    def result(self) -> TrainResult:
        """Raises ContractError where it is missing, not valid, or another model's."""
        path = self.folder / TRAINING_FILE
        found = TrainResult.read(path)
        if found.key != self.key or found.values.key != found.key:
            raise ContractError(f"{path}: of model {found.values.key}, in the folder of {self.key}; move it there")
        return found


def trained_models(trained: Path) -> Iterator[Checkpoint]:
    """All whole checkpoints, by key."""
    for folder in sorted(trained.glob(f"*/{CHECKPOINT}")):
        if (found := Checkpoint(folder)).is_whole:
            yield found
