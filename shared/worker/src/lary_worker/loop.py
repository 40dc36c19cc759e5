"""The extract loop: every missing shard of a job, decoded, encoded and written."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from lary_schema import more_jobs
from lary_schema.base import ContractError
from lary_schema.events import Emit
from lary_schema.jobs import ExtractJob
from lary_schema.store.layout import Failure
from lary_schema.store.writer import LatentWriter
from lary_schema.watchdog import Watchdog

from lary_worker.device import device_name, peak_memory, prepare_torch
from lary_worker.encode import Batch, Encoder, Launched
from lary_worker.model import Model
from lary_worker.pool import Decoded, DecodePool
from lary_worker.registry import make_model
from lary_worker.report import Report, started
from lary_worker.shard import BackgroundWriter, ShardBuffer
from lary_worker.weights import find_weights

_RAISED_BY_MODEL = ("preprocess_error", "encode_error")
_BROKEN = 2
"""Rows that a model raises for, before it took one, until it counts as broken: one may be the row's fault."""


@dataclass
class Loop:
    """Decode processes ahead, one batch on the device, one shard being written, at any time."""

    job: ExtractJob
    pool: DecodePool
    encoder: Encoder
    writer: BackgroundWriter
    report: Report
    watchdog: Watchdog
    _flying: list[Launched | Failure] = field(default_factory=list, init=False)
    """The batch on the device, and its rows that failed before."""
    _proven: bool = field(default=False, init=False)
    """Whether the model took any row yet."""
    _suspicious: list[Failure] = field(default_factory=list, init=False)
    """What it raised before."""

    def fill(self, number: int) -> None:
        """Do one shard, in batches of fixed rows, and hand it to the writer."""
        shard = ShardBuffer(self.job.store, number)
        for start in range(0, len(shard.rows), self.job.batch_size):
            batch, failures = self._next_batch(shard, min(self.job.batch_size, len(shard.rows) - start))
            results = [*failures, *self._launch(batch)]
            self._refuse_broken(results)
            # Only now, with the next batch under way, so that the device never idles.
            self._settle(shard)
            self._flying = results
        self._settle(shard)
        with self.report.waiting("write"):
            self.watchdog.beat(f"writing shard {number}")
            self.writer.submit(shard, self.encoder.size)

    def finish(self) -> None:
        """Wait for the last shard."""
        with self.report.waiting("write"):
            self.watchdog.beat("writing the last shard")
            self.writer.wait()

    def _next_batch(self, shard: ShardBuffer, count: int) -> tuple[Batch, list[Failure]]:
        """The next `count` rows: those to encode, and those that failed."""
        self.watchdog.beat("decoding")
        with self.report.waiting("decode"):
            outcomes = self.pool.take(count, partial(self.watchdog.beat, "decoding", self.job.row_timeout_s))
            decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
            batch = self._assemble(decoded)
            self.pool.release()
        clamped = [row.row for row in decoded if row.clamped]
        shard.clamped.extend(clamped)
        self.report.clamped(len(clamped))
        return batch, [outcome for outcome in outcomes if isinstance(outcome, Failure)]

    def _assemble(self, decoded: list[Decoded]) -> Batch:
        spec = self.encoder.model.spec.input
        inputs = self.encoder.host_array((len(decoded), *spec.shape), spec.dtype)
        array = inputs.numpy()
        for at, row in enumerate(decoded):
            array[at] = row.array
        return Batch(np.array([row.row for row in decoded], np.int64), inputs)

    def _launch(self, batch: Batch) -> list[Launched | Failure]:
        with self.report.waiting("encode"):
            self.watchdog.beat("encoding")
            return self.encoder.launch(batch)

    def _refuse_broken(self, results: list[Launched | Failure]) -> None:
        """A model that raises for each of its first rows is broken: those are not bad rows."""
        self._proven = self._proven or any(isinstance(result, Launched) for result in results)
        if self._proven:
            return
        self._suspicious += [r for r in results if isinstance(r, Failure) and r.reason in _RAISED_BY_MODEL]
        if len(self._suspicious) >= _BROKEN:
            first = self._suspicious[0]
            raise ContractError(
                f"model {self.job.values.model} takes no row: it raised for the first {len(self._suspicious)} "
                f"(row {first.row}: {first.reason}: {first.detail}); its traceback is on stderr"
            )

    def _settle(self, shard: ShardBuffer) -> None:
        """Wait for the batch on the device and put what came of its rows into the shard."""
        with self.report.waiting("encode"):
            for item in self._flying:
                for result in [item] if isinstance(item, Failure) else self.encoder.collect(item):
                    if isinstance(result, Failure):
                        shard.fail(result)
                        self.report.failed(result)
                    else:
                        shard.put(result.row, result.tokens, result.indices)
                    self.report.done(1)
                self.watchdog.beat("encoding")
        self._flying = []


@dataclass(frozen=True)
class _Loaded:
    """The model of the job before in this process: equal bytes, loaded in the same way, are not loaded again.

    Whether a shard is the first or a later one of a process changes no latent, so neither does which job's it is.
    """

    key: tuple[object, ...]
    model: Model
    last: ClassVar["_Loaded | None"] = None

    @classmethod
    def of(cls, job: ExtractJob) -> "_Loaded | None":
        """What can be used for a job; else the memory of the one before is given back."""
        if cls.last is not None and cls.last.key != cls.key_of(job):
            cls.last = None
        return cls.last

    @staticmethod
    def key_of(job: ExtractJob) -> tuple[object, ...]:
        """All that `load` and a model's constructor depend on; files are verified for each job."""
        values = job.values
        names = (values.model, values.mode, values.variant, values.precision, values.seed, job.device, job.threads)
        return (*names, values.code_sha256, tuple((file.name, file.path, file.sha256) for file in job.weights))


class Extraction:
    """A job's model on its device, and the shards that it fills."""

    def __init__(
        self, job: ExtractJob, rows: int, weights_root: Path, store: LatentWriter, emit: Emit, watchdog: Watchdog
    ) -> None:
        """Load the model; `rows` is how many there are to do, as far as is known.

        Raises ContractError where the model or its weights cannot be had as planned.
        """
        values, self._device = job.values, prepare_torch(job)
        self._job, self._store, self._emit, self._watchdog = job, store, emit, watchdog
        loaded = _Loaded.of(job)
        model = loaded.model if loaded else make_model(values.model, values.mode, values.variant)
        weights = find_weights(job, model.card, weights_root, watchdog.beat)
        emit(started(job, rows, device_name(self._device)))
        if loaded is None:
            watchdog.beat("loading the model")
            dtype = torch.bfloat16 if values.precision == "bf16" else torch.float32
            model.load(weights, self._device, dtype, values.seed)
            if more_jobs.may_follow():
                _Loaded.last = _Loaded(_Loaded.key_of(job), model)
        self._encoder = Encoder(model, job, self._device, emit)
        self._report = Report(job.id, 0, emit)

    def fill(self, shards: list[int], pool: DecodePool) -> None:
        """Extract claimed `shards`, whose rows `pool` decodes in order.

        Raises ContractError where the job cannot go on; finished shards stay.
        """
        self._report.expect(sum(len(self._job.store.shard_range(shard)) for shard in shards))
        with BackgroundWriter(self._store, self._job.id, self._emit, device_name(self._device)) as writer:
            loop = Loop(self._job, pool, self._encoder, writer, self._report, self._watchdog)
            for shard in shards:
                loop.fill(shard)
            loop.finish()

    def finished(self) -> None:
        """Say what was done in all."""
        self._report.finished(self._encoder.size, peak_memory(self._device))
