"""One shard in memory, and the thread that writes it while the next one is filled."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from lary_schema.events import Emit, ShardDone
from lary_schema.jobs import ArrayLayout
from lary_schema.store.layout import Failure, ShardRecord, Status
from lary_schema.store.writer import MISSING_INDEX, LatentWriter
from numpy.typing import NDArray


class ShardBuffer:
    """The arrays of one shard: every row failed until it is given its latents."""

    def __init__(self, layout: ArrayLayout, number: int) -> None:
        self.number = number
        self.rows = layout.shard_range(number)
        count = len(self.rows)
        self.tokens = np.full((count, *layout.tokens), np.nan, layout.dtype)
        self.indices = None
        if layout.indices is not None:
            self.indices = np.full((count, *layout.indices), MISSING_INDEX, np.int64)
        self.status = np.full(count, Status.PENDING, np.uint8)
        self.failures: list[Failure] = []
        self.clamped: list[int] = []

    def put(self, row: int, tokens: NDArray[Any], indices: NDArray[np.int64] | None) -> None:
        """Store a row's latents: (T, N, D) in the store's dtype, and (T, L) of a model with codes."""
        at = row - self.rows.start
        self.tokens[at] = tokens
        if self.indices is not None and indices is not None:
            self.indices[at] = indices
        self.status[at] = Status.OK

    def fail(self, failure: Failure) -> None:
        """Store that a row has none."""
        self.status[failure.row - self.rows.start] = Status.FAILED
        self.failures.append(failure)


class BackgroundWriter:
    """Writes finished shards behind the loop's back, one at a time. A context manager."""

    def __init__(self, store: LatentWriter, job_id: str, emit: Emit, device: str) -> None:
        self._store = store
        self._job_id = job_id
        self._emit = emit
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    def submit(self, shard: ShardBuffer, batch_size: int) -> None:
        """Wait for the shard before, then start on this one. Raises what the one before failed of."""
        self.wait()
        self._writing = self._thread.submit(self._write, shard, batch_size)

    def wait(self) -> None:
        """Wait until all is written. Raises ContractError where the volume is full or read-only."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, shard: ShardBuffer, batch_size: int) -> None:
        record: ShardRecord = self._store.write(
            shard.number,
            shard.tokens,
            shard.indices,
            shard.status,
            failures=shard.failures,
            clamped=shard.clamped,
            batch_size=batch_size,
            device=self._device,
        )
        self._emit(
            ShardDone(
                job=self._job_id,
                shard=shard.number,
                ok=record.ok,
                failed=len(record.failures),
                clamped=len(record.clamped),
            )
        )
