"""Batches through the model: memory that runs out, rows that a model cannot take, values that do not fit."""

import gc
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lary_schema.base import ContractError, OutOfMemoryError
from lary_schema.events import BatchHalved, Emit
from lary_schema.jobs import ExtractJob
from lary_schema.store.layout import Failure
from numpy.typing import NDArray

from lary_worker.faults import detail_of
from lary_worker.model import Latents, Model

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model: `inputs` (B, *spec.input.shape) on the host, pinned for CUDA."""

    rows: NDArray[np.int64]
    inputs: torch.Tensor

    def part(self, start: int, stop: int) -> "Batch":
        return Batch(self.rows[start:stop], self.inputs[start:stop])


@dataclass(frozen=True)
class Launched:
    """Rows whose latents are being computed: host memory that is filled when `done` has happened."""

    rows: NDArray[np.int64]
    tokens: torch.Tensor
    indices: torch.Tensor | None
    finite: torch.Tensor
    fits: torch.Tensor
    largest: torch.Tensor
    done: torch.cuda.Event | None


@dataclass(frozen=True)
class Encoded:
    """One row's latents: tokens (T, N, D) in the store's dtype, indices (T, L)."""

    row: int
    tokens: NDArray[Any]
    indices: NDArray[np.int64] | None


class Encoder:
    """Runs a loaded model. `launch` returns before a GPU is through, `collect` waits for it."""

    def __init__(self, model: Model, job: ExtractJob, device: torch.device, emit: Emit) -> None:
        self.model = model
        self._job_id = job.id
        self._device = device
        self._emit = emit
        self._dtype = getattr(torch, job.store.dtype)
        self.size = job.batch_size
        """Rows per call of the model: the job's, or less since memory ran out."""

    def host_array(self, shape: tuple[int, ...], dtype: str | torch.dtype) -> torch.Tensor:
        """Memory on the host that the device can copy from and to by itself."""
        kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return torch.empty(shape, dtype=kind, pin_memory=self._device.type == "cuda")

    def launch(self, batch: Batch) -> list[Launched | Failure]:
        """Start on a batch, in parts of `size` rows.

        What the model raises costs the rows it raises for. Raises OutOfMemoryError where one row does
        not fit, and ContractError where the model's output is not what its card says.
        """
        results: list[Launched | Failure] = []
        start = 0
        while start < len(batch.rows):
            part = batch.part(start, start + self.size)
            launched = self._try(part)
            if launched is None:
                self._halve(len(part.rows))
                continue
            results.extend(launched)
            start += len(part.rows)
        return results

    def collect(self, launched: Launched) -> Iterator[Encoded | Failure]:
        """Wait for a launch; its rows, in order."""
        if launched.done is not None:
            launched.done.synchronize()
        tokens = launched.tokens.numpy()
        indices = None if launched.indices is None else launched.indices.numpy()
        for at, row in enumerate(launched.rows.tolist()):
            if not launched.finite[at]:
                yield Failure(row=row, reason="non_finite", detail="the model gave NaN or infinity")
            elif not launched.fits[at]:
                detail = f"magnitude {launched.largest[at].item():g} does not fit {tokens.dtype}; use --dtype float32"
                yield Failure(row=row, reason="overflow", detail=detail)
            else:
                yield Encoded(row, tokens[at], None if indices is None else indices[at])

    def _try(self, part: Batch) -> list[Launched | Failure] | None:
        """The part's launch, row by row where it fails as a whole; None where memory ran out."""
        try:
            return [self._run(part)]
        except ContractError:
            raise
        except Exception as error:  # noqa: BLE001 - a model's code may raise anything
            if _ran_out(error):
                return None
            if len(part.rows) == 1:
                return [_failure(part, error)]
        return self._one_by_one(part)

    def _one_by_one(self, part: Batch) -> list[Launched | Failure]:
        results: list[Launched | Failure] = []
        for at in range(len(part.rows)):
            launched = self._try(part.part(at, at + 1))
            if launched is None:
                raise OutOfMemoryError(self._one_row_alone())
            results.extend(launched)
        return results

    @torch.inference_mode()
    def _run(self, part: Batch) -> Launched:
        latents = self.model.encode(part.inputs.to(self._device, non_blocking=True), part.rows)
        check_latents(self.model, latents, len(part.rows))
        tokens = latents.tokens
        # One pass tells all: the largest is NaN or infinite where any value is, and rounding keeps its order.
        largest = tokens.abs().flatten(1).amax(1)
        return Launched(
            rows=part.rows,
            tokens=self._to_host(tokens.to(self._dtype)),
            indices=None if latents.indices is None else self._to_host(latents.indices.to(torch.int64)),
            finite=self._to_host(torch.isfinite(largest)),
            fits=self._to_host(torch.isfinite(largest.to(self._dtype))),
            largest=self._to_host(largest.double()),
            done=self._recorded(),
        )

    def _recorded(self) -> torch.cuda.Event | None:
        """An event after all that was started so far; None on the CPU, where it is done already."""
        if self._device.type != "cuda":
            return None
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event

    def _to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "cpu":
            return tensor
        host = self.host_array(tuple(tensor.shape), tensor.dtype)
        return host.copy_(tensor, non_blocking=True)

    def _one_row_alone(self) -> str:
        return f"model {self.model.card.key}: one row alone runs out of memory on {self._device}; use a larger device"

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise OutOfMemoryError(self._one_row_alone())
        self.size = tried // 2
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._emit(BatchHalved(job=self._job_id, batch_size=self.size))


def check_latents(model: Model, latents: Latents, count: int) -> None:
    """Compare a batch's latents with the model's card. Raises ContractError saying what differs."""
    spec, key = model.spec, model.card.key
    expected = (count, *spec.tokens), None if spec.indices is None else (count, *spec.indices)
    found = tuple(latents.tokens.shape), None if latents.indices is None else tuple(latents.indices.shape)
    if found != expected:
        raise ContractError(
            f"model {key} gave tokens {found[0]} and indices {found[1]}, its card says {expected[0]} and "
            f"{expected[1]}; correct image.yaml or the model"
        )
    if not latents.tokens.is_floating_point():
        raise ContractError(f"model {key} gave {latents.tokens.dtype} tokens; they must be floating point")


def _failure(single: Batch, error: Exception) -> Failure:
    traceback.print_exception(error)
    return Failure(row=int(single.rows[0]), reason="encode_error", detail=detail_of(error))


def _ran_out(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(hint in str(error).lower() for hint in _OUT_OF_MEMORY)
