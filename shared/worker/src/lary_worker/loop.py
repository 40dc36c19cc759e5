"""The extract loop: every missing shard of a job, decoded, encoded and written."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.events import Emit
from lary_schema.jobs import ExtractJob
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Failure
from lary_schema.store.writer import StoreWriter
from lary_schema.watchdog import Watchdog

from lary_worker.device import device_name, peak_memory, prepare_torch
from lary_worker.encode import Batch, Encoder, Launched
from lary_worker.pool import Decoded, DecodePool, Outcome, PoolConfig
from lary_worker.registry import make_model
from lary_worker.report import Report, started
from lary_worker.rows import Metadata
from lary_worker.shard import Shard, ShardWriter
from lary_worker.weights import find_weights


@dataclass
class Loop:
    """Decode processes ahead, one batch on the device, one shard being written, at any time."""

    job: ExtractJob
    pool: DecodePool
    encoder: Encoder
    writer: ShardWriter
    report: Report
    watchdog: Watchdog
    _first: bool = field(default=True, init=False)
    _flying: list[Launched | Failure] = field(default_factory=list, init=False)
    """The batch on the device."""

    def fill(self, number: int) -> None:
        """Do one shard, in batches of fixed rows, and hand it to the writer."""
        shard = Shard(self.job.store, number)
        for start in range(0, len(shard.rows), self.job.batch_size):
            batch = self._next_batch(shard, min(self.job.batch_size, len(shard.rows) - start))
            self._encode(shard, batch)
        self._settle(shard)
        with self.report.waiting("write"):
            self.watchdog.beat(f"writing shard {number}")
            self.writer.submit(shard, self.encoder.size)

    def finish(self) -> None:
        """Wait for the last shard."""
        with self.report.waiting("write"):
            self.watchdog.beat("writing the last shard")
            self.writer.wait()

    def _next_batch(self, shard: Shard, count: int) -> Batch:
        """The next `count` rows without those that failed."""
        self.watchdog.beat("decoding")
        with self.report.waiting("decode"):
            outcomes = self.pool.take(count, partial(self.watchdog.beat, "decoding"))
            self._refuse_broken(outcomes)
            failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
            batch = self._assemble(decoded)
            self.pool.release()
        clamped = [row.row for row in decoded if row.clamped]
        shard.clamped.extend(clamped)
        self.report.clamped(len(clamped))
        for failure in failures:
            self._fail(shard, failure)
        self.report.done(len(failures))
        return batch

    def _assemble(self, decoded: list[Decoded]) -> Batch:
        spec = self.encoder.model.spec.input
        inputs = self.encoder.host_array((len(decoded), *spec.shape), spec.dtype)
        array = inputs.numpy()
        for at, row in enumerate(decoded):
            array[at] = row.array
        return Batch(np.array([row.row for row in decoded], np.int64), inputs)

    def _refuse_broken(self, outcomes: list[Outcome]) -> None:
        """A model that cannot preprocess any row of the first batch is broken; the rows are not bad."""
        if self._first and all(isinstance(o, Failure) and o.reason == "preprocess_error" for o in outcomes):
            raise ContractError(
                f"model {self.job.values.model} fails in preprocess on every row of the first batch: {outcomes[0]}"
            )
        self._first = False

    def _encode(self, shard: Shard, batch: Batch) -> None:
        """Start on a batch, and only then wait for the one before, so that the device never idles."""
        with self.report.waiting("encode"):
            self.watchdog.beat(f"encoding rows from {batch.rows[0] if len(batch.rows) else shard.rows.start}")
            launched = self.encoder.launch(batch)
        self._settle(shard)
        self._flying = launched

    def _settle(self, shard: Shard) -> None:
        """Wait for the batch on the device and put its latents into the shard."""
        with self.report.waiting("encode"):
            for item in self._flying:
                for result in [item] if isinstance(item, Failure) else self.encoder.collect(item):
                    if isinstance(result, Failure):
                        self._fail(shard, result)
                    else:
                        shard.put(result.row, result.tokens, result.indices)
                    self.report.done(1)
                self.watchdog.beat("encoding")
        self._flying = []

    def _fail(self, shard: Shard, failure: Failure) -> None:
        shard.fail(failure)
        self.report.failed(failure)


def fill(
    job: ExtractJob,
    shards: list[int],
    mounts: Mounts,
    metadata: Metadata,
    store: StoreWriter,
    emit: Emit,
    watchdog: Watchdog,
) -> None:
    """Extract claimed `shards`, ascending, into `store`. Raises ContractError where the job cannot go on."""
    values, ranges = job.values, [job.store.shard_range(shard) for shard in shards]
    device = prepare_torch(job)
    model = make_model(values.model, values.mode, values.variant)
    weights = find_weights(job, model.card, mounts.weights, watchdog.beat)
    total = sum(map(len, ranges))
    emit(started(job, total, device_name(device)))
    writer = ShardWriter(store, job.id, emit, device_name(device))
    with DecodePool(_pool_config(job), metadata.tasks(ranges)) as pool, writer:
        watchdog.beat("loading the model")
        model.load(weights, device, torch.bfloat16 if values.precision == "bf16" else torch.float32, values.seed)
        encoder = Encoder(model, job, device, emit)
        report = Report(job.id, total, emit)
        loop = Loop(job, pool, encoder, writer, report, watchdog)
        for shard in shards:
            loop.fill(shard)
        loop.finish()
    report.finished(encoder.size, peak_memory(device))


def _pool_config(job: ExtractJob) -> PoolConfig:
    values = job.values
    return PoolConfig(
        key=values.model,
        mode=values.mode,
        variant=values.variant,
        decoder=values.decoder,
        spec=values.spec.input,
        workers=job.workers,
        row_timeout_s=job.row_timeout_s,
        # A batch being assembled and two ahead of it.
        slots=max(3 * job.batch_size, job.batch_size + 2 * job.workers),
    )
