"""What a training has said and measured: events now, and later the fields of its states and of `training.json`."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lary_schema.base import TooManyFailedError
from lary_schema.events import BatchHalved, Emit, Finished, Measured, Progress, RowFailed, Saved, Split, Started, Warned
from lary_schema.store.layout import Failure
from lary_schema.training import Measures, TrainJob
from lary_worker.device import device_name, peak_memory

from lary_trainer.inputs import Inputs, SplitInput
from lary_trainer.means import Means
from lary_trainer.states import StateRecord
from lary_trainer.world import World

_PROGRESS_S = 2.0


class Journal:
    """Of one attempt, with what its earlier attempts left in the state."""

    def __init__(self, job: TrainJob, inputs: Inputs, world: World, device: torch.device, emit: Emit) -> None:
        self._job, self._inputs, self._world, self._device, self._emit = job, inputs, world, device, emit
        self.means = Means()
        self.measured: list[Measures] = []
        self.warnings: list[str] = []
        self.moved = False
        """Whether any pair was seen whose frames differ."""
        self.attempts = 1
        self._known: dict[str, set[int]] = {split.name: set() for split in inputs.splits}
        self._before = self._waited = 0.0
        self._began = self._said = time.monotonic()

    # --- events -----------------------------------------------------------------------------------

    def started(self, done: int) -> None:
        total, name = self._job.values.recipe.steps - done, device_name(self._device)
        self._emit(Started(job=self._job.id, total=total, skipped=done, unit="steps", device=name, pid=os.getpid()))
        self._began = time.monotonic()

    def warn(self, message: str) -> None:
        """Each warning once, also over several attempts."""
        if message not in self.warnings:
            self.warnings.append(message)
            self._emit(Warned(job=self._job.id, message=message))

    def halved(self, size: int) -> None:
        self._emit(BatchHalved(job=self._job.id, batch_size=size))

    def saved(self, step: int, path: str, seconds: float) -> None:
        self._emit(Saved(job=self._job.id, step=step, path=path, seconds=round(seconds, 3)))

    def add(self, measures: Measures) -> None:
        self.measured.append(measures)
        self._emit(Measured(job=self._job.id, **measures.model_dump()))

    def progress(self, done: int, total: int) -> None:
        """Now and then; `done` of the `total` steps of this attempt."""
        now = time.monotonic()
        if now - self._said < _PROGRESS_S:
            return
        self._said = now
        self._emit(Progress(total=total, note=self._note(), **self._counts(done)))

    def finished(self, done: int, micro_batch: int) -> None:
        peak = peak_memory(self._device)
        self._emit(Finished(batch_size=micro_batch, peak_memory_bytes=peak, **self._counts(done)))

    def _counts(self, done: int) -> dict[str, Any]:
        """`decode`: seconds waited for rows; `encode`: all others."""
        seconds = time.monotonic() - self._began
        return {
            "job": self._job.id,
            "done": done,
            "failed": sum(self.failed.values()),
            "per_second": round(done / max(seconds, 1e-9), 3),
            "seconds": Split(decode=round(self._waited, 3), encode=round(seconds - self._waited, 3)),
        }

    def _note(self) -> str:
        if not self.measured:
            return ""
        last = self.measured[-1]
        shown = list(last.values.items())[:4]
        return f"step {last.step}, {last.split}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown if v is not None)

    # --- rows and time ----------------------------------------------------------------------------

    @property
    def failed(self) -> dict[str, int]:
        """Unreadable rows by split, where there are any."""
        return {name: len(rows) for name, rows in self._known.items() if rows}

    def unreadable(self, split: SplitInput, *, together: bool) -> None:
        """Say which rows were found unreadable, `together`: by any process. Raises TooManyFailedError."""
        known = self._known[split.name]
        fresh = [failure for row, failure in split.reader.failed.items() if row not in known]
        for failure in self._world.failures(fresh) if together else fresh:
            if failure.row not in known:
                known.add(failure.row)
                split.reader.failed[failure.row] = failure
                row, why = failure.row, failure.reason
                self._emit(RowFailed(job=self._job.id, row=row, reason=why, detail=failure.detail))
        if len(known) > self._job.max_failed * len(split.rows):
            first = split.reader.failed[min(known)]
            raise TooManyFailedError(
                f"split {split.name}: {len(known)} of {len(split.rows)} rows cannot be read, more than max_failed "
                f"{self._job.max_failed:g} allows; the first is row {first.row} ({first.reason}: {first.detail}). Fix "
                "the data, or raise max_failed"
            )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Book the time that rows are waited for."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @property
    def seconds(self) -> float:
        """Of all attempts, as far as they came into a state."""
        return self._before + time.monotonic() - self._began

    # --- states -----------------------------------------------------------------------------------

    def record(self, step: int, micro_batch: int) -> StateRecord:
        return StateRecord(
            fingerprint=self._job.fingerprint,
            step=step,
            **self._machine(),
            micro_batch=micro_batch,
            attempts=self.attempts,
            seconds=self.seconds,
            measured=tuple(self.measured),
            warnings=tuple(self.warnings),
            failed={split.name: self._failures(split) for split in self._inputs.splits},
            sums=self.means.sums,
            count=self.means.count,
            moved=self.moved,
        )

    def restore(self, record: StateRecord) -> None:
        """Go on with what a state holds, keeping what was warned of in this attempt."""
        self.means = Means(dict(record.sums), record.count)
        self.measured = list(record.measured)
        self.warnings = [*record.warnings, *(w for w in self.warnings if w not in record.warnings)]
        self.moved = record.moved
        self.attempts = record.attempts + 1
        self._before = record.seconds
        for split in self._inputs.splits:
            failures = {failure.row: failure for failure in record.failed.get(split.name, ())}
            split.reader.failed.update(failures)
            self._known[split.name].update(failures)
        then = record.model_dump()
        if differing := [f"{k} {then[k]}, now {now}" for k, now in self._machine().items() if then[k] != now]:
            self.warn(f"goes on from a state of {'; '.join(differing)}: the last bits may differ from one run's")

    def _failures(self, split: SplitInput) -> tuple[Failure, ...]:
        return tuple(split.reader.failed[row] for row in sorted(self._known[split.name]))

    def _machine(self) -> dict[str, Any]:
        """What the last bits depend on."""
        threads = torch.get_num_threads()
        return {"device": device_name(self._device), "threads": threads, "processes": self._world.size}
