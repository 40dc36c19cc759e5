"""The command `extract`: a job's missing shards, then the verdict on its failed rows."""

from contextlib import ExitStack, closing

from lary_schema.base import TooManyFailedError
from lary_schema.events import Emit
from lary_schema.jobs import ExtractJob
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Provenance, Store
from lary_schema.store.writer import StoreWriter
from lary_schema.watchdog import Watchdog

from lary_worker.agreement import check_agreement
from lary_worker.pool import DecodePool, PoolConfig
from lary_worker.registry import libraries
from lary_worker.report import Report, started
from lary_worker.rows import Metadata


def extract(job: ExtractJob, emit: Emit) -> None:
    """Do the job. Raises ContractError, which is the exit code, where it cannot be done as given."""
    mounts = Mounts.from_env()
    with Watchdog(emit, job.id, job.stall_timeout_s) as watchdog, ExitStack() as held:
        watchdog.beat("checking the job")
        check_agreement(job)
        metadata = Metadata(job, mounts)
        metadata.verify()
        writer = held.enter_context(closing(StoreWriter.open(mounts.latents / job.store.path, _provenance(job))))
        for shard in writer.missing(job.shards):
            held.enter_context(writer.claim(shard))
        # Another worker may have finished one just before it was claimed.
        shards = writer.missing(job.shards)
        if shards:
            metadata.require_media()
            ranges = [job.store.shard_range(shard) for shard in shards]
            with DecodePool(PoolConfig.of(job), metadata.tasks(ranges)) as pool:
                # Imports torch: here, while decode processes start, and not where nothing is left to do.
                from lary_worker.loop import fill

                fill(job, shards, mounts.weights, pool, writer, emit, watchdog)
        else:
            emit(started(job, 0, job.device))
            Report(job.id, 0, emit).finished()
    _check_failed(job, writer.store)


def _provenance(job: ExtractJob) -> Provenance:
    return Provenance(
        layout=job.store,
        values=job.values,
        image=job.image,
        image_digest=job.image_digest,
        code_revision=job.code_revision,
        libraries=libraries(),
    )


def _check_failed(job: ExtractJob, store: Store) -> None:
    records = store.records()
    failures = [failure for record in records for failure in record.failures]
    if len(failures) > job.max_failed * job.store.rows:
        first = failures[0]
        raise TooManyFailedError(
            f"{store.root}: {len(failures)} of {job.store.rows} rows failed, more than --max-failed "
            f"{job.max_failed:g} allows; the first is row {first.row} ({first.reason}: {first.detail}). Mend the data "
            f"and delete the markers of those shards in {store.markers}, or raise --max-failed"
        )
