"""LARYBench's .npz files of one split into a latent store of the variant `imported`.

Two passes over the rows: the first reads the checksums in the archives' directories, which name the store
(other latents make another store); the second reads the arrays of the shards that are not done yet.
"""

import hashlib
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import ModeSpec, TensorSpec
from lary_schema.jobs import IMPORTED, ArrayLayout, StoreDtype, Values
from lary_schema.metadata import RowError
from lary_schema.store.layout import Failure, Provenance, Store, row_bytes, shard_rows, store_path
from lary_schema.store.writer import LatentWriter
from numpy.typing import NDArray

from lary_data.larybench import LatentRows
from lary_data.npz import Latent, Sums, read_latent, read_sums
from lary_data.progress import Tick
from lary_data.shards import Shard
from lary_data.threads import mapped

B = TypeVar("B")


@dataclass(frozen=True)
class Scan:
    """What the first pass knows of a split's files."""

    digest: str
    """sha256 over all rows' checksums, in order."""
    sums: NDArray[np.uint32]
    """(rows,) CRC-32 of each row's tokens; 0 where there are none."""
    faults: dict[int, str]
    """Row -> why it has no latent."""
    spec: ModeSpec
    """Of the first file that can be read, and so of all."""

    @property
    def rows(self) -> int:
        return len(self.sums)


def scan(rows: LatentRows, workers: int, tick: Tick) -> Scan:
    """The checksums of all files. Raises ContractError where not one can be read."""
    digest, sums = hashlib.sha256(), array("L")
    faults: dict[int, str] = {}
    spec: ModeSpec | None = None

    def look(path: Path | None) -> tuple[Path | None, Sums | str]:
        return path, _attempt(rows, path, read_sums)

    with ThreadPoolExecutor(workers) as pool:
        for row, (path, found) in enumerate(mapped(pool, look, rows)):
            if isinstance(found, str):
                faults[row] = found
            elif spec is None and path is not None:
                latent = _attempt(rows, path, read_latent)
                spec = None if isinstance(latent, str) else _spec(latent[0])
            sums.append(0 if isinstance(found, str) else found.tokens)
            # A fault's wording names no values: a file that is cut elsewhere is the same hole.
            digest.update(f"{'' if isinstance(found, str) else ':'.join(map(str, found))}\n".encode())
            tick(len(faults))
    if spec is None:
        raise ContractError(f"{rows.csvs[0]}: no row has a latent that can be read; {next(iter(faults.values()), '')}")
    return Scan(digest.hexdigest(), np.array(sums, np.uint32), faults, spec)


def _attempt(rows: LatentRows, path: Path | None, read: Callable[[Path], B]) -> B | str:
    """What a row's file holds, or why nothing."""
    if path is None:
        return "the CSV gives no file: its la_path is empty"
    try:
        return read(path)
    except RowError as error:
        return f"{rows.npz.shown(path)}: {error}"


def provenance(rows: LatentRows, model: str, found: Scan, dtype: StoreDtype) -> Provenance:
    """What the store of these latents is."""
    card = rows.files.card
    values = Values(
        model=model,
        variant=IMPORTED,
        mode=card.mode,
        spec=found.spec,
        preprocessing=IMPORTED,
        revision=1,
        # The one thing that is known of where the values come from: the values.
        code_sha256=found.digest,
        weights={},
        dataset=card.key,
        split=rows.split,
        metadata_sha256=file_sha256(rows.files.csv[rows.split]),
        columns=card.columns,
        media=card.media_of(rows.split),
        frames=card.frames,
        decoder="pyav",
        precision="fp32",
        dtype=dtype,
        seed=0,
    )
    libraries = {name: version(name) for name in ("numpy", "zarr")}
    layout = _layout(values, found.rows)
    return Provenance(
        layout=layout, values=values, image=IMPORTED, image_digest=None, code_revision=None, libraries=libraries
    )


def _spec(latent: Latent) -> ModeSpec:
    """(N, D) is one time step without a time axis, (T, N, D) stays; codes (L,) are one step's."""
    time, count, width = (1, *latent.tokens.shape)[-3:]
    codes = None if latent.indices is None else (1, *latent.indices.shape)[-2:]
    return ModeSpec(
        input=TensorSpec(shape=()),
        tokens=(time, count, width),
        indices=None if codes is None else (codes[0], codes[1]),
        time_axis=latent.tokens.ndim == 3,
    )


def _layout(values: Values, rows: int) -> ArrayLayout:
    return ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=shard_rows(row_bytes(values.spec, values.dtype), rows),
        dtype=values.dtype,
        tokens=values.spec.tokens,
        indices=values.spec.indices,
    )


def fill(rows: LatentRows, found: Scan, made: Provenance, latents: Path, workers: int, tick: Tick) -> Store:
    """Write the shards that are missing or damaged; those that are done stay as they are.

    Raises ContractError for a file of another shape, with pickled objects, or that changed since the scan.
    """
    index = Store(latents / made.layout.path)
    _reopen(index, found)
    with closing(LatentWriter.open(index.root, made)) as store, ThreadPoolExecutor(workers) as pool:
        missing = set(store.missing(range(made.layout.shards)))
        paths = iter(rows) if missing else iter(())
        for number in range(made.layout.shards):
            here = list(islice(paths, len(made.layout.shard_range(number))))
            if number not in missing:
                continue
            with store.claim(number):
                shard = Shard(made, number)
                for failure in mapped(pool, partial(_put, rows, found, shard), zip(shard.rows, here, strict=True)):
                    shard.note(failure)
                    tick(len(shard.failures))
                shard.write(store)
    return index


def _reopen(index: Store, found: Scan) -> None:
    """Have damaged shards written again, and those with a file that the scan finds whole but reading did not."""
    for record in index.records() if index.exists else ():
        lost = (failure.row for failure in record.failures if failure.reason == "no_latent")
        if index.damage(record) or any(row not in found.faults for row in lost):
            index.marker(record.shard).unlink()


def _put(rows: LatentRows, found: Scan, shard: Shard, item: tuple[int, Path | None]) -> Failure | None:
    """Have a row's latent in its shard, or say why not."""
    row, path = item
    result = _attempt(rows, path, read_latent)
    if isinstance(result, str):
        return Failure(row=row, reason="no_latent", detail=result)
    latent, sums = result
    if row in found.faults or sums.tokens != found.sums[row]:
        raise ContractError(f"{path}: changed while it was imported; start the import again")
    return shard.put(row, latent, str(path))
