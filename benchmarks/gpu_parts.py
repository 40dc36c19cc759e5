"""What `gpu.py` measures of one model: rows a second, memory, differences, memory that runs out, copies."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import encode
import numpy as np
import torch
from common import alternate
from lary_schema.events import BatchHalved
from lary_schema.store.layout import Failure
from lary_worker.encode import Batch, Encoded, Encoder
from lary_worker.model import Model
from torch.utils.flop_counter import FlopCounterMode

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
BOUNDS = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 1e-1}
"""Largest root mean square of the difference to the CPU's float32, over that of the CPU's tokens."""
EQUAL_CODES = {"fp32": 0.99, "tf32": 0.95, "bf16": 0.8}
"""Smallest share of codes that are the CPU's: near ties fall either way."""
COMPARED = 2
"""Rows that are compared with the CPU's."""
_BARE_NETWORKS = ("lary_lapa", "lary_villa_x", "lary_vjepa2", "lary_wan")
"""Packages whose networks `encode.bare` calls by themselves; of others the model's `encode` is the bare network."""


@dataclass(frozen=True)
class Effort:
    """How long a way is measured."""

    rounds: int
    least_s: float
    """Of one round."""


@contextmanager
def precision(name: str) -> Iterator[None]:
    """TF32 on for its own name alone. A job never has it on."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Callable[[], float]:
    """On a CPU the processor's time: other processes of the machine do not count."""
    return time.perf_counter if device.type == "cuda" else time.process_time


class Ways:
    """A batch through the worker's encode path and through the bare network, any number of times."""

    def __init__(self, model: Model, host: torch.Tensor, device: torch.device, dtype: str = "float16") -> None:
        self.model, self.device = model, device
        self.events: list[Any] = []
        job: Any = SimpleNamespace(id="gpu", batch_size=len(host), store=SimpleNamespace(dtype=dtype))
        self.encoder = Encoder(model, job, device, self.events.append)
        self.rows = np.arange(len(host))
        self.inputs = self.encoder.host_array(tuple(host.shape), host.dtype).copy_(host)
        self.there = self.inputs.to(device)
        self.network = self._bare()

    def _bare(self) -> Callable[[torch.Tensor], Any]:
        if type(self.model).__module__.partition(".")[0] in _BARE_NETWORKS:
            return encode.bare(self.model)
        return lambda batch: self.model.encode(batch, self.rows[: len(batch)])

    def worker(self, batches: int = 1) -> list[Encoded | Failure]:
        """As `lary_worker.loop`: the next batch is launched before the last one is waited for. The last results."""
        torch.set_deterministic_debug_mode("warn")
        flying: list[Any] = []
        for _ in range(batches):
            launched = self.encoder.launch(Batch(self.rows, self.inputs))
            self._collect(flying)
            flying = launched
        return self._collect(flying)

    def _collect(self, flying: list[Any]) -> list[Encoded | Failure]:
        found: list[Encoded | Failure] = []
        for launched in flying:
            found.extend([launched] if isinstance(launched, Failure) else self.encoder.collect(launched))
        return found

    @torch.inference_mode()
    def bare(self, batches: int = 1) -> None:
        torch.set_deterministic_debug_mode("default")
        for _ in range(batches):
            self.network(self.there)
        synchronize(self.device)


def rates(ways: Ways, effort: Effort) -> dict[str, Any]:
    """Rows a second of both ways, alternated: medians with the range, and the worker's share of the bare network."""
    clock = clock_of(ways.device)
    for _ in range(2):
        ways.worker()
        ways.bare()
    one = alternate({"bare": ways.bare}, 1, clock)["bare"][0]
    batches = max(1, min(64, math.ceil(effort.least_s / max(one, 1e-6))))
    timed = {"bare": lambda: ways.bare(batches), "worker": lambda: ways.worker(batches)}
    seconds = alternate(timed, effort.rounds, clock)
    rows = batches * len(ways.rows)
    found: dict[str, Any] = {"batch": len(ways.rows), "batches_a_round": batches}
    for name, values in seconds.items():
        low, middle, high = (round(rows / s, 2) for s in (max(values), statistics.median(values), min(values)))
        found[f"{name}_rows_per_s"], found[f"{name}_range"] = middle, [low, high]
    pairs = zip(seconds["bare"], seconds["worker"], strict=True)
    found["share_of_bare"] = round(statistics.median(bare / worker for bare, worker in pairs), 3)
    return found


@torch.inference_mode()
def flops_a_row(ways: Ways) -> float:
    """Of matrix products, convolutions and attention, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        ways.network(ways.there[:1])
    return float(counter.get_total_flops())


def matmul_flops(device: torch.device, side: int, least_s: float) -> dict[str, float]:
    """FLOP/s of large square matrix products, by precision: what this device reaches at best."""
    found = {}
    for name, dtype in PRECISIONS.items():
        if device.type == "cpu" and name != "fp32":
            continue
        with precision(name):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            best, began = math.inf, time.perf_counter()
            while time.perf_counter() - began < least_s or best == math.inf:
                start = time.perf_counter()
                for _ in range(4):
                    a @ b
                synchronize(device)
                best = min(best, (time.perf_counter() - start) / 4)
            found[name] = 2 * side**3 / best
    return found


def peak_bytes(ways: Ways) -> int | None:
    """That torch held at most during one batch of the worker; None on a CPU."""
    if ways.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(ways.device)
    ways.worker()
    return torch.cuda.max_memory_allocated(ways.device)


@torch.inference_mode()
def largest_batch(ways: Ways, rows_per_s: float, limit_s: float, most: int) -> dict[str, Any]:
    """Doubled until memory runs out, the next try would take longer than `limit_s`, or `most`."""
    size = len(ways.rows)
    while 2 * size <= most and 2 * size / rows_per_s < limit_s:
        try:
            tiled = ways.there[:1].expand(2 * size, *ways.there.shape[1:]).contiguous()
            ways.model.encode(tiled, np.arange(2 * size))
            synchronize(ways.device)
        except torch.OutOfMemoryError:
            return {"largest_batch": size, "beyond": "memory ran out"}
        size *= 2
    return {"largest_batch": size, "beyond": "not tried"}


def differences(found: list[Encoded | Failure], reference: Any, name: str) -> dict[str, Any]:
    """Tokens and codes of the first rows against the CPU's float32."""
    failed = [result for result in found if isinstance(result, Failure)]
    if failed:
        return {"failed": failed[0].detail, "within_bounds": False}
    rows = [result for result in found[:COMPARED] if isinstance(result, Encoded)]
    tokens = np.stack([row.tokens for row in rows]).astype(np.float64)
    wanted = reference.tokens.double().numpy()
    difference = tokens - wanted
    relative = float(np.sqrt((difference**2).mean() / max((wanted**2).mean(), 1e-30)))
    figures: dict[str, Any] = {"largest": float(np.abs(difference).max()), "relative_rms": relative}
    figures["within_bounds"] = relative <= BOUNDS[name]
    if reference.indices is not None:
        equal = float(np.mean([np.array_equal(row.indices, own) for row, own in _codes(rows, reference)]))
        codes = np.mean([np.mean(row.indices == own) for row, own in _codes(rows, reference)])
        figures |= {"equal_rows": equal, "equal_codes": float(codes)}
        figures["within_bounds"] = bool(figures["within_bounds"] and codes >= EQUAL_CODES[name])
    return figures


def _codes(rows: list[Encoded], reference: Any) -> Iterator[tuple[Encoded, Any]]:
    return zip(rows, reference.indices.numpy(), strict=True)


@torch.inference_mode()
def reference(model: Model, host: torch.Tensor) -> Any:
    """The CPU's float32 of the first rows, with all its threads."""
    return model.encode(host[:COMPARED], np.arange(COMPARED))


class LittleMemory:
    """Lets the allocator give less than a whole batch needs and more than one row: what then runs out is real."""

    def __init__(self, device: torch.device, of_one: int, of_all: int) -> None:
        self.device, self.bytes = device, (of_one + of_all) // 2

    def __enter__(self) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, self.bytes / total), self.device)

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_per_process_memory_fraction(1.0, self.device)
        torch.cuda.empty_cache()


class FewRows:
    """The same without a GPU, for a test of this script: a model that runs out above some rows."""

    def __init__(self, ways: Ways, most: int) -> None:
        self.model, self.most, self.own = ways.model, most, ways.model.encode

    def __enter__(self) -> None:
        def encode_few(batch: torch.Tensor, rows: Any) -> Any:
            if len(batch) > self.most:
                raise torch.OutOfMemoryError(f"{len(batch)} rows")
            return self.own(batch, rows)

        self.model.encode = encode_few  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        del self.model.encode


def halving(ways: Ways, too_little: LittleMemory | FewRows) -> dict[str, Any]:
    """A batch that does not fit: how often it was halved, and whether its rows came out as they do undisturbed."""
    undisturbed = Ways(ways.model, ways.inputs, ways.device, "float32").worker()
    again = Ways(ways.model, ways.inputs, ways.device, "float32")
    with too_little:
        halved = again.worker()
    sizes = [event.batch_size for event in again.events if isinstance(event, BatchHalved)]
    both = list(zip(undisturbed, halved, strict=True))
    well = all(isinstance(one, Encoded) and isinstance(other, Encoded) for one, other in both)
    figures: dict[str, Any] = {"batch": len(ways.rows), "halved_to": sizes, "all_rows": well}
    if well:
        figures["largest_difference"] = max(float(np.abs(a.tokens - b.tokens).max()) for a, b in both)  # type: ignore[union-attr]
    return figures


def copies(ways: Ways, effort: Effort) -> dict[str, Any]:
    """Copies to the device, pinned and not, and whether they overlap with computing.

    `launch_share`: how much of a batch's time the host is held until `launch` returns; decoding and writing go on in
    the rest. `one_stream` is the worker's way, copy and compute in turn; `two_streams` copies the next batch meanwhile.
    """
    device, pageable = ways.device, ways.inputs.clone()
    side = torch.cuda.Stream(device)

    def copy(source: torch.Tensor) -> Any:
        return source.to(device, non_blocking=True)

    def one_stream() -> None:
        for _ in range(4):
            ways.network(copy(ways.inputs))

    def two_streams() -> None:
        for _ in range(4):
            with torch.cuda.stream(side):
                copy(ways.inputs)
            ways.network(ways.there)
        side.synchronize()

    def launch_and_wait() -> float:
        start = time.perf_counter()
        flying = ways.encoder.launch(Batch(ways.rows, ways.inputs))
        returned = time.perf_counter() - start
        ways._collect(flying)
        return returned / (time.perf_counter() - start)

    with torch.inference_mode():
        names = {
            "pinned_copy_s": lambda: (copy(ways.inputs), torch.cuda.synchronize()),
            "pageable_copy_s": lambda: (copy(pageable), torch.cuda.synchronize()),
            "one_stream_s": lambda: (one_stream(), torch.cuda.synchronize()),
            "two_streams_s": lambda: (two_streams(), torch.cuda.synchronize()),
        }
        alternate(names, 1)
        found = {name: statistics.median(s) for name, s in alternate(names, effort.rounds).items()}
        share = statistics.median(launch_and_wait() for _ in range(effort.rounds))
    gigabytes = ways.inputs.nbytes / 1e9
    return {
        "batch_megabytes": round(gigabytes * 1e3, 2),
        "pinned_gb_per_s": round(gigabytes / found["pinned_copy_s"], 2),
        "pageable_gb_per_s": round(gigabytes / found["pageable_copy_s"], 2),
        "copy_share_of_batch": round(4 * found["pinned_copy_s"] / found["one_stream_s"], 4),
        "two_streams_over_one": round(found["two_streams_s"] / found["one_stream_s"], 4),
        "launch_share": round(share, 3),
    }
