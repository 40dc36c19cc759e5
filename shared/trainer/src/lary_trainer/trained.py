"""The base of models that are trained here: their facts lie in the checkpoint, not in `image.yaml`."""

from pathlib import Path

from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ModelCard
from lary_schema.mounts import Mounts
from lary_schema.trained import CHECKPOINT
from lary_schema.training import CARD_FILE, TrainedCard
from lary_worker import Model, Weights


class TrainedModel(Model):
    """A model whose card is a family's: each key has a checkpoint of its own below the weights mount."""

    @classmethod
    def resolve(cls, card: ModelCard, key: str) -> ModelCard:
        """The card that lies beside the trained weights. Raises ContractError where there is none."""
        path = Mounts.from_env().weights / CHECKPOINT / CARD_FILE
        if not path.exists() and key == card.example:
            return card.model_copy(update={"key": key, "pattern": None, "example": None})
        trained = TrainedCard.read(path).card
        if not key.startswith(trained.key):
            raise ContractError(f"{path}: is the card of {trained.key}, asked for is {key}; plan the job again")
        return trained.model_copy(update={"key": key, "pattern": None, "example": None})

    def checkpoint(self, weights: Weights) -> Path:
        """The folder of its training. Raises WeightsError where it is not given."""
        if CHECKPOINT not in weights:
            raise WeightsError(f"model {self.card.key} needs the folder of its training, as weights {CHECKPOINT!r}")
        return weights[CHECKPOINT]
