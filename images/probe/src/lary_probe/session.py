"""What a probe run carries along: device, seeds, progress, outputs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from lary_schema.base import ContractError
from lary_schema.cards import ClassifyRecipe, RegressRecipe
from lary_schema.events import Emit, Finished, Progress, Started, Warned, _Event
from lary_schema.jobs import ProbeJob
from lary_schema.launch import is_joined, local_processes
from lary_schema.mounts import Mounts
from lary_schema.watchdog import Watchdog

from lary_probe.sampling import steps_per_epoch

PROGRESS_SECONDS = 2.0


def make_accelerator(device: str) -> Accelerator:
    """Placement and data parallelism; one of several processes waits here for the others.

    Raises ContractError where `cuda` is requested and not there, or not once per process.
    """
    if device == "cuda":
        _check_gpus(torch.cuda.device_count())
    return Accelerator(cpu=device == "cpu")


def _check_gpus(found: int) -> None:
    if not found:
        raise ContractError("the job requests device cuda and torch sees none; check the driver, or run on the CPU")
    if local_processes() > found:
        raise ContractError(f"the job requests {local_processes()} processes and torch sees {found} GPUs: one for each")
    if is_joined():
        # Where a launcher shows each process its own GPU alone, that one is number 0.
        os.environ["LOCAL_RANK"] = str(int(os.environ["LOCAL_RANK"]) % found)


def make_deterministic(device: str, threads: int | None) -> None:
    """Same bits for the same job: on the CPU always, on a GPU as far as its kernels allow.

    `threads` are shared by the processes of this machine.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not `use_deterministic_algorithms`, which does the same and imports torch's compiler (1 s).
    torch.set_deterministic_debug_mode("warn" if device == "cuda" else "error")
    if threads is not None or local_processes() > 1:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // local_processes()))
    if is_joined():
        # Else accelerate chooses a number of its own.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


@dataclass
class Session:
    """One job under way in this process."""

    job: ProbeJob
    mounts: Mounts
    accelerator: Accelerator
    emit: Emit
    watchdog: Watchdog
    total: int = 0
    done: int = 0
    note: str = ""
    warnings: list[str] = field(default_factory=list)
    """For the result, in order."""
    _began: float = field(default_factory=time.monotonic)
    _last_event: float = field(default_factory=time.monotonic)

    @property
    def device_name(self) -> str:
        """For results: `cpu`, or the GPU's name."""
        device = self.accelerator.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def start(self, rows: int, recipe: ClassifyRecipe | RegressRecipe) -> None:
        """Announce the optimiser steps of the whole job, or one step a seed where the head has a closed form.

        `rows` are trained on in each epoch.
        """
        linear = isinstance(recipe, RegressRecipe) and recipe.head == "linear"
        each = 1 if linear else recipe.epochs * steps_per_epoch(rows, recipe.batch_size)
        self.total = len(self.job.protocol.seeds) * each
        self.emit(Started(job=self.job.id, total=self.total, unit="steps", device=self.device_name, pid=os.getpid()))

    def step(self) -> None:
        """One optimiser step was done."""
        self.done += 1
        if self.done < self.total:
            self.training()
        if time.monotonic() - self._last_event > PROGRESS_SECONDS:
            self._emit_progress(self.note)

    def training(self) -> None:
        """The next step begins."""
        self.alive(f"training, step {self.done + 1:,} of {self.total:,}")

    def alive(self, doing: str) -> None:
        """There was progress, and what comes next, which may take long; a job without signs of life is ended."""
        self.watchdog.beat(doing)

    def progress(self, note: str) -> None:
        """Report progress; `note` is the last epoch and its scores."""
        self.note = note
        self._emit_progress(note)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.emit(Warned(job=self.job.id, message=message))

    def finish(self) -> None:
        peak = torch.cuda.max_memory_allocated() if self.accelerator.device.type == "cuda" else None
        self.emit(Finished(job=self.job.id, done=self.done, per_second=self._rate(), peak_memory_bytes=peak))

    def _emit_progress(self, note: str) -> None:
        self._last_event = time.monotonic()
        self.emit(Progress(job=self.job.id, done=self.done, total=self.total, per_second=self._rate(), note=note))

    def _rate(self) -> float:
        return self.done / max(self.seconds, 1e-9)


@contextmanager
def open_session(job: ProbeJob, mounts: Mounts, emit: Emit) -> Iterator[Session]:
    """A session with its watchdog running. Only the main process of several emits events."""
    make_deterministic(job.device, job.threads)
    with Watchdog(emit, job.id, job.stall_timeout_s, computes=job.device == "cpu") as watchdog:
        watchdog.beat("waiting for all processes")
        accelerator = make_accelerator(job.device)
        yield Session(job, mounts, accelerator, watchdog.emit if accelerator.is_main_process else _silent, watchdog)
        accelerator.end_training()


def _silent(event: _Event) -> None:
    """Drops the other processes' events. An error that ends one of them is reported all the same."""
