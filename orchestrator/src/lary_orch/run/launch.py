"""From a planned job to one that can be started: its folders, its mounts, and what it must leave behind."""

from functools import partial
from pathlib import Path

from lary_results.files import RESULT_FILE
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.mounts import Mounts
from lary_schema.results import ProbeResult
from lary_schema.store.layout import Store

from lary_orch.plan.files import write_job
from lary_orch.plan.jobs import PlannedJob
from lary_orch.run.scheduler import Work
from lary_orch.workspace import Workspace

NAMED_SHARDS = 8
"""How many missing shards a message lists."""


def make_work(planned: PlannedJob, workspace: Workspace, run: str) -> Work:
    """Write the job's folder and say what the scheduler has to know. Raises ContractError for a changed CSV."""
    write_job(planned, workspace, run)
    work = as_work(planned, workspace, run)
    for writable in (work.mounts.out, work.mounts.latents):
        writable.mkdir(parents=True, exist_ok=True)
    return work


def as_work(planned: PlannedJob, workspace: Workspace, run: str) -> Work:
    """The same, and nothing is written."""
    folder = workspace.run(run).job(planned.id)
    out = planned.out or folder
    return Work(
        id=planned.id,
        verb=planned.verb,
        title=planned.title,
        prepared=planned.prepared,
        mounts=Mounts(data=planned.data, weights=planned.weights, latents=workspace.latents, job=folder, out=out),
        needs=planned.needs,
        slots=planned.slots,
        stall_timeout_s=planned.job.stall_timeout_s,
        lacks=partial(lacks, planned.job, workspace.latents, out),
    )


def lacks(job: ExtractJob | ProbeJob, latents: Path, out: Path) -> str | None:
    """What an image that ended with 0 has not done."""
    if isinstance(job, ProbeJob):
        path = out / RESULT_FILE
        if path.is_file() and ProbeResult.read(path).fingerprint == job.fingerprint:
            return None
        return f"the image said that it was done, and left no {path} of this job"
    missing = sorted(set(job.shards) - Store(latents / job.store.path).done())
    if not missing:
        return None
    named = ", ".join(map(str, missing[:NAMED_SHARDS])) + (", ..." if len(missing) > NAMED_SHARDS else "")
    return f"the image said that it was done, and shards {named} of {job.store.path} are missing"
