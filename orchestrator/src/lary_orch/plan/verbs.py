"""Verbs as data: what the jobs of each command of images read, write and are called.

Mounts, the order of jobs, what is hopeless and what is missing at the end follow from it (`runtimes.jobs`). A new
verb is one more declaration here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lary_results.files import RESULT_FILE
from lary_schema.base import Document
from lary_schema.jobs import ExtractJob, ProbeJob, Values
from lary_schema.mounts import Mounts
from lary_schema.training import TRAINING_FILE, TrainJob

from lary_orch.runtimes.jobs import Job, MountName, Output, Prepared

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Verb(Generic[D]):
    """One command of images."""

    name: str
    document: type[D]
    """What its `job.json` holds."""
    reads: tuple[MountName, ...]
    """Mounts that it sees besides the job's own folder."""
    writes: MountName
    """The one mount that it may write."""
    outputs: Callable[[D], tuple[Output, ...]]
    inputs: Callable[[D], tuple[str, ...]]
    """Fingerprints of stores and weights that another job may have to write first."""
    title: Callable[[D], str]
    """For people: what is done to what."""
    group: Callable[[D], str] | None = None
    """Jobs that do parts of one thing have the same; None: each stands alone."""
    slots: Callable[[D], int] | None = None
    """None: one."""

    def job(self, job_id: str, document: D, image: Prepared, mounts: Mounts, **fields: Any) -> Job:
        """The job that a document declares; `fields` are further ones of `Job`."""
        return Job(
            id=job_id,
            verb=self.name,
            title=self.title(document),
            mounts=mounts,
            group=self.group(document) if self.group else job_id,
            outputs=self.outputs(document),
            image=image,
            document=document,
            inputs=self.inputs(document),
            reads=self.reads,
            writes=self.writes,
            slots=self.slots(document) if self.slots else 1,
            **fields,
        )

    def read_outputs(self, job_file: Path) -> tuple[Output, ...]:
        """What the job of a stored document writes. Raises ContractError where it cannot be read."""
        return self.outputs(self.document.read(job_file))


def store_group(values: Values) -> str:
    """The name that all jobs of one store have in common."""
    return f"extract.{values.dataset}.{values.split}.{values.model}.{values.variant}"


def probe_kind(job: ProbeJob) -> list[str]:
    """What makes a probe another than its task's usual one: head, target, what is read, control."""
    recipe = job.protocol.regress if job.kind == "regress" else None
    head = [recipe.head] if recipe and recipe.head != "mlp" else []
    target = [recipe.target] if recipe and recipe.target != "absolute" else []
    reads = [job.reads] if job.reads != "actions" else []
    return [*head, *target, *reads, *([job.control] if job.control != "none" else [])]


def _extract_title(job: ExtractJob) -> str:
    values = job.values
    return f"{values.model} ({values.variant}) on {values.dataset}/{values.split}"


def _probe_title(job: ProbeJob) -> str:
    kind = "".join(f", {part}" for part in probe_kind(job))
    return f"{job.model} ({job.variant}) on {job.dataset}{kind}"


EXTRACT = Verb(
    name="extract",
    document=ExtractJob,
    reads=("data", "weights"),
    writes="latents",
    outputs=lambda job: (Output("latents", job.store.path, job.store.fingerprint, job.shards),),
    inputs=lambda job: tuple(file.sha256 for file in job.weights),
    title=_extract_title,
    group=lambda job: store_group(job.values),
)


def _probe(name: str) -> Verb[ProbeJob]:
    return Verb(
        name=name,
        document=ProbeJob,
        reads=("data", "latents"),
        writes="out",
        outputs=lambda job: (Output("out", RESULT_FILE, job.fingerprint),),
        inputs=lambda job: tuple(split.store.fingerprint for split in (job.train, *job.evaluate)),
        title=_probe_title,
        slots=lambda job: job.processes,
    )


CLASSIFY, REGRESS = _probe("classify"), _probe("regress")
TRAIN = Verb(
    name="train",
    document=TrainJob,
    reads=("data", "weights"),
    writes="out",
    outputs=lambda job: (Output("out", TRAINING_FILE, job.fingerprint),),
    inputs=lambda job: tuple(file.sha256 for file in job.init),
    title=lambda job: f"{job.values.key} on {job.values.data.dataset}/{job.values.data.split}, seed {job.values.seed}",
    slots=lambda job: job.processes,
)
VERBS: dict[str, Verb[Any]] = {verb.name: verb for verb in (TRAIN, EXTRACT, CLASSIFY, REGRESS)}
