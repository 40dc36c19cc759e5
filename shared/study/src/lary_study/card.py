"""A study as a YAML file: stages of training, arms, what is read from each, and which differences are asked for."""

from typing import Annotated, Any, Self

from lary_schema.base import Document
from lary_schema.cards import Distinct, Key, Reads, Some, _Card
from lary_schema.training import Labelled
from pydantic import Field, model_validator

Changes = dict[str, Any]
"""Values of a recipe that differ (`lary_study.recipes.changed`)."""


class StudyData(Document):
    """What is trained on, and where it is read."""

    train: Key
    """Dataset: its train split trains models and probes, the splits that its card evaluates are reported."""
    labelled: Labelled | None = None
    """The share of groups that stages with `labelled: true` see; drawn once for all arms and seeds."""


class Stage(Document):
    """A training that arms are made of, once per seed."""

    recipe: Key
    init: Key | None = None
    """The stage whose checkpoint of the same seed it goes on from."""
    labelled: bool = False
    """Train on the rows of the labelled share alone, its actions at hand."""
    changes: Changes = Field(default_factory=dict, alias="with")


class Arm(Document):
    """One way of training: a stage with other values, once per seed."""

    title: str = ""
    of: Key
    changes: Changes = Field(default_factory=dict, alias="with")
    probe: bool = True
    """False: its held-out measures alone are of interest."""


class Baseline(Document):
    """What arms are compared with: a training as in `Arm`, or a model of the catalog."""

    title: str = ""
    of: Key | None = None
    changes: Changes = Field(default_factory=dict, alias="with")
    model: Key | None = None
    probe: bool = True
    """False: its held-out measures alone are of interest."""
    once: bool = False
    """A training that draws nothing: done for the first seed alone, compared with every one."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.of is None) == (self.model is None):
            raise ValueError("give either of: (a stage) or model: (a model of the catalog)")
        if self.model is not None and (self.changes or self.once or not self.probe):
            raise ValueError("with:, probe: and once: go with a stage, not with a model of the catalog")
        return self


class Reading(Document):
    """How latents are read."""

    variants: Annotated[tuple[Key, ...], Some] = ("embed",)
    """The first is the one that differences are of."""
    protocol: str = "study"
    """Of the probes: a name, or a YAML file."""
    targets: Annotated[tuple[Reads, ...], Some] = ("actions", "nuisance")
    """Blocks of the dataset card, as far as it has them."""


class StudyCard(_Card):
    """Arms x seeds of trainings, each extracted and probed."""

    key: Key
    title: str = ""
    data: StudyData
    seeds: Annotated[tuple[int, ...], Some]
    stages: dict[Key, Stage]
    arms: dict[Key, Arm]
    reading: Reading = Field(default=Reading(), alias="read")
    compare: Annotated[tuple[tuple[Key, Key], ...], Distinct] = ()
    """Pairs of arms: the first minus the second."""
    baselines: dict[Key, Baseline] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name, stage in self.stages.items():
            if stage.init is not None and stage.init not in self.stages:
                raise ValueError(f"stages.{name}: init {stage.init!r} is no stage; there are {', '.join(self.stages)}")
            if stage.labelled and self.data.labelled is None:
                raise ValueError(f"stages.{name}: is labelled, and data.labelled gives no share")
        return self

    @model_validator(mode="after")
    def _arms_are_known(self) -> Self:
        everyone: dict[str, Arm | Baseline] = {**self.arms, **self.baselines}
        for name, arm in everyone.items():
            if arm.of is not None and arm.of not in self.stages:
                raise ValueError(f"{name}: of {arm.of!r} is no stage; there are {', '.join(self.stages)}")
        if both := self.arms.keys() & self.baselines.keys():
            raise ValueError(f"{min(both)} is an arm and a baseline; rename one of them")
        unknown = {name for pair in self.compare for name in pair} - self.arms.keys() - self.baselines.keys()
        if unknown:
            raise ValueError(f"compare names {', '.join(sorted(unknown))}, which are no arms")
        return self

    @model_validator(mode="after")
    def _stages_have_a_beginning(self) -> Self:
        for name in self.stages:
            seen: list[str] = []
            at: str | None = name
            while at is not None:
                if at in seen:
                    raise ValueError(f"stages go on from each other in a circle: {' -> '.join([*seen, at])}")
                seen.append(at)
                at = self.stages[at].init
        return self
