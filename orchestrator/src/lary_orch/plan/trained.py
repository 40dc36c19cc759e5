"""Models that are trained here, as a plan uses them: also of a training that is planned and not there yet."""

from dataclasses import dataclass
from pathlib import Path

from lary_schema.cards import ModelCard
from lary_schema.trained import CHECKPOINT
from lary_schema.training import TrainValues

from lary_orch.runtimes.base import Runtime
from lary_orch.runtimes.describe import describe_recipe
from lary_orch.runtimes.jobs import Prepared
from lary_orch.weights.index import Trained, WeightSet, find_weights
from lary_orch.workspace import Workspace


@dataclass(frozen=True)
class KnownModel:
    """All that extraction from a model needs."""

    card: ModelCard
    prepared: Prepared
    weights: WeightSet
    libraries: dict[str, str] | None


def trained_model(
    folder: Path, values: TrainValues, runtime: Runtime, prepared: Prepared, workspace: Workspace
) -> KnownModel:
    """The model that a training with these values makes, or made, in `folder`.

    Its facts are what the image says of the recipe now: a class that reads it otherwise than when it was trained makes
    other stores. Raises ContractError where the image refuses the recipe, or a frozen encoder's weights are missing.
    """
    found, _, libraries = describe_recipe(runtime, prepared, values.recipe, workspace.cache)
    own = {"key": values.key, "pattern": None, "example": None}
    card = found.of_chunks(values.data.actions).model_copy(update=own)
    trained = Trained(CHECKPOINT, folder, values.fingerprint)
    weights = find_weights(card, workspace.weights, workspace.cache, trained=trained)
    return KnownModel(card, prepared, weights, libraries)
