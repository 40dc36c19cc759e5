"""From a request to jobs: the matrix of models, datasets and splits, less what is done already.

Planning writes nothing but caches (and makes a demo set that is requested). What cannot be planned
does not stop the rest: it becomes a `Problem`.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from lary_results.baselines import baselines_of
from lary_results.files import by_fingerprint, failed_rows
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import DatasetCard, ModelCard, ProbeKind, Reads, Target
from lary_schema.jobs import IMPORTED, ExtractJob, ProbeJob, ProbeSplit
from lary_schema.labels import check_labels
from lary_schema.locks import lock_kind
from lary_schema.mounts import Mounts
from lary_schema.presence import SplitSource, stats_sha256
from lary_schema.revision import code_revision
from lary_schema.runs import RunPaths
from lary_schema.store_state import StoreState, check_alike, check_failed, partitions, plan_store
from lary_schema.trained import Checkpoint
from lary_schema.training import TrainJob
from lary_schema.values import make_values

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.catalog.splits import find_split, split_groups, split_labels, wanted_splits
from lary_orch.plan.imported import ImportedModel, imported_store
from lary_orch.plan.jobs import Plan, Problem, Request
from lary_orch.plan.names import check_variants, variants_of
from lary_orch.plan.trained import KnownModel, trained_model
from lary_orch.plan.verbs import EXTRACT, VERBS, Verb, probe_kind, store_group
from lary_orch.runtimes.base import Notify, Runtime
from lary_orch.runtimes.describe import describe_model, describe_probe
from lary_orch.runtimes.generated import make_generated
from lary_orch.runtimes.jobs import Job, Prepared, link
from lary_orch.weights.index import check_present, find_weights, weight_path, weights_at
from lary_orch.workspace import Workspace

Control = Literal["none", "shuffled"]
UNNAMED = "unnamed"
"""A probe job's run until the run has its name, which is a hash over all jobs."""


def make_plan(request: Request, workspace: Workspace, catalog: Catalog, runtime: Runtime, notify: Notify) -> Plan:
    """Plan a run. Images are made ready on the way; `notify` hears of what takes long."""
    return assemble(request.protocol.key, [plan_part(request, workspace, catalog, runtime, notify)], workspace)


@dataclass(frozen=True)
class Part:
    """What one request comes to, before the run that it is a part of has its name."""

    stores: tuple[StoreState, ...] = ()
    trainings: tuple[Job, ...] = ()
    extracts: tuple[Job, ...] = ()
    probes: tuple[Job, ...] = ()
    problems: tuple[Problem, ...] = ()


def plan_part(
    request: Request,
    workspace: Workspace,
    catalog: Catalog,
    runtime: Runtime,
    notify: Notify,
    planned: Mapping[str, KnownModel] | None = None,
    made: Container[str] = (),
) -> Part:
    """As `make_plan`, for a run that may have other parts.

    `planned` are the models of its trainings, by key; `made` the demo sets just found whole, which costs a look at each
    of their files.
    """
    planner = _Planner(request, workspace, catalog, runtime, notify, planned or {}, made)
    models = list(planner.models())
    cells = list(planner.cells(models, list(planner.datasets())))
    extracts = tuple(job for cell in cells for job in planner.extracts(cell))
    probes = tuple(planner.probes(cells))
    stores = tuple(store for cell in cells for store in cell.stores)
    return Part(stores, (), extracts, probes, tuple(planner.problems))


def assemble(protocol: str, parts: Sequence[Part], workspace: Workspace) -> Plan:
    """One run of all parts: its name, and each job needing those that write what it reads."""
    whole = _merged(parts)
    hashes = [store.layout.fingerprint for store in whole.stores] + [_probe_of(job).fingerprint for job in whole.probes]
    hashes += [output.fingerprint for job in whole.trainings for output in job.outputs]
    run = f"{protocol}-{fingerprint(sorted(hashes))[:8]}"
    trainings, extracts, probes = (
        [_in_run(job, workspace.run(run)) for job in jobs] for jobs in (whole.trainings, whole.extracts, whole.probes)
    )
    # What a finished training wrote is there: nothing waits for it.
    linked = {job.id: job for job in link([*(job for job in trainings if job.result is None), *extracts, *probes])}
    return Plan(
        run=run,
        protocol=protocol,
        stores=whole.stores,
        trainings=tuple(linked.get(job.id, job) for job in trainings),
        extracts=tuple(linked[job.id] for job in extracts),
        probes=tuple(linked[job.id] for job in probes),
        problems=whole.problems,
    )


def _merged(parts: Sequence[Part]) -> Part:
    return Part(*(tuple(chain.from_iterable(getattr(part, one.name) for part in parts)) for one in fields(Part)))


@dataclass(frozen=True)
class _PlannedModel:
    key: str
    variant: str
    known: KnownModel

    @property
    def card(self) -> ModelCard:
        return self.known.card


_Model = _PlannedModel | ImportedModel


@dataclass(frozen=True)
class _PlannedDataset:
    card: DatasetCard
    splits: tuple[SplitSource, ...]
    """Train first."""


@dataclass(frozen=True)
class _Cell:
    """One model on one dataset: a store per split, train first."""

    model: _Model
    dataset: _PlannedDataset
    stores: tuple[StoreState, ...]
    reads: Reads = "actions"


class _Planner:
    """Collects problems instead of stopping at the first."""

    def __init__(
        self,
        request: Request,
        workspace: Workspace,
        catalog: Catalog,
        runtime: Runtime,
        notify: Notify,
        planned: Mapping[str, KnownModel],
        made: Container[str],
    ) -> None:
        self.problems: list[Problem] = []
        self._planned = planned
        self._made = made
        self._request = request
        self._workspace = workspace
        self._catalog = catalog
        self._runtime = runtime
        self._notify = notify
        self._images: dict[str, Prepared | ContractError] = {}
        self._revision = code_revision(repository())

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except ContractError as error:
            self.problems.append(Problem(what, error))

    def _prepare(self, image: ImageSource) -> Prepared:
        """Once per image, also where it fails: making an environment in vain takes minutes."""
        name = image.card.name
        if name not in self._images:
            try:
                self._images[name] = self._runtime.prepare(image, self._notify)
            except ContractError as error:
                self._images[name] = error
        found = self._images[name]
        if isinstance(found, ContractError):
            raise found
        return found

    # --- rows and columns of the matrix -----------------------------------------------------------

    def models(self) -> Iterator[_Model]:
        """The requested models and variants that can be used."""
        keys = dict.fromkeys(self._request.models)
        if IMPORTED in self._request.variants:
            yield from map(ImportedModel, keys)
        for key in keys if self._request.extracts else ():
            with self._noting(f"model {key}"):
                known = self._planned.get(key) or self._known(key)
                check_variants(self._request, known.card, key)
                for variant in variants_of(self._request, known.card):
                    yield _PlannedModel(key, variant, known)

    def _known(self, key: str) -> KnownModel:
        """A model that was trained here, or the catalog's."""
        workspace, checkpoint = self._workspace, Checkpoint.of(self._workspace.trained, key)
        if checkpoint.is_whole:
            prepared = self._prepare(self._catalog.image(checkpoint.card.image))
            return trained_model(checkpoint.folder, checkpoint.result.values, self._runtime, prepared, workspace)
        image = self._catalog.image_for(key)
        declared = self._catalog.model_card(key)
        check_variants(self._request, declared, key)
        check_present(declared, key, workspace.weights)
        prepared = self._prepare(image)
        # The facts of a family's key may lie in its weights.
        own = weights_at(declared, key) if declared.pattern is not None else ()
        folder = weight_path(own[0], workspace.weights) if own else None
        card, libraries = describe_model(self._runtime, prepared, key, workspace.cache, folder)
        return KnownModel(card, prepared, find_weights(card, workspace.weights, workspace.cache), libraries)

    def datasets(self) -> Iterator[_PlannedDataset]:
        """The requested datasets whose every split is there."""
        for key in dict.fromkeys(self._request.datasets):
            with self._noting(f"dataset {key}"):
                card = self._catalog.dataset(key)
                names = (card.splits.train, *wanted_splits(card, self._request.splits))
                if key not in self._made:
                    make_generated(card, self._workspace, self._notify)
                splits = tuple(find_split(card, name, self._workspace) for name in names)
                self._check_labels(card, splits)
                self._check_groups(card, splits)
                yield _PlannedDataset(card, splits)

    def _check_labels(self, card: DatasetCard, splits: Sequence[SplitSource]) -> None:
        if card.labels is not None:
            train, *evaluated = (split_labels(split, card.labels.column, self._workspace.cache) for split in splits)
            from_train = self._request.protocol.class_ids == "train"
            check_labels(card.labels.column, train, evaluated, card.labels.classes, ids_from_train=from_train)

    def _check_groups(self, card: DatasetCard, splits: Sequence[SplitSource]) -> None:
        """What a probe would refuse, before anything is extracted."""
        if card.group is not None:
            train, *_ = (split_groups(split, card.group, self._workspace.cache) for split in splits)
            if train < 2 and self._request.protocol.holds_out("regress" if card.labels is None else "classify"):
                raise ContractError(
                    f"{splits[0].csv}: all rows are of one group, so none can be held out; correct group: in the "
                    "dataset card, or take a protocol with select_on: evaluated"
                )

    def cells(self, models: list[_Model], datasets: list[_PlannedDataset]) -> Iterator[_Cell]:
        """Every model on every dataset that both allow."""
        for dataset in datasets:
            for model in (*models, *self._baselines(dataset.card)):
                with self._noting(f"{model.key} ({model.variant}) on {dataset.card.key}"):
                    stores = tuple(self._store(model, dataset, split) for split in dataset.splits)
                    check_alike(stores)
                    yield _Cell(model, dataset, stores)

    def _baselines(self, dataset: DatasetCard) -> Iterator[_PlannedModel]:
        images = [image.source.card for image in self._images.values() if isinstance(image, Prepared)]
        for key in baselines_of(dataset, self._request.models, images) if self._request.control else ():
            with self._noting(f"model {key}"):
                yield _PlannedModel(key, (known := self._known(key)).card.variants[0], known)

    def _store(self, model: _Model, dataset: _PlannedDataset, split: SplitSource) -> StoreState:
        request, latents, key = self._request, self._workspace.latents, dataset.card.key
        if isinstance(model, ImportedModel):
            store = imported_store(model.key, key, split, latents)
        else:
            values = make_values(
                model.card,
                model.key,
                model.variant,
                key,
                split.split,
                split.source,
                model.known.weights.hashes,
                request.settings,
                dataset.card.actions,
            )
            values = values.model_copy(update={"libraries": model.known.libraries})
            store = plan_store(values, split, latents, request.shard_rows, retry_failed=request.retry_failed)
        check_failed(store, latents, request.max_failed)
        return store

    # --- jobs -------------------------------------------------------------------------------------

    def extracts(self, cell: _Cell) -> Iterator[Job]:
        """The missing shards of a cell's stores, divided among the slots."""
        if isinstance(cell.model, ImportedModel):
            return
        for store in cell.stores:
            for number, shards in enumerate(partitions(store.missing, self._request.slots)):
                yield self._extract(cell.model, store, number, shards)

    def _extract(self, model: _PlannedModel, store: StoreState, number: int, shards: tuple[int, ...]) -> Job:
        values, request = store.values, self._request
        prepared, weights = model.known.prepared, model.known.weights
        job = ExtractJob(
            id=f"{store_group(values)}.p{number}",
            image=prepared.ref,
            image_digest=prepared.digest,
            code_revision=self._revision,
            device=request.device,
            threads=request.threads,
            stall_timeout_s=request.stall_timeout_s,
            values=values,
            source=store.source.source,
            store=store.layout,
            shards=shards,
            weights=weights.files,
            batch_size=request.batch_size or model.card.batch_size,
            workers=request.workers,
            row_timeout_s=request.row_timeout_s,
            max_failed=request.max_failed,
            mixed=request.mixed,
            locks=lock_kind(),
        )
        reopen = tuple(shard for shard in shards if shard in store.reopen)
        mounts = self._mounts(store.source.data, weights.root)
        return self._declared(EXTRACT, job, prepared, mounts, files=(store.source,), reopen=reopen)

    @staticmethod
    def _declared(
        verb: Verb[Any], document: ExtractJob | ProbeJob, image: Prepared, mounts: Mounts, **fields: Any
    ) -> Job:
        """The job of a document; its run has no name yet."""
        return verb.job(
            document.id, document, image, mounts, run=UNNAMED, stall_timeout_s=document.stall_timeout_s, **fields
        )

    def _mounts(self, data: Path, weights: Path) -> Mounts:
        """The folders of the job itself follow from its run's name."""
        unnamed = self._workspace.run(UNNAMED).root
        return Mounts(data=data, weights=weights, latents=self._workspace.latents, job=unnamed, out=unnamed)

    def probes(self, cells: list[_Cell]) -> Iterator[Job]:
        """A probe per cell, and a shuffled control per dataset on its first model."""
        if not cells:
            return
        with self._noting("probe image"):
            prepared = self._prepare(self._catalog.probe())
            code = describe_probe(self._runtime, prepared, self._workspace.cache)
            finished = by_fingerprint(self._workspace.results)
            for cell, control, target in self._probed(cells):
                with self._noting(f"probe of {cell.model.key} ({cell.model.variant}) on {cell.dataset.card.key}"):
                    job = self._probe_job(cell, prepared, code, control, target)
                    result = finished.get(job.fingerprint)
                    yield self._declared(
                        VERBS[job.kind],
                        job,
                        prepared,
                        self._mounts(cell.dataset.splits[0].data, self._workspace.weights),
                        files=cell.dataset.splits,
                        result=result if result and _is_current(result, cell) else None,
                    )

    def _probed(self, cells: Sequence[_Cell]) -> Iterator[tuple[_Cell, Control, Target | None]]:
        for cell, control in _controlled(cells, self._request.control):
            for reads in dict.fromkeys(self._request.probing.reads):
                with self._noting(f"{reads} of dataset {cell.dataset.card.key}"):
                    card = cell.dataset.card.reading(reads)
                    read = replace(cell, dataset=replace(cell.dataset, card=card), reads=reads)
                    for target in self._request.protocol.targets(card, self._request.probing.target):
                        yield read, control, target

    def _probe_job(
        self, cell: _Cell, prepared: Prepared, code: str, control: Control, target: Target | None
    ) -> ProbeJob:
        model, card = cell.model, cell.dataset.card
        kind: ProbeKind = "classify" if card.task == "classification" else "regress"
        splits = [
            ProbeSplit(name=store.source.split, store=store.ref, source=store.source.source) for store in cell.stores
        ]
        probing = self._request.probing
        protocol = self._request.protocol.resolved(kind, probing.seeds, probing.head, target)
        job = ProbeJob(
            id=f"{kind}.{card.key}.{model.key}.{model.variant}",
            image=prepared.ref,
            image_digest=prepared.digest,
            code_revision=self._revision,
            device=self._request.device,
            threads=self._request.threads and self._request.threads * probing.processes,
            stall_timeout_s=self._request.stall_timeout_s,
            kind=kind,
            run=UNNAMED,
            code_sha256=code,
            model=model.key,
            variant=model.variant,
            dataset=card.key,
            time_axis=cell.stores[0].values.spec.time_axis,
            train=splits[0],
            evaluate=tuple(splits[1:]),
            labels=card.labels,
            actions=card.actions,
            reads=cell.reads,
            group=card.group,
            stats_sha256=stats_sha256(card, protocol.regress.target, cell.dataset.splits[0].data),
            allow_unknown_robot=probing.allow_unknown_robot,
            protocol=protocol,
            control=control,
            ram_bytes=probing.ram_bytes,
            trackers=probing.trackers,
            processes=probing.processes,
        )
        return job.model_copy(update={"id": ".".join((job.id, *probe_kind(job)))})


def _controlled(cells: Sequence[_Cell], control: bool) -> Iterator[tuple[_Cell, Control]]:
    """Every cell, and the first one of each dataset once more as its control."""
    seen: set[str] = set()
    for cell in cells:
        yield cell, "none"
        if control and cell.dataset.card.key not in seen:
            yield cell, "shuffled"
        seen.add(cell.dataset.card.key)


def _is_current(result: Path, cell: _Cell) -> bool:
    """Whether the stores are as the result saw them: whole, and with as many failed rows.

    A job's fingerprint does not show it: rows that failed once may be there after `--retry-failed`.
    """
    splits = ("", *(store.source.split for store in cell.stores[1:]))
    failed = {split: store.failed for split, store in zip(splits, cell.stores, strict=True)}
    return not any(store.missing for store in cell.stores) and failed_rows(result) == failed


def _probe_of(planned: Job) -> ProbeJob:
    assert isinstance(planned.document, ProbeJob)
    return planned.document


def _in_run(planned: Job, run: RunPaths) -> Job:
    """A job with its run's name, and the folders that follow from it."""
    folder = run.job(planned.id)
    out = planned.mounts.out if isinstance(planned.document, TrainJob) else folder
    if isinstance(job := planned.document, ProbeJob):
        planned = replace(planned, document=job.model_copy(update={"run": run.root.name}))
        out = run.out(job.model, job.dataset, "-".join((job.kind, job.variant, *probe_kind(job))))
    return replace(planned, run=run.root.name, mounts=planned.mounts.model_copy(update={"job": folder, "out": out}))
