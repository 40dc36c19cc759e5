"""From a planned job to one that can be started: its job folder, its mounts, and what it must leave."""

import os
import shutil
from functools import partial
from pathlib import Path

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text
from lary_schema.base import ContractError, file_sha256
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.mounts import Mounts
from lary_schema.store.layout import StoreIndex

from lary_orch.planning import Plan, PlannedJob
from lary_orch.runtimes.base import JOB_FILE
from lary_orch.scheduler import Work
from lary_orch.workspace import RunPaths, Workspace

RESULT_FILE = "result.json"


def make_work(planned: PlannedJob, workspace: Workspace, paths: RunPaths) -> Work:
    """Write the job's document and CSVs into its job folder, and say what the scheduler has to know.

    Raises ContractError where a CSV is another one than was planned.
    """
    folder = paths.job(planned.id)
    for name, csv in planned.metadata.items():
        _place_csv(csv, _planned_sha256(planned.job, name), folder / name, paths.root / "metadata")
    publish_text(folder / JOB_FILE, planned.job.to_json())
    out = planned.out or folder
    out.mkdir(parents=True, exist_ok=True)
    workspace.latents.mkdir(parents=True, exist_ok=True)
    return Work(
        id=planned.id,
        verb=planned.verb,
        title=planned.title,
        prepared=planned.prepared,
        mounts=Mounts(data=planned.data, weights=planned.weights, latents=workspace.latents, job=folder, out=out),
        needs=planned.needs,
        stall_timeout_s=planned.job.stall_timeout_s,
        lacks=partial(_lacks, planned.job, workspace.latents, out),
    )


def reset_damaged(planned: PlannedJob, workspace: Workspace) -> None:
    """Unmark the shards whose files are lost or cut, so that the job writes them again."""
    if isinstance(planned.job, ExtractJob):
        _unmark(StoreIndex(workspace.latents / planned.job.store.path), planned.damaged)


def forget_failures(plan: Plan, workspace: Workspace) -> int:
    """Unmark the shards that hold failed rows, and drop the results made from them; how many rows.

    The next plan extracts these shards anew and probes again.
    """
    rows, touched = 0, set()
    for store in plan.stores:
        index = StoreIndex(workspace.latents / store.layout.path)
        failed = [record for record in index.records() if record.failures]
        _unmark(index, [record.shard for record in failed])
        rows += sum(len(record.failures) for record in failed)
        touched |= {store.layout.path} if failed else set()
    for job in plan.done_probes:
        if touched & {split.store.path for split in (job.train, *job.evaluate)}:
            plan.finished[job.id].unlink(missing_ok=True)
    return rows


def _unmark(index: StoreIndex, shards: "tuple[int, ...] | list[int]") -> None:
    for shard in shards:
        index.paths.marker(shard).unlink(missing_ok=True)


def _planned_sha256(job: ExtractJob | ProbeJob, name: str) -> str:
    sources = [job.source] if isinstance(job, ExtractJob) else [s.source for s in (job.train, *job.evaluate)]
    return next(source.metadata.sha256 for source in sources if source.metadata.path == name)


def _place_csv(csv: Path, sha256: str, target: Path, pool: Path) -> None:
    """One copy of a CSV per run, linked into every job that reads it (a large one is hundreds of MB)."""
    copy = pool / f"{sha256}.csv"
    if not copy.is_file():
        pool.mkdir(parents=True, exist_ok=True)
        partial_copy = copy.with_name(f"{copy.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        shutil.copyfile(csv, partial_copy)
        if file_sha256(partial_copy) != sha256:
            partial_copy.unlink()
            raise ContractError(f"{csv}: changed since the plan was made; start the command again")
        partial_copy.replace(copy)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(copy, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(copy, target)


def _lacks(job: ExtractJob | ProbeJob, latents: Path, out: Path) -> str | None:
    """What a job that ended with 0 has not written."""
    if isinstance(job, ProbeJob):
        return None if (out / RESULT_FILE).is_file() else f"the image said it was done and left no {out / RESULT_FILE}"
    missing = sorted(set(job.shards) - StoreIndex(latents / job.store.path).done())
    if not missing:
        return None
    return f"the image said it was done, but shards {', '.join(map(str, missing[:8]))} of {job.store.path} are missing"
