"""A probe's batches in random order: latents in memory, half of them, and none (files cached by the kernel, or not)."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import alternate, arguments, report, summary
from lary_probe.latents import Latents
from lary_schema.store.reader import LatentReader
from store_io import TOKENS, write_store

BATCH = 256


def opened(root: Path, share: float) -> Latents:
    latents = Latents(LatentReader.open(root), "train", time_axis=True)
    latents.load(int(share * len(latents)), lambda: None)
    return latents


def read(latents: Latents, batches: list[np.ndarray]) -> None:
    for _ in latents.batches(batches, torch.device("cpu")):
        pass


def forget(root: Path) -> None:
    """Tell the kernel to drop the files from its cache."""
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=5120)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    batches = np.split(rng.choice(options.rows, options.rows), range(BATCH, options.rows, BATCH))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        write_store(root, rng.standard_normal((options.rows, *TOKENS), np.float32).astype(np.float16))
        memory, half, disk = (opened(root, share) for share in (1, 0.5, 0))

        def cold() -> None:
            forget(root)
            read(disk, batches)

        ways = {"memory": lambda: read(memory, batches), "half": lambda: read(half, batches)}
        seconds = alternate(ways | {"disk": lambda: read(disk, batches), "disk_cold": cold}, options.rounds)
    found = summary(seconds)
    rates = {name: round(options.rows / times["median_s"]) for name, times in found.items()}
    megabytes = round(options.rows * memory.row_bytes / 1e6)
    figures = {"rows": options.rows, "tokens": TOKENS, "store_mb": megabytes, "read": found, "rows_per_s": rates}
    report("probe_reading", figures, options.save)


if __name__ == "__main__":
    main()
