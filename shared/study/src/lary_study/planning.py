"""A study as one plan: trainings, extractions and probes of arms x seeds, and the record of what is which."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.jobs import Plan, Probing, Request
from lary_orch.plan.planner import Part, assemble, plan_part
from lary_orch.runtimes.base import Notify, Runtime
from lary_orch.runtimes.devices import Slot
from lary_orch.workspace import Workspace
from lary_results.study.record import StudyEntry, StudyRecord, record_path
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard, Reads

from lary_study.card import StudyCard
from lary_study.expand import Expanded, Expansion
from lary_study.recipes import load_recipe
from lary_study.trainings import WORKERS, Trainings, image_of


@dataclass(frozen=True)
class StudyPlan:
    """A study, or the part of it that was asked for, as a plan."""

    plan: Plan
    record: StudyRecord


@dataclass(frozen=True)
class Study:
    """A study and what it is planned with. `folders` are the catalog's, for recipes of its own."""

    card: StudyCard
    catalog: Catalog
    folders: Sequence[Path]
    workspace: Workspace

    def images(self) -> list[ImageSource]:
        """All that its jobs need."""
        recipes = dict.fromkeys(stage.recipe for stage in self.card.stages.values())
        found = [image_of(load_recipe(name, self.folders), self.catalog) for name in recipes]
        found += [self.catalog.image_for(one.model) for one in self.card.baselines.values() if one.model is not None]
        return [*{source.card.name: source for source in found}.values(), self.catalog.probe()]

    def plan(
        self,
        runtime: Runtime,
        slots: Sequence[Slot],
        trainings: Trainings,
        notify: Notify,
        seeds: Sequence[int],
        arms: Sequence[str] = (),
    ) -> StudyPlan:
        """Plan what is asked for; all seeds of the study stand in the record, whatever is planned now."""
        expansion = Expansion(self.card, trainings, self.folders)
        asked = expansion.arms(seeds, arms)
        planned = trainings.made
        protocol = load_protocol(self.card.reading.protocol)
        # One target of each block, also where the protocol has two: a study compares one number.
        probing = Probing(reads=self._targets(), target=protocol.regress.target)
        request = Request((), (self.card.data.train,), protocol, control=False, probing=probing)
        request = replace(request, workers=trainings.settings.workers or WORKERS)
        models = {training.key: training.model for training in planned}
        # The trainings are planned on it.
        made = (self.card.data.train,)
        parts = [Part(trainings=tuple(training.job for training in planned))]
        for variants, wanted in {**self._read_out(asked), (): self._catalog_models()}.items():
            # A store is one job: there are stores enough for all slots, and each job imports torch anew.
            part = replace(replace(request, models=wanted, variants=variants).on(slots), slots=1)
            if wanted:
                parts.append(plan_part(part, self.workspace, self.catalog, runtime, notify, models, made))
        everything = expansion.arms(sorted({*self.card.seeds, *seeds}))
        return StudyPlan(assemble(self.card.key, parts, self.workspace), self._record(everything, protocol))

    def _read_out(self, asked: Sequence[Expanded]) -> dict[tuple[str, ...], tuple[str, ...]]:
        """The trained models by their variants among the study's.

        A baseline may have fewer of them; one that has none is planned with all, and refused by name.
        """
        wanted = self.card.reading.variants
        groups: dict[tuple[str, ...], dict[str, None]] = {}
        for one in asked:
            if one.probe:
                found = tuple(variant for variant in wanted if variant in one.training.model.card.variants)
                groups.setdefault(found or wanted, {})[one.training.key] = None
        return {variants: tuple(keys) for variants, keys in groups.items()}

    def _targets(self) -> tuple[Reads, ...]:
        """What is read: of the study's targets those that the dataset has."""
        has_nuisance = self.catalog.dataset(self.card.data.train).nuisance is not None
        return tuple(name for name in self.card.reading.targets if name != "nuisance" or has_nuisance)

    def _catalog_models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.model for one in self.card.baselines.values() if one.model is not None))

    def _record(self, expanded: Sequence[Expanded], protocol: ProtocolCard) -> StudyRecord:
        card = self.card
        entries = [StudyEntry(arm=e.arm, model=e.training.key, seed=e.seed, probed=e.probe) for e in expanded]
        entries += [
            StudyEntry(arm=name, model=one.model, trained=False)
            for name, one in card.baselines.items()
            if one.model is not None
        ]
        return StudyRecord(
            key=card.key,
            title=card.title,
            dataset=card.data.train,
            protocol=protocol.key,
            target=protocol.regress.target,
            variants=card.reading.variants,
            arms={name: arm.title for name, arm in card.arms.items()},
            baselines={name: one.title for name, one in card.baselines.items()},
            compare=card.compare,
            labelled=card.data.labelled,
            entries=tuple(entries),
        )


def write_record(record: StudyRecord, workspace: Workspace) -> None:
    publish_text(record_path(studies(workspace), record.key), record.to_json())


def studies(workspace: Workspace) -> Path:
    """Folder of the records."""
    return workspace.root / "studies"


def parse_seeds(text: str | None, card: StudyCard) -> tuple[int, ...]:
    """`0-2`, `0,3` or both; None: the study's. Raises ContractError for anything else."""
    if text is None:
        return card.seeds
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ContractError(f"--seeds {text!r}: give numbers and ranges, as 0-2 or 0,3")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))


def parse_arms(text: str | None, card: StudyCard) -> tuple[str, ...]:
    """Names by commas; None: all. Raises ContractError for a name that is no arm."""
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    if unknown := [name for name in names if name not in card.arms]:
        raise ContractError(f"--arms: {', '.join(unknown)}: no arms of {card.key}; it has {', '.join(card.arms)}")
    return names
