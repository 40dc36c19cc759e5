"""A split's latents as a probe reads them: from memory as far as they fit, the others batch by batch."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.jobs import ProbeSplit
from lary_schema.results import RowCount, StoreSettings, StoreTrace
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray
from torch import Tensor

from lary_probe.buffers import borrowed

Positions = NDArray[np.int64]
"""Places in a split's successful rows, 0 .. len - 1; never row numbers of the CSV."""

LOAD_BYTES = 64 << 20
"""Read at once while a split is loaded."""
READ_AHEAD = 2
"""Batches, each by a thread of its own: while one waits for the disk another is converted."""
LARGE_ROW = 1 << 15
"""Values. Rows from here on are copied one by one: gathering first would move each of them twice."""


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
        self._memory = self._empty(0)
        if not len(self.rows):
            raise ContractError(
                f"{store.root}: no row of split {name!r} has a latent; see its failures and extract again"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_bytes(self) -> int:
        """Of one row in memory."""
        return self._row_size * self._memory.element_size()

    @property
    def _row_size(self) -> int:
        """Values of one row."""
        return int(np.prod(self._store.shape))

    def _empty(self, count: int) -> Tensor:
        """(count, *shape) in the store's dtype, whatever it holds."""
        return torch.from_numpy(np.empty((count, *self.shape), self._store.provenance.layout.dtype))

    @property
    def held(self) -> int:
        """How many rows are in memory: the first ones."""
        return len(self._memory)

    def load(self, count: int, tick: Callable[[], None]) -> None:
        """Keep the first `count` rows in memory, in the store's dtype. `tick` is called now and then."""
        memory = self._empty(count)
        step = max(1, LOAD_BYTES // self.row_bytes)
        for start in range(0, count, step):
            self._read(np.arange(start, min(start + step, count)), memory[start : start + step])
            tick()
        self._memory = memory

    def batch(self, positions: Positions) -> Tensor:
        """(len(positions), *shape) on the CPU, in the store's dtype.

        Raises ContractError for a value that is not finite.
        """
        return self._fill(self._empty(len(positions)), positions)

    def batches(self, parts: Sequence[Positions], device: torch.device) -> Iterator[Tensor]:
        """float32 `batch` of each part on `device`; the next ones are read while the caller computes.

        On the CPU a batch is overwritten as soon as the caller goes on to the next one.
        """
        cuda = device.type == "cuda"
        # To a GPU float16 travels as it is: half the bytes.
        dtype, size = self._memory.dtype if cuda else torch.float32, self._row_size * max(map(len, parts), default=0)
        buffers = borrowed(READ_AHEAD + 1, size, dtype, pinned=cuda)
        with buffers as free, ThreadPoolExecutor(READ_AHEAD) as readers:
            unused, ahead = deque(free), deque[tuple[Tensor, Future[Tensor]]]()
            for at in range(-READ_AHEAD, len(parts)):
                if at + READ_AHEAD < len(parts):
                    part, flat = parts[at + READ_AHEAD], unused.popleft()
                    rows = flat[: len(part) * self._row_size].view(len(part), *self.shape)
                    ahead.append((flat, readers.submit(self._fill, rows, part)))
                if at >= 0:
                    flat, filled = ahead.popleft()
                    yield from _on_device(filled.result(), device)
                    unused.append(flat)

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

    def _fill(self, out: Tensor, positions: Positions) -> Tensor:
        """`out` (len(positions), *shape) with these rows, converted to its dtype."""
        held = positions < self.held
        if held.all() and self._row_size < LARGE_ROW:
            return out.copy_(self._memory[torch.from_numpy(positions)])
        for at in np.flatnonzero(held).tolist():
            out[at].copy_(self._memory[positions[at]])
        if not held.all():
            self._read(positions[~held], out, np.flatnonzero(~held) if held.any() else None)
        return out

    def _read(self, positions: Positions, out: Tensor, at: Positions | None = None) -> None:
        """Read rows from the files into `out`, or its rows `at`. Raises ContractError for one that is not finite."""
        self._store.tokens_into(self.rows[positions], out.view(len(out), *self._store.shape).numpy(), at)
        if math.isfinite(float(out.sum(dtype=torch.float32))):
            return
        # A sum of finite values may overflow.
        read = out if at is None else out[torch.from_numpy(at)]
        finite = torch.isfinite(read).flatten(1).all(dim=1).numpy()
        if not finite.all():
            row = int(self.rows[positions[np.flatnonzero(~finite)[0]]])
            raise ContractError(
                f"{self._store.root}: row {row} is marked ok and holds values that are not finite; "
                f"delete {self._store.root} and run its extraction again"
            )


def _on_device(batch: Tensor, device: torch.device) -> Iterator[Tensor]:
    """The batch in float32; when the caller goes on, its memory on the CPU may be written again."""
    if device.type != "cuda":
        yield batch
        return
    moved = batch.to(device, non_blocking=True)
    copied = torch.Event(device)
    copied.record()
    yield moved.float()
    copied.synchronize()


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
