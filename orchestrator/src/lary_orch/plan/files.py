"""What a run writes before its jobs start: their folders, the CSVs in them, and the plan itself."""

from pathlib import Path

from lary_results.files import RESULT_FILE
from lary_schema.atomic import publish_text
from lary_schema.jobs import ProbeJob
from lary_schema.runs import PlanFile, RunPaths, RunProbe, RunStore, RunTraining
from lary_schema.snapshots import link_copy, snapshot
from lary_schema.store.layout import Store
from lary_schema.store_state import StoreState
from lary_schema.training import TRAINING_FILE, TrainJob

from lary_orch.plan.jobs import Plan
from lary_orch.runtimes.jobs import JOB_FILE, Job
from lary_orch.workspace import Workspace


def write_job(job: Job, workspace: Workspace) -> Path:
    """Make the job's folder (its job mount) and give its path; reopen the shards that must be redone.

    Raises ContractError where a CSV changed since it was planned.
    """
    folder = job.mounts.job
    for split in job.files:
        link_copy(snapshot(split, workspace.cache), folder / split.source.metadata.path)
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
        trainings=tuple(_training_entry(job) for job in plan.trainings),
        stores=tuple(_store_entry(store, workspace) for store in plan.stores),
        probes=tuple(_probe_entry(probe) for probe in plan.probes),
        problems=tuple(str(problem) for problem in plan.problems),
    )
    publish_text(paths.plan, document.to_json())
    return paths


def _training_entry(planned: Job) -> RunTraining:
    assert isinstance(planned.document, TrainJob)
    result = str(planned.mounts.out / TRAINING_FILE)
    return RunTraining(id=planned.id, key=planned.document.values.key, result=result)


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
