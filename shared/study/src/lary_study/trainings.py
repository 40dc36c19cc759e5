"""One training as a job: what determines its bytes, its folder, and the model that it makes, known before it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.catalog.splits import find_split, wanted_splits
from lary_orch.plan.planner import UNNAMED
from lary_orch.plan.trained import KnownModel, trained_model
from lary_orch.plan.verbs import TRAIN
from lary_orch.runtimes.base import Notify, Runtime
from lary_orch.runtimes.describe import describe_recipe
from lary_orch.runtimes.generated import make_generated
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.weights.index import Trained, find_weights
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.jobs import Decoder, Precision, WeightFile
from lary_schema.locks import lock_kind
from lary_schema.mounts import Mounts
from lary_schema.presence import SplitSource
from lary_schema.revision import code_revision
from lary_schema.trained import START, Checkpoint
from lary_schema.training import TRAINING_FILE, Labelled, Recipe, TrainData, TrainJob, TrainValues, trained_key

WORKERS = 2


@dataclass(frozen=True)
class Settings:
    """What a request says of its trainings besides recipe, data and seed."""

    precision: Precision = "fp32"
    decoder: Decoder = "pyav"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    workers: int | None = None
    """Decode processes of a training, or of an extraction of a study; None: WORKERS."""
    row_timeout_s: float = 60
    stall_timeout_s: float = 600
    max_failed: float = 0.01
    save_every: int = 100
    evaluate_every: int = 100
    micro_batch: int | None = None
    processes: int = 1
    keep_states: bool = False
    strict_health: bool = False


@dataclass(frozen=True)
class Training:
    """A planned training, done or not."""

    values: TrainValues
    job: Job
    model: KnownModel
    """What extraction from it needs."""

    @property
    def key(self) -> str:
        return self.values.key

    @property
    def folder(self) -> Path:
        """Of its checkpoint."""
        return self.job.mounts.out


def image_of(recipe: Recipe, catalog: Catalog) -> ImageSource:
    """The image that trains a recipe: the one that reads what it makes.

    Raises ContractError where none of the catalog does.
    """
    key = trained_key(recipe.key, "0" * 64)
    for source, card in catalog.models():
        if card.pattern is not None and card.serves(key):
            return source
    raise ContractError(
        f"recipe {recipe.key}: no image of the catalog reads models like {key}; its image's card needs a family "
        f"(pattern:) of these keys, and --catalog its folder"
    )


@dataclass
class Trainings:
    """Plans trainings on one dataset; equal ones are one."""

    workspace: Workspace
    catalog: Catalog
    runtime: Runtime
    notify: Notify
    settings: Settings
    dataset: str
    _made: dict[str, Training] = field(default_factory=dict)
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _splits: tuple[SplitSource, SplitSource | None] | None = None
    _revision: str | None = None

    @property
    def made(self) -> tuple[Training, ...]:
        """All that were planned, each once."""
        return tuple(self._made.values())

    def plan(
        self, recipe: Recipe, seed: int, labelled: Labelled | None = None, start: Training | Checkpoint | None = None
    ) -> Training:
        """The training of a recipe. Raises ContractError where it cannot be planned."""
        prepared = self._prepare(image_of(recipe, self.catalog))
        card, code, libraries = describe_recipe(self.runtime, prepared, recipe, self.workspace.cache)
        weights = find_weights(card, self.workspace.weights, self.workspace.cache, trained=_started(start))
        source, held_out = self._found_splits()
        values = TrainValues(
            recipe=recipe,
            data=self._data(source, labelled),
            held_out=None if held_out is None else self._data(held_out, labelled),
            labelled=labelled,
            init=weights.hashes,
            seed=seed,
            precision=self.settings.precision,
            decoder=self.settings.decoder,
            code_sha256=code,
            libraries=libraries or {},
        )
        if values.key in self._made:
            return self._made[values.key]
        checkpoint = Checkpoint.of(self.workspace.trained, values.key)
        document = self._document(values, prepared, source, held_out, weights.files)
        unnamed = self.workspace.run(UNNAMED).root
        mounts = Mounts(
            data=source.data,
            weights=weights.root,
            latents=self.workspace.latents,
            job=unnamed,
            out=checkpoint.folder,
        )
        job = TRAIN.job(
            document.id,
            document,
            prepared,
            mounts,
            run=UNNAMED,
            stall_timeout_s=document.stall_timeout_s,
            files=(source, *([held_out] if held_out else [])),
            result=checkpoint.folder / TRAINING_FILE if _is_done(checkpoint, values) else None,
        )
        model = trained_model(checkpoint.folder, values, self.runtime, prepared, self.workspace)
        return self._made.setdefault(values.key, Training(values, job, model))

    def _document(
        self,
        values: TrainValues,
        prepared: Prepared,
        source: SplitSource,
        held_out: SplitSource | None,
        init: tuple[WeightFile, ...],
    ) -> TrainJob:
        settings = self.settings
        self._revision = self._revision or code_revision(repository())
        return TrainJob(
            id=f"train.{values.key}",
            image=prepared.ref,
            image_digest=prepared.digest,
            code_revision=self._revision,
            device=settings.device,
            threads=settings.threads and settings.threads * settings.processes,
            stall_timeout_s=settings.stall_timeout_s,
            values=values,
            source=source.source,
            held_out=None if held_out is None else held_out.source,
            init=init,
            save_every=settings.save_every,
            evaluate_every=settings.evaluate_every,
            micro_batch=settings.micro_batch,
            processes=settings.processes,
            workers=settings.workers or WORKERS,
            row_timeout_s=settings.row_timeout_s,
            max_failed=settings.max_failed,
            keep_states=settings.keep_states,
            strict_health=settings.strict_health,
            locks=lock_kind(),
        )

    def _prepare(self, image: ImageSource) -> Prepared:
        name = image.card.name
        if name not in self._prepared:
            self._prepared[name] = self.runtime.prepare(image, self.notify)
        return self._prepared[name]

    @property
    def card(self) -> DatasetCard:
        return self.catalog.dataset(self.dataset)

    def _found_splits(self) -> tuple[SplitSource, SplitSource | None]:
        """The split that is trained on, and the one that is held out: the first that the card evaluates."""
        if self._splits is None:
            card = self.card
            make_generated(card, self.workspace, self.notify)
            held_out = [find_split(card, name, self.workspace) for name in wanted_splits(card, ())[:1]]
            train = find_split(card, card.splits.train, self.workspace)
            self._splits = train, held_out[0] if held_out else None
        return self._splits

    def _data(self, split: SplitSource, labelled: Labelled | None) -> TrainData:
        card, source = self.card, split.source
        if labelled is not None and card.actions is None:
            raise ContractError(f"dataset {card.key} has no actions:, so no share of it is labelled; leave --labelled")
        return TrainData(
            dataset=card.key,
            split=split.split,
            metadata_sha256=source.metadata.sha256,
            columns=source.columns,
            media=source.media,
            frames=source.frames,
            group=card.group,
            actions=card.actions if labelled else None,
            instruction=card.instruction,
            latents=card.latents if labelled else None,
        )


def _started(start: Training | Checkpoint | None) -> Trained | None:
    if start is None:
        return None
    fingerprint = start.values.fingerprint if isinstance(start, Training) else start.result.fingerprint
    return Trained(START, start.folder, fingerprint)


def _is_done(checkpoint: Checkpoint, values: TrainValues) -> bool:
    return checkpoint.is_whole and checkpoint.result.fingerprint == values.fingerprint
