"""Recipes: what a protocol's key stood for, and what two of them differ in."""

import json
from typing import Any, NamedTuple

from lary_results.scores import Recipe, Score

UNRECORDED = "recipe not recorded: made before results said what their protocol stood for"
SHORT = 8


class RecipeOf(NamedTuple):
    """Scores of one metric, one kind of regression head and equal recipes are made alike."""

    metric: str
    head: str | None
    """Heads stand in columns of their own, and use other parts of a recipe."""
    sha256: str | None

    @property
    def short(self) -> str:
        return "unrecorded" if self.sha256 is None else self.sha256[:SHORT]


def made_by(score: Score) -> RecipeOf:
    return RecipeOf(score.metric, score.head, score.recipe_sha256)


def recipe_title(of: RecipeOf, recipe: Recipe | None, usual: Recipe | None) -> str:
    """What a board of another recipe says of itself."""
    if recipe is None:
        return UNRECORDED
    changed = "; ".join(recipe_differences(recipe, usual, "above"))
    return f"another recipe ({of.short}): {changed}"


def recipe_differences(ours: Recipe | None, theirs: Recipe | None, whose: str) -> list[str]:
    """`epochs 2 (above: 15)`, a text each; none is equal."""
    if ours is None or theirs is None:
        return [] if ours is theirs else [f"the recipe is not recorded {'here' if ours is None else whose}"]
    names = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    return [f"{name} {_text(ours, name)} ({whose}: {_text(theirs, name)})" for name in names]


def _text(recipe: Recipe, name: str) -> str:
    value: Any = recipe.get(name, "-")
    return value if isinstance(value, str) else json.dumps(value)
