"""What a run writes before its jobs start: their folders, the CSVs in them, and the plan itself."""

import hashlib
from pathlib import Path

from lary_results.files import RESULT_FILE
from lary_schema.atomic import publish_text, replacing
from lary_schema.base import ContractError
from lary_schema.jobs import ProbeJob
from lary_schema.presence import SplitSource
from lary_schema.runs import PlanFile, RunPaths, RunProbe, RunStore
from lary_schema.store.layout import Store

from lary_orch.plan.jobs import Plan
from lary_orch.plan.stores import StoreState
from lary_orch.runtimes.jobs import JOB_FILE, Job
from lary_orch.workspace import Workspace

COPY_BYTES = 1 << 20


def write_job(job: Job, workspace: Workspace) -> Path:
    """Make the job's folder (its job mount) and give its path; reopen the shards that must be redone.

    Raises ContractError where a CSV changed since it was planned.
    """
    folder = job.mounts.job
    for split in job.files:
        _link(snapshot(split, workspace.cache), folder / split.source.metadata.path)
    if job.document is not None:
        publish_text(folder / JOB_FILE, job.document.to_json())
    for output in job.outputs:
        for shard in job.reopen:
            Store(workspace.latents / output.path).marker(shard).unlink(missing_ok=True)
    for name in ("out", "latents"):
        getattr(job.mounts, name).mkdir(parents=True, exist_ok=True)
    return folder


def write_plan(plan: Plan, workspace: Workspace) -> RunPaths:
    """Publish `plan.json`; the run's folders."""
    paths = workspace.run(plan.run)
    document = PlanFile(
        run=plan.run,
        protocol=plan.protocol,
        latents=str(workspace.latents),
        stores=tuple(_store_entry(store, workspace) for store in plan.stores),
        probes=tuple(_probe_entry(probe) for probe in plan.probes),
        problems=tuple(str(problem) for problem in plan.problems),
    )
    publish_text(paths.plan, document.to_json())
    return paths


def _store_entry(store: StoreState, workspace: Workspace) -> RunStore:
    values, layout = store.values, store.layout
    columns = values.columns
    return RunStore(
        model=values.model,
        variant=values.variant,
        dataset=values.dataset,
        split=values.split,
        path=layout.path,
        rows=layout.rows,
        shards=layout.shards,
        csv=str(snapshot(store.source, workspace.cache)),
        columns=(columns.video,) if columns.input == "video" else (columns.source, columns.target),
    )


def _probe_entry(planned: Job) -> RunProbe:
    job = planned.document
    assert isinstance(job, ProbeJob)
    return RunProbe(
        id=job.id,
        model=job.model,
        variant=job.variant,
        dataset=job.dataset,
        control=job.control,
        fingerprint=job.fingerprint,
        result=str(planned.result or planned.mounts.out / RESULT_FILE),
    )


# --- snapshots --------------------------------------------------------------------------------


def snapshot(split: SplitSource, cache: Path) -> Path:
    """A read-only copy of a split's CSV as it was planned, made once and shared by all jobs.

    Raises ContractError where the CSV has changed meanwhile.
    """
    target = cache / "snapshots" / f"{split.sha256}.csv"
    if target.is_file():
        return target
    with replacing(target) as draft:
        if _copy(split.csv, draft) != split.sha256:
            raise ContractError(f"{split.csv}: changed while the run was planned; start it again")
        draft.chmod(0o444)
    return target


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the sha256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(COPY_BYTES):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    """Have `target` be `source`: by a hard link, or a copy where the file system has none."""
    with replacing(target) as draft:
        try:
            draft.hardlink_to(source)
        except OSError:
            _copy(source, draft)
