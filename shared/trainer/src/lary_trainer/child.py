"""A decode process of a training, a fork that `lary_worker.pool` asks `lary_worker.forks` for. Imports no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from lary_schema.cards import TensorSpec
from lary_schema.training import Recipe
from lary_worker.child import Fill, preprocessed, serve
from numpy.typing import NDArray

from lary_trainer.registry import find_trainee
from lary_trainer.trainee import Facts


def main(arguments: list[str]) -> int:
    """Reply to tasks until the pipe ends. Arguments: as those of `lary_worker.child`."""
    return serve(arguments, _of_trainee)


def _of_trainee(settings: dict[str, Any]) -> Fill:
    recipe = Recipe.parse(settings["recipe"], "settings")
    trainee = find_trainee(recipe)(recipe, Facts(settings["rows"]), settings["seed"])
    apart = settings["dt"]
    spec = TensorSpec(shape=tuple(settings["spec"]["shape"][1:]), dtype="uint8")

    def fill(task: Mapping[str, Any], frames: NDArray[np.uint8], slot: NDArray[Any]) -> None:
        for at, start in enumerate(task["starts"]):
            pair = frames[[start, start + apart]]
            slot[at] = preprocessed(trainee.preprocess, pair, spec, f"the card of {recipe.key}")

    return fill
