"""`lary-orch latents`: what both directions say and check around the work."""

from collections.abc import Sequence
from pathlib import Path

from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.datasets import DatasetFiles
from lary_schema.jobs import StoreDtype
from lary_schema.metadata import count_rows

from lary_data.importing import Scan, fill, provenance, scan
from lary_data.larybench import LatentRows, Places, find_csvs
from lary_data.progress import progress

NAMED = 3
"""Failed rows that a message names."""


def wanted_splits(files: DatasetFiles, chosen: Sequence[str], *, one: bool) -> tuple[str, ...]:
    """The splits that are asked for. Raises ContractError for an unknown one, or for several where `one` is meant."""
    known = files.card.splits.all
    unknown = [split for split in chosen if split not in known]
    if unknown:
        raise ContractError(f"dataset {files.card.key} has no split {', '.join(unknown)}; it has {', '.join(known)}")
    if one and len(chosen) != 1:
        raise ContractError("--csv is the CSV of one split; say which by one --split")
    return tuple(dict.fromkeys(chosen)) or known


def import_split(
    files: DatasetFiles,
    split: str,
    model: str,
    root: Path,
    csvs: Sequence[Path],
    latents: Path,
    *,
    dtype: StoreDtype,
    max_failed: float,
    workers: int,
) -> str:
    """Have a split's latents in a store below `latents`; a line that says what came of it.

    Raises ContractError for files that are not this split's, TooManyFailedError for too many rows without one.
    """
    card, csv = files.card, files.csv[split]
    count = count_rows(csv)
    found_csvs = list(csvs) or find_csvs(card, split, model, (root, csv.parent))
    rows = LatentRows(files, split, found_csvs, Places(root, card, split, model))
    title = f"{model} on {card.key}/{split}"
    with progress(f"{title}: checksums", count, "rows") as tick:
        seen = scan(rows, workers, tick)
    _check_failed(title, seen, max_failed)
    made = provenance(rows, model, seen, dtype)
    with progress(f"{title}: latents", count, "rows") as tick:
        index = fill(rows, seen, made, latents, workers, tick)
    failures = [failure for record in index.records() for failure in record.failures]
    if len(failures) > max_failed * count:
        raise _too_many(title, {failure.row: failure.detail for failure in failures}, count, max_failed)
    return f"{title}: {count - len(failures)} of {count} rows in {index.paths.root}"


def _check_failed(title: str, seen: Scan, max_failed: float) -> None:
    if len(seen.faults) > max_failed * seen.rows:
        raise _too_many(title, seen.faults, seen.rows, max_failed)


def _too_many(title: str, faults: dict[int, str], rows: int, max_failed: float) -> TooManyFailedError:
    named = "\n".join(f"  row {row}: {detail}" for row, detail in sorted(faults.items())[:NAMED])
    return TooManyFailedError(
        f"{title}: {len(faults)} of {rows} rows have no latent, more than --max-failed {max_failed:g} allows:\n{named}"
    )
