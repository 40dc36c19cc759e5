"""Which checkpoints a model is given by a job."""

from collections.abc import Callable
from pathlib import Path

from lary_schema.base import WeightsError
from lary_schema.cards import ModelCard
from lary_schema.jobs import ExtractJob
from lary_schema.planned_weights import verified_files as verified_files

from lary_worker.model import Weights


def find_weights(job: ExtractJob, card: ModelCard, root: Path, beat: Callable[[str], None]) -> Weights:
    """Files and folders by name, verified; `beat` is called for each. Raises WeightsError naming the file."""
    planned = {file.name for file in job.weights}
    needed = {spec.name for spec in card.weights if not spec.optional}
    if not needed <= planned <= {spec.name for spec in card.weights}:
        raise WeightsError(
            f"model {card.key} needs weights {sorted(needed)}, the job names {sorted(planned)}; plan the job again"
        )
    return verified_files(job.weights, root, beat)
