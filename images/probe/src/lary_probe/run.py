"""One probe job from its document to `result.json`."""

from typing import Literal

import torch
from lary_schema.base import ContractError, OutOfMemoryError
from lary_schema.cards import check_roles
from lary_schema.events import Emit
from lary_schema.groups import Grouping
from lary_schema.jobs import ProbeJob
from lary_schema.mounts import Mounts
from lary_schema.results import ProbeResult, recipe_of

from lary_probe.buffers import give_back, start_counting
from lary_probe.classify import Classification, classify
from lary_probe.data import ProbeData, open_data
from lary_probe.describe import code_sha256, libraries
from lary_probe.outputs import Outputs
from lary_probe.regress import Regression, regress
from lary_probe.session import Session, open_session
from lary_probe.trackers import prepare_trackers


def run_probe(command: str, job: ProbeJob, emit: Emit) -> None:
    """Do the job. Raises ContractError for one that cannot be done as given."""
    check_job(command, job)
    mounts = Mounts.from_env()
    start_counting(job.device)
    try:
        with open_session(job, mounts, emit) as session:
            _probe(session)
            session.finish()
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"out of memory on {job.device}: {str(error).splitlines()[0]}. Take a protocol with a smaller batch_size"
        ) from error
    finally:
        give_back(job.device)


def check_job(command: str, job: ProbeJob) -> None:
    """Raises ContractError where the job is for another command or another state of this code."""
    if job.kind != command:
        raise ContractError(f"job {job.id} is to be done by `{job.kind}`, not by `{command}`")
    if job.code_sha256 != code_sha256():
        raise ContractError(
            f"job {job.id} was planned for probe sources {job.code_sha256[:16]}, these are {code_sha256()[:16]}; "
            "plan the run again"
        )
    try:
        check_roles(job.train.name, [split.name for split in job.evaluate])
    except ValueError as error:
        raise ContractError(f"job {job.id}: {error}") from None


def _probe(session: Session) -> None:
    job = session.job
    outputs = Outputs(session.mounts.out)
    if session.accelerator.is_main_process:
        outputs.begin()
    prepare_trackers(session)
    session.alive("opening stores and tables of rows")
    data = open_data(job, session.mounts, lambda: session.alive("reading latents"))
    session.alive("preparing targets")
    found = classify(session, data, outputs) if job.kind == "classify" else regress(session, data, outputs)
    session.alive("writing the result")
    if session.accelerator.is_main_process:
        outputs.result(_result(session, data, found))


def _result(session: Session, data: ProbeData, found: Classification | Regression) -> ProbeResult:
    job = session.job
    recipe = job.protocol.regress if job.kind == "regress" else None
    return ProbeResult(
        kind=job.kind,
        metric="top1" if job.kind == "classify" else "mse",
        run=job.run,
        model=job.model,
        variant=job.variant,
        dataset=job.dataset,
        input=job.train.source.columns.input,
        protocol=job.protocol.key,
        recipe=recipe_of(job.protocol, job.kind),
        control=job.control,
        measures=_measures(job),
        learned=found.learned,
        group=_group_text(job.group),
        holdout=found.holdout,
        warnings=tuple(session.warnings),
        head=recipe.head if recipe else None,
        target=recipe.target if recipe else None,
        reads=job.reads,
        targets_sha256=found.targets_sha256,
        fingerprint=job.fingerprint,
        splits=found.splits,
        train_rows=data.train.count,
        classes=found.classes if isinstance(found, Classification) else (),
        stores=data.traces,
        probe_image=job.image,
        probe_image_digest=job.image_digest,
        probe_code_sha256=job.code_sha256,
        code_revision=job.code_revision,
        device=session.device_name,
        libraries=libraries(),
        seconds=session.seconds,
    )


def _measures(job: ProbeJob) -> Literal["score", "chance", "overfitting"]:
    if job.control == "none":
        return "score"
    return "overfitting" if job.kind == "regress" else "chance"


def _group_text(grouping: Grouping | None) -> str | None:
    if grouping is None:
        return None
    return grouping.column if grouping.pattern is None else f"{grouping.column}: {grouping.pattern}"
