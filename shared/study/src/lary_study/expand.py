"""From a study to its trainings: one per arm and seed, equal ones once, each known by its key before it runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lary_schema.training import Recipe

from lary_study.card import Arm, Baseline, Changes, StudyCard
from lary_study.recipes import changed, load_recipe
from lary_study.trainings import Training, Trainings


@dataclass(frozen=True)
class Expanded:
    """An arm's (or a baseline's) training for one seed."""

    arm: str
    seed: int | None
    """None: of all seeds."""
    training: Training
    probe: bool


@dataclass
class Expansion:
    """Makes the trainings of a study. `folders` are the catalog's, for their recipes."""

    card: StudyCard
    trainings: Trainings
    folders: Sequence[Path]
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _planned: dict[tuple[str, str, int], Training] = field(default_factory=dict)

    def arms(self, seeds: Sequence[int], names: Sequence[str] = ()) -> list[Expanded]:
        """Of all arms and trained baselines, or of those that are named (with every baseline), for these seeds."""
        found: dict[str, Arm | Baseline] = {name: self.card.arms[name] for name in names or self.card.arms}
        found |= self.card.baselines
        return [
            one for name, arm in found.items() if arm.of is not None for one in self._expanded(name, arm, arm.of, seeds)
        ]

    def _expanded(self, name: str, arm: Arm | Baseline, stage: str, seeds: Sequence[int]) -> Iterator[Expanded]:
        if isinstance(arm, Baseline) and arm.once:
            yield Expanded(name, None, self._training(stage, arm.changes, self.card.seeds[0]), arm.probe)
            return
        for seed in seeds:
            yield Expanded(name, seed, self._training(stage, arm.changes, seed), arm.probe)

    def _training(self, stage: str, changes: Changes, seed: int) -> Training:
        """Each is planned once: several arms begin from it, and the record names it again."""
        key = (stage, repr(changes), seed)
        if key not in self._planned:
            self._planned[key] = self._plan(stage, changes, seed)
        return self._planned[key]

    def _plan(self, stage: str, changes: Changes, seed: int) -> Training:
        wanted = self.card.stages[stage]
        start = None if wanted.init is None else self._training(wanted.init, {}, seed)
        recipe = changed(self._recipe(wanted.recipe), wanted.changes, f"study {self.card.key}: stage {stage}")
        recipe = changed(recipe, changes, f"study {self.card.key}: with: of stage {stage}")
        labelled = self.card.data.labelled if wanted.labelled else None
        return self.trainings.plan(recipe, seed, labelled, start)

    def _recipe(self, name: str) -> Recipe:
        """Each file is read once: a study asks for it by every arm and seed."""
        if name not in self._recipes:
            self._recipes[name] = load_recipe(name, self.folders)
        return self._recipes[name]
