"""The one training loop: rows -> batches -> losses -> steps -> a checkpoint, the same for every trainee."""

from lary_trainer.trainee import Batch, Trainee

__all__ = ["Batch", "Trainee"]
