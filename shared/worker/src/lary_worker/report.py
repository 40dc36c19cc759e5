"""What the loop says on stdout: counts, rate, and where time goes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from lary_schema.events import Emit, Finished, Progress, RowFailed, Split, Started
from lary_schema.jobs import ExtractJob
from lary_schema.store.layout import Failure

_INTERVAL_S = 0.5
"""Between two progress lines, at least."""


def started(job: ExtractJob, total: int, device: str) -> Started:
    """The first event: how many rows this attempt will do, and how many were done before."""
    rows = sum(len(job.store.shard_range(shard)) for shard in job.shards)
    return Started(job=job.id, total=total, skipped=rows - total, device=device, pid=os.getpid())


class Report:
    """Counts rows from its creation on, and emits progress now and then."""

    def __init__(self, job_id: str, total: int, emit: Emit) -> None:
        self._job_id = job_id
        self._total = total
        self._emit = emit
        self._started = self._said = time.monotonic()
        self._done = self._failed = self._clamped = 0
        self._seconds = {"decode": 0.0, "encode": 0.0, "write": 0.0}

    def expect(self, rows: int) -> None:
        """Count on so many rows more."""
        self._total += rows

    @contextmanager
    def waiting(self, what: Literal["decode", "encode", "write"]) -> Iterator[None]:
        """Book the time of a block of the main loop."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[what] += time.monotonic() - start

    def failed(self, failure: Failure) -> None:
        self._failed += 1
        self._emit(RowFailed(job=self._job_id, row=failure.row, reason=failure.reason, detail=failure.detail))

    def clamped(self, rows: int) -> None:
        self._clamped += rows

    def done(self, rows: int) -> None:
        """Count rows that are through, failed ones included."""
        self._done += rows
        now = time.monotonic()
        if now - self._said >= _INTERVAL_S:
            self._said = now
            self._emit(
                Progress(
                    job=self._job_id,
                    done=self._done,
                    total=self._total,
                    failed=self._failed,
                    per_second=self._rate(),
                    seconds=self._split(),
                )
            )

    def finished(self, batch_size: int | None = None, peak_memory_bytes: int | None = None) -> None:
        self._emit(
            Finished(
                job=self._job_id,
                done=self._done,
                failed=self._failed,
                clamped=self._clamped,
                per_second=self._rate(),
                seconds=self._split(),
                batch_size=batch_size,
                peak_memory_bytes=peak_memory_bytes,
            )
        )

    def _rate(self) -> float:
        return round(self._done / max(time.monotonic() - self._started, 1e-9), 3)

    def _split(self) -> Split:
        return Split(**{name: round(seconds, 3) for name, seconds in self._seconds.items()})
