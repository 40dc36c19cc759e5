"""A split's latents as a probe reads them: from memory as far as they fit, the others batch by batch."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.jobs import ProbeSplit
from lary_schema.results import RowCount, StoreSettings, StoreTrace
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray
from torch import Tensor

Positions = NDArray[np.int64]
"""Places in a split's successful rows, 0 .. len - 1; never row numbers of the CSV."""

LOAD_BYTES = 64 << 20
"""Read at once while a split is loaded."""
READ_AHEAD = 2
"""Batches, each by a thread of its own: while one waits for the disk another is converted."""


class Latents:
    """The successful rows of one store, in row order.

    `rows` (n,) are their numbers in the CSV, `shape` is a row's, (N, D) without a time axis.
    """

    def __init__(self, store: LatentReader, name: str, *, time_axis: bool) -> None:
        self.name = name
        self.rows = store.ok_rows()
        self.shape = store.shape if time_axis else store.shape[1:]
        self.count = RowCount(
            used=len(self.rows), failed=len(store.failures), clamped=int(np.isin(store.clamped, self.rows).sum())
        )
        self._store = store
        self._memory = np.empty((0, *store.shape), store.provenance.layout.dtype)
        if not len(self.rows):
            raise ContractError(
                f"{store.root}: no row of split {name!r} has a latent; see its failures and extract again"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_bytes(self) -> int:
        """Of one row in memory."""
        return int(np.prod(self._store.shape)) * self._memory.dtype.itemsize

    @property
    def held(self) -> int:
        """How many rows are in memory: the first ones."""
        return len(self._memory)

    def load(self, count: int, tick: Callable[[], None]) -> None:
        """Keep the first `count` rows in memory, in the store's dtype. `tick` is called now and then."""
        memory = np.empty((count, *self._store.shape), self._memory.dtype)
        step = max(1, LOAD_BYTES // self.row_bytes)
        for start in range(0, count, step):
            memory[start : start + step] = self._read(np.arange(start, min(start + step, count)))
            tick()
        self._memory = memory

    def batch(self, positions: Positions) -> Tensor:
        """(len(positions), *shape) on the CPU, in the store's dtype.

        Raises ContractError for a value that is not finite.
        """
        return torch.from_numpy(self._values(positions).reshape(len(positions), *self.shape))

    def batches(self, parts: Sequence[Positions], device: torch.device) -> Iterator[Tensor]:
        """float32 `batch` of each part on `device`; the next ones are read while the caller computes."""

        def read(positions: Positions) -> Tensor:
            batch = self.batch(positions)
            return batch.pin_memory() if device.type == "cuda" else batch.float()

        def on_device(batch: Tensor) -> Tensor:
            # float16 travels as it is: half the bytes.
            return batch.to(device, non_blocking=True).float()

        with ThreadPoolExecutor(READ_AHEAD) as readers:
            ahead = deque(readers.submit(read, part) for part in parts[:READ_AHEAD])
            for following in parts[READ_AHEAD:]:
                ahead.append(readers.submit(read, following))
                yield on_device(ahead.popleft().result())
            for last in ahead:
                yield on_device(last.result())

    def trace(self, path: str) -> StoreTrace:
        """Where these latents come from; `path` is the store's below the latents mount."""
        provenance = self._store.provenance
        return StoreTrace(
            split=self.name,
            path=path,
            fingerprint=provenance.layout.fingerprint,
            image=provenance.image,
            image_digest=provenance.image_digest,
            code_sha256=provenance.values.code_sha256,
            weights=provenance.values.weights,
            metadata_sha256=provenance.values.metadata_sha256,
            settings=StoreSettings(
                **provenance.values.model_dump(include={"decoder", "precision", "dtype", "seed"}),
            ),
            mixed=tuple(self._store.mixed),
        )

    def _values(self, positions: Positions) -> NDArray[Any]:
        """A new array of these rows, in the store's dtype."""
        held = positions < self.held
        if held.all():
            return self._memory[positions]
        if not held.any():
            return self._read(positions)
        values = np.empty((len(positions), *self._store.shape), self._memory.dtype)
        values[held], values[~held] = self._memory[positions[held]], self._read(positions[~held])
        return values

    def _read(self, positions: Positions) -> NDArray[Any]:
        values = self._store.tokens(self.rows[positions])
        finite = np.isfinite(values).all(axis=(1, 2, 3))
        if not finite.all():
            row = int(self.rows[positions[np.flatnonzero(~finite)[0]]])
            raise ContractError(
                f"{self._store.root}: row {row} is marked ok and holds values that are not finite; "
                f"delete {self._store.root} and run its extraction again"
            )
        return values


def open_latents(split: ProbeSplit, root: Path, *, time_axis: bool) -> Latents:
    """The latents of one split, checked against its CSV. `root` is the latents mount."""
    store = LatentReader.open(root / split.store.path, split.store.fingerprint)
    planned = split.source.metadata.rows
    if not store.rows == split.store.rows == planned:
        raise ContractError(
            f"{store.root}: holds {store.rows} rows, the job says {split.store.rows} and the CSV of split "
            f"{split.name!r} {planned}; plan the job again"
        )
    if not time_axis and store.shape[0] != 1:
        raise ContractError(f"{store.root}: tokens {store.shape} have a time axis, the job says time_axis: false")
    return Latents(store, split.name, time_axis=time_axis)


def load_within(splits: Sequence[Latents], ram_bytes: int, tick: Callable[[], None]) -> None:
    """Load as many rows as fit into `ram_bytes`, split by split; the others are read by batch."""
    left = ram_bytes
    for split in splits:
        count = min(len(split), left // split.row_bytes)
        left -= count * split.row_bytes
        split.load(count, tick)
