"""A latent store as LARYBench's files: an .npz per row, and the dataset's CSV with `la_path`."""

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from lary_schema.atomic import PARTIAL_SUFFIX, publish_text, replacing, sync_dir, sync_file
from lary_schema.base import ContractError, Document, file_sha256
from lary_schema.datasets import DatasetFiles
from lary_schema.metadata import read_cells
from lary_schema.store.layout import ShardRecord, Store
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray
from pydantic import Field

from lary_data.larybench import LA_PATH, csv_name, file_name, folder_name
from lary_data.npz import Latent, write_latent
from lary_data.progress import Tick
from lary_data.threads import mapped

JOURNAL = "lary-export.json"


class Journal(Document):
    """Next to the .npz files: which store they are of, so that no other latents are overwritten."""

    fingerprint: str
    done: dict[int, int] = Field(default_factory=dict)
    """Finished shard -> its failed rows."""


@dataclass(frozen=True)
class Target:
    """Where LARYBench finds a model's latents of a split."""

    root: Path
    """LARY_LA_DIR."""
    csvs: Path
    """LARY_ROOT/data."""
    files: DatasetFiles
    split: str
    model: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def name(self) -> str:
        return folder_name(self.files.card.key, self.split, self.model)

    @property
    def csv(self) -> Path:
        return self.csvs / csv_name(self.files.card, self.split, self.model)


def find_store(
    files: DatasetFiles, split: str, model: str, variant: str | None, name: str | None, latents: Path
) -> LatentReader:
    """The finished store of a split's CSV as it is now. Raises ContractError where there is not exactly one."""
    csv_sha256 = file_sha256(_existing(files.csv[split]))
    folder = latents / files.card.key / split / model
    indexes = [Store(path) for path in sorted(folder.glob(f"{name or ''}*.zarr"))]
    there = [index for index in indexes if index.exists]
    found = [
        index
        for index in there
        if index.provenance.values.metadata_sha256 == csv_sha256 and variant in (None, index.provenance.values.variant)
    ]
    if len(found) != 1:
        names = ", ".join(index.root.name for index in found or there) or "nothing"
        fault = "several stores" if found else "no store"
        raise ContractError(
            f"{folder}: {fault} of {files.csv[split]} as it is now{f', variant {variant}' if variant else ''}; "
            f"there is {names}. Choose one by --variant or --store"
        )
    return LatentReader.open(found[0].root)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ContractError(f"{path}: missing; an export writes this CSV's rows with their la_path")
    return path


def export(
    store: LatentReader, target: Target, *, drop_failed: bool, compress: bool, overwrite: bool, workers: int, tick: Tick
) -> int:
    """Write all files, the CSV last; how many rows have a latent. Finished shards of an earlier call are kept.

    Raises ContractError where other latents or another CSV are there, unless `overwrite`.
    """
    journal = _opened(store, target, overwrite=overwrite)
    failed = {failure.row for failure in store.failures}
    with _csv(target, failed, drop_failed=drop_failed, overwrite=overwrite), ThreadPoolExecutor(workers) as pool:
        for record in Store(store.root).records():
            if not _is_done(record, journal, target):
                _write_shard(store, record, target, compress, pool)
                journal = journal.model_copy(update={"done": {**journal.done, record.shard: len(record.failures)}})
                publish_text(target.folder / JOURNAL, journal.to_json())
            for _ in range(record.start, record.stop):
                tick(len(failed))
    return store.rows - len(failed)


def _opened(store: LatentReader, target: Target, *, overwrite: bool) -> Journal:
    path, fingerprint = target.folder / JOURNAL, store.provenance.layout.fingerprint
    for drafts in (f"*.npz.*{PARTIAL_SUFFIX}", f"{JOURNAL}.*{PARTIAL_SUFFIX}"):
        for left_behind in target.folder.glob(drafts):
            left_behind.unlink(missing_ok=True)
    if path.is_file():
        journal = Journal.read(path)
        if journal.fingerprint == fingerprint:
            return journal
    if not overwrite and next(target.folder.glob("*.npz"), None):
        raise ContractError(
            f"{target.folder}: holds other latents; export elsewhere by --to, under another name by --as, "
            "or replace them by --overwrite"
        )
    journal = Journal(fingerprint=fingerprint)
    publish_text(path, journal.to_json())
    return journal


def _is_done(record: ShardRecord, journal: Journal, target: Target) -> bool:
    """Whether an earlier call wrote this shard, as it is now, and nobody removed a file since."""
    failed = {failure.row for failure in record.failures}
    return journal.done.get(record.shard) == len(failed) and all(
        (target.folder / file_name(row)).is_file() for row in range(record.start, record.stop) if row not in failed
    )


def _write_shard(
    store: LatentReader, record: ShardRecord, target: Target, compress: bool, pool: ThreadPoolExecutor
) -> None:
    failed = {failure.row for failure in record.failures}
    rows = np.array([row for row in range(record.start, record.stop) if row not in failed], np.int64)
    for row in failed:
        (target.folder / file_name(row)).unlink(missing_ok=True)
    if len(rows):
        paths = [target.folder / file_name(row) for row in rows.tolist()]
        for _ in mapped(pool, partial(_write_file, compress), zip(paths, _latents(store, rows), strict=True)):
            pass
    # One call for a thousand files: the journal says no shard is done that a power cut could take back.
    os.sync()


def _write_file(compress: bool, item: tuple[Path, Latent]) -> None:
    path, latent = item
    # One sync for all files of a shard, by the caller.
    with replacing(path, sync=False) as draft:
        write_latent(draft, latent, compress=compress)


def _latents(store: LatentReader, rows: NDArray[np.int64]) -> Iterator[Latent]:
    """Rows in LARYBench's shapes: without the time axis that its model does not have, float32."""
    flat = not store.provenance.values.spec.time_axis
    tokens = store.tokens(rows).astype(np.float32)
    codes = None if store.provenance.layout.indices is None else store.indices(rows)
    for at in range(len(rows)):
        indices = None if codes is None else codes[at]
        if indices is not None and flat and len(indices) == 1:
            indices = indices[0]
        yield Latent(tokens[at, 0] if flat else tokens[at], indices)


@contextmanager
def _csv(target: Target, failed: set[int], *, drop_failed: bool, overwrite: bool) -> Iterator[None]:
    """The CSV, written before the block and published after it, so that a conflict is found first."""
    draft = target.csv.with_name(f".{target.csv.name}{PARTIAL_SUFFIX}")
    try:
        _write_csv(draft, target, failed, drop_failed=drop_failed)
        if target.csv.is_file() and not overwrite and file_sha256(draft) != file_sha256(target.csv):
            raise ContractError(
                f"{target.csv}: is there and differs from what would be written; put the CSV elsewhere by --csv-to, "
                "or replace it by --overwrite"
            )
        yield
        sync_file(draft)
        draft.replace(target.csv)
        sync_dir(target.csvs)
    finally:
        draft.unlink(missing_ok=True)


def _write_csv(path: Path, target: Target, failed: set[int], *, drop_failed: bool) -> None:
    cells = read_cells(target.files.csv[target.split])
    header = next(cells)
    width = len(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        column = header.index(LA_PATH) if LA_PATH in header else width
        writer.writerow(_with(header, column, LA_PATH))
        for row, values in zip(count(), cells):
            if row in failed and drop_failed:
                continue
            # A row of another length is a failed one; LARYBench's reader takes no such row.
            cut = (values + [""] * width)[:width]
            writer.writerow(_with(cut, column, "" if row in failed else f"{target.name}/{file_name(row)}"))


def _with(cells: list[str], column: int, value: str) -> list[str]:
    return [*cells[:column], value, *cells[column + 1 :]]
