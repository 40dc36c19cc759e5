"""The command `extract`: a job's missing shards, then the verdict on its failed rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from lary_schema.base import TooManyFailedError
from lary_schema.events import Emit, Warned
from lary_schema.jobs import ExtractJob
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Provenance, Store
from lary_schema.store.writer import LatentWriter
from lary_schema.watchdog import Watchdog

from lary_worker.agreement import check_agreement
from lary_worker.chunks import metadata_of
from lary_worker.pool import DecodePool, PoolConfig
from lary_worker.registry import libraries
from lary_worker.report import Report, started

if TYPE_CHECKING:
    from lary_worker.loop import Extraction

_POLL_S = 1.0
"""Between two looks at the shards that another run is writing."""


def extract(job: ExtractJob, emit: Emit) -> None:
    """Do the job. Raises ContractError, which is the exit code, where it cannot be done as given."""
    mounts = Mounts.from_env()
    watching = Watchdog(emit, job.id, job.stall_timeout_s, computes=job.device == "cpu")
    emit = watching.emit
    with watching as watchdog, ExitStack() as held:
        watchdog.beat("checking the job")
        check_agreement(job)
        metadata = metadata_of(job, mounts)
        metadata.verify()
        root = mounts.latents / job.store.path
        writer = held.enter_context(closing(LatentWriter.open(root, _provenance(job), job.locks)))
        extraction: Extraction | None = None
        for shards in _rounds(job, writer, emit, watchdog):
            metadata.require_media()
            ranges = [job.store.shard_range(shard) for shard in shards]
            with DecodePool(PoolConfig.of(job), metadata.tasks(ranges)) as pool:
                # Imports torch: here, while decode processes start, and not where nothing is left to do.
                from lary_worker.loop import Extraction

                rows = sum(map(len, ranges))
                extraction = extraction or Extraction(job, rows, mounts.weights, writer, emit, watchdog)
                extraction.fill(shards, pool)
        if extraction is None:
            emit(started(job, 0, job.device))
            Report(job.id, 0, emit).finished()
        else:
            extraction.finished()
    _check_failed(job, writer.store)


def _rounds(job: ExtractJob, writer: LatentWriter, emit: Emit, watchdog: Watchdog) -> Iterator[list[int]]:
    """The missing shards, claimed: once as a rule, and each shard once at most.

    Those that another process is writing (another run on this volume) come last: what it finishes is taken as it is,
    what it leaves unfinished makes another round.
    """
    missing, waiting = writer.missing(job.shards), False
    while missing:
        claimed = [shard for shard in missing if writer.take(shard)]
        # Another worker may have finished one just before it was claimed.
        if mine := writer.missing(claimed):
            if not job.mixed:
                writer.refuse_mixed(job.device)
            yield mine
        for shard in claimed:
            writer.release(shard)
        missing = writer.missing(set(missing) - set(claimed))
        if claimed or not missing:
            continue
        doing = f"waiting for another run that is writing {_named(missing)} of this store"
        if not waiting:
            emit(Warned(job=job.id, message=doing))
        waiting = True
        watchdog.beat(doing)
        time.sleep(_POLL_S)


def _named(shards: list[int]) -> str:
    return f"shard {shards[0]}" + (f" and {len(shards) - 1} more" if len(shards) > 1 else "")


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
            f"{job.max_failed:g} allows; the first is row {first.row} ({first.reason}: {first.detail}). Replace "
            "the files and run again with --retry-failed, or allow more by --max-failed"
        )
