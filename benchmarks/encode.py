"""The worker's encode path compared with the bare network in a loop, both on bytes that lie in memory, for every key.

`bare` is what a user would write: bytes to floats, the network, under inference mode, with torch's own settings.
`worker` is what a job does with a batch: the job's torch settings (determinism), the model's `encode`, checks of shape
and values, conversion to the store's dtype, rows. `ratio` is worker over bare, of medians; 1.05 is the limit that we
aim at. Small networks are those of the golden vectors on a CPU, in batches that take at least 0.2 s
(less, and the interpreter is measured); with CUDA the
official sizes with random weights, and rows per second.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import arguments, measured, parity, ratio, report, spent
from lary_worker.device import device_name, prepare_torch
from lary_worker.encode import Batch, Encoder
from lary_worker.preprocessing import imagenet_normalised, unit_range
from numpy.typing import NDArray

LEAST_S = 0.2
LARGEST = 64
VARIANT, MODE = "corrected", "video"


def bare(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 (B, T, H, W, 3) -> tokens, by the network that `model` loaded and nothing else of it."""
    if hasattr(model, "laq"):
        return lambda batch: laq(model, batch)
    if hasattr(model, "features"):
        return lambda batch: model.features(planes(batch).to(model.dtype))
    if hasattr(model, "network"):  # univla, villa-x
        return lambda batch: model.network(imagenet_normalised(batch).movedim(-1, 2).to(model.dtype))[0]
    if model.card.key == "flux2":
        return lambda batch: model.encoder((planes(batch) * 2 - 1).to(model.dtype))
    return model.encoder  # type: ignore[no-any-return]  # wan2-2, vjepa2: their networks take bytes


def planes(batch: torch.Tensor) -> torch.Tensor:
    return unit_range(batch).flatten(0, 1).permute(0, 3, 1, 2).contiguous()


def laq(model: Any, batch: torch.Tensor) -> torch.Tensor:
    features = model.features(planes(batch).to(model.dtype)).unflatten(0, batch.shape[:2])
    codes = model.laq(torch.stack((features[:, :-1], features[:, 1:]), dim=2).flatten(0, 1))
    tokens: torch.Tensor = model.laq.vq.read_out(codes.change)
    return tokens


class Ways:
    """The two ways over the same batch, several times."""

    def __init__(self, model: Any, size: int, device: torch.device, batches: int = 1) -> None:
        values = SimpleNamespace(seed=0)
        self.job: Any = SimpleNamespace(
            id="bench", device=device.type, threads=None, values=values, batch_size=size,
            store=SimpleNamespace(dtype="float16"),
        )  # fmt: skip
        self.encoder = Encoder(model, self.job, device, lambda _: None)
        self.network = bare(model)
        self.device, self.batches, self.rows = device, batches, np.arange(size)
        pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (size, *model.spec.input.shape), np.uint8)
        self.inputs = self.encoder.host_array(pixels.shape, "uint8").copy_(torch.from_numpy(pixels))
        self.there = self.inputs.to(device)

    def worker(self) -> None:
        """As `lary_worker.loop`: the next batch is launched before the last one is waited for."""
        prepare_torch(self.job)
        flying: list[Any] = []
        for _ in range(self.batches):
            launched = self.encoder.launch(Batch(self.rows, self.inputs))
            self._collect(flying)
            flying = launched
        self._collect(flying)

    def _collect(self, flying: list[Any]) -> None:
        for launched in flying:
            for _ in self.encoder.collect(launched):
                pass

    @torch.inference_mode()
    def bare(self) -> None:
        torch.set_deterministic_debug_mode("default")
        for _ in range(self.batches):
            self.network(self.there)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(model: Any, device: torch.device, rounds: int, size: int) -> dict[str, Any]:
    """Seconds of both ways, in batches that take at least `LEAST_S`."""
    # Of one process with one thread, the processor's time: other processes of the machine do not count.
    clock = "wall" if device.type == "cuda" else "processor"
    while True:
        ways = Ways(model, size, device, batches=1 if device.type == "cpu" else 8)
        names = {"bare": ways.bare, "worker": ways.worker}
        measured(names, 1)
        if spent(ways.bare)[clock == "processor"] >= LEAST_S or size >= LARGEST:
            break
        size *= 2
    found = measured(names, rounds)
    rate = ways.batches * size / found["worker"][f"{clock}_s"]
    figures = {name: {each: round(s / ways.batches, 4) for each, s in way.items()} for name, way in found.items()}
    return {
        "batch": size, **figures, "clock": clock, "worker_rows_per_s": round(rate, 2),
        "ratio": ratio(found, "worker", "bare"),
    }  # fmt: skip


def small(tests: Any, key: str, folder: Path) -> Any:
    golden = tests.Golden(tests._folder())
    case = next(c for c in golden.cases if (c["key"], c["mode"], c["size"]) == (key, MODE, "small"))
    paths = golden.write(case["checkpoint"], folder)
    bench = tests.Bench(golden, {case["checkpoint"]: paths}.__getitem__)
    return bench.model(case, VARIANT)


def official(tests: Any, key: str, device: torch.device, dtype: torch.dtype) -> Any:
    """With random weights: speed does not depend on their values."""
    cls, card = tests.served(key)
    model = cls(card, MODE, VARIANT)
    model.load({}, device, dtype, 0)
    return model


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=9)
    parser.add_argument("--key", action="append", help="of a model; repeatable [all]")
    parser.add_argument("--batch", type=int, default=1, help="rows, doubled until a batch takes 0.2 s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tests = parity()
    keys = options.key or list(dict.fromkeys(case["key"] for case in tests.Golden(tests._folder()).cases))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__}
    figures |= {"threads": torch.get_num_threads(), "rounds": options.rounds}
    for key in keys:
        if device.type == "cuda":
            dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
            for name, dtype in dtypes.items():
                model = official(tests, key, device, dtype)
                figures[f"{key} full {name}"] = measure(model, device, options.rounds, model.card.batch_size)
        else:
            with tempfile.TemporaryDirectory() as folder:
                figures[f"{key} small"] = measure(
                    small(tests, key, Path(folder)), device, options.rounds, options.batch
                )
        print(key, list(figures.values())[-1], file=sys.stderr, flush=True)
    report("encode", figures, options.save)


if __name__ == "__main__":
    main()
