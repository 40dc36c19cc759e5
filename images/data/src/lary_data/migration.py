"""`lary-orch latents`: what both directions say and check around the work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import Key
from lary_schema.datasets import DatasetFiles
from lary_schema.jobs import StoreDtype
from lary_schema.metadata import count_rows
from pydantic import TypeAdapter, ValidationError

from lary_data.importing import fill, provenance, scan
from lary_data.larybench import LatentRows, NpzFiles, find_csvs
from lary_data.progress import notify, progress

NAMED = 3
"""Failed rows that a message names."""


@dataclass(frozen=True)
class Options:
    """How an import is done."""

    dtype: StoreDtype
    max_failed: float
    """Tolerated share of rows without a latent."""
    workers: int


def model_key(name: str) -> str:
    """Raises ContractError for one that could not be a folder's name."""
    try:
        return TypeAdapter(Key).validate_python(name)
    except ValidationError:
        raise ContractError(f"model key {name!r}: letters, digits, '.', '_' and '-' alone, it names a folder") from None


def wanted_splits(files: DatasetFiles, chosen: Sequence[str], *, one: bool) -> tuple[str, ...]:
    """The requested splits. Raises ContractError for an unknown one, or for several where `one` is meant."""
    known = files.card.splits.all
    unknown = [split for split in chosen if split not in known]
    if unknown:
        raise ContractError(f"dataset {files.card.key} has no split {', '.join(unknown)}; it has {', '.join(known)}")
    if one and len(chosen) != 1:
        raise ContractError("--csv is the CSV of one split; say which by one --split")
    return tuple(dict.fromkeys(chosen)) or known


def each(splits: Sequence[str], work: Callable[[str], str]) -> None:
    """Print what `work` says of every split. One that cannot be done costs no other; the last error is raised."""
    errors: list[ContractError] = []
    for split in splits:
        try:
            click.echo(work(split))
        except ContractError as error:
            errors.append(error)
    for other in errors[:-1]:
        notify(f"error: {other}")
    if errors:
        raise errors[-1]


def import_split(
    files: DatasetFiles,
    split: str,
    model: str,
    root: Path,
    csvs: Sequence[Path],
    latents: Path,
    options: Options,
) -> str:
    """Have a split's latents in a store below `latents`; a line that says what came of it.

    Raises ContractError for files that are not this split's, TooManyFailedError for too many rows without one.
    """
    card, csv = files.card, files.csv[split]
    count = count_rows(csv)
    found_csvs = list(csvs) or find_csvs(card, split, model, (root, csv.parent))
    rows = LatentRows(files, split, found_csvs, NpzFiles(root, card, split, model))
    title = f"{model} on {card.key}/{split}"
    with progress(f"{title}: checksums", count, "rows") as tick:
        seen = scan(rows, options.workers, tick)
    _check_failed(title, seen.faults, count, options)
    made = provenance(rows, model, seen, options.dtype)
    with progress(f"{title}: latents", count, "rows") as tick:
        index = fill(rows, seen, made, latents, options.workers, tick)
    failures = [failure for record in index.records() for failure in record.failures]
    _check_failed(title, {failure.row: failure.detail for failure in failures}, count, options)
    return f"{title}: {count - len(failures)} of {count} rows in {index.root}"


def _check_failed(title: str, faults: dict[int, str], rows: int, options: Options) -> None:
    if len(faults) > options.max_failed * rows:
        named = "\n".join(f"  row {row}: {detail}" for row, detail in sorted(faults.items())[:NAMED])
        raise TooManyFailedError(
            f"{title}: {len(faults)} of {rows} rows have no latent, more than --max-failed {options.max_failed:g} "
            f"allows:\n{named}"
        )
