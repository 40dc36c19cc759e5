"""A metadata CSV with the sampled frames of every clip that it names."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.media import CellFiles
from lary_schema.metadata import INDICES_SEPARATOR, read_cells

from lary_data.progress import notify, progress
from lary_data.resuming import ResultLog, file_identity, result_key, run_resumed
from lary_data.sampling import Method, sample_clip

HOW_COLUMN = "sampling"
"""Next to the indices: how they were chosen, or `failed: ` and why there are none."""
LOG_SUFFIX = ".answers"
"""Of the file next to the output that a killed run goes on from."""
SHOWN = 20
"""Malformed rows that are named; all are counted."""
_REVISION = 2
"""Bump when the same clip could get other indices."""


@dataclass(frozen=True)
class Sampler:
    """How clips are found and sampled."""

    media: CellFiles
    frames: int
    method: Method
    workers: int
    timeout_s: float


class Clip(NamedTuple):
    """A clip to sample: the CSV's own text, its file and the settings."""

    name: str
    path: str
    frames: int
    method: Method


Outcome = tuple[list[int], str]
"""Indices, and how they were chosen; no indices and `failed: ...`."""


def sample_csv(source: Path, out: Path, column: str, indices: str, sampler: Sampler) -> Counter[str]:
    """Write `out`: `source` with the columns `indices` and `sampling`; rows and their order stay.

    A clip that fails leaves its rows' cell empty. Returns how many rows were sampled how; failures under `failed`.
    Raises ContractError for a CSV that cannot be used.
    """
    header, *rows = read_cells(source, (column,))
    at = header.index(column)
    names = dict.fromkeys(cells[at] for cells in rows if len(cells) == len(header))
    with ResultLog(out.with_name(out.name + LOG_SUFFIX)) as log:
        outcomes = sample_clips(names, sampler, log)
    counts: Counter[str] = Counter()

    def lines() -> Iterator[list[str]]:
        malformed = 0
        yield _extended(header, indices, indices, HOW_COLUMN, header)
        for number, cells in enumerate(rows):
            if len(cells) != len(header):
                malformed += 1
                if malformed <= SHOWN:
                    notify(
                        f"{source}: row {number} has {len(cells)} cells, the header {len(header)}; it stays as it is"
                    )
                counts["failed"] += 1
                yield cells
                continue
            chosen, how = outcomes[cells[at]]
            counts[how if chosen else "failed"] += 1
            yield _extended(header, indices, INDICES_SEPARATOR.join(map(str, chosen)), how, cells)

    publish_text(out, csv_text(lines()))
    return counts


def sample_clips(names: Iterable[str], sampler: Sampler, log: ResultLog) -> dict[str, Outcome]:
    """The outcome of each clip, by the CSV's text."""
    outcomes: dict[str, Outcome] = {}
    clips = []
    for name in names:
        try:
            path = sampler.media.find(name)
            clips.append(Clip(name, str(path), sampler.frames, sampler.method))
        except ContractError as error:
            outcomes[name] = failed(str(error))
    faults = len(outcomes)
    with progress("sampling frames", len(clips), "clips") as tick:
        for done in run_resumed(_sample, clips, _key, log, sampler.workers, sampler.timeout_s):
            faults += done.result is None
            name = done.task.name
            fault = done.fault if name in done.fault else f"{name}: {done.fault}"
            outcomes[name] = failed(fault) if done.result is None else (done.result[0], done.result[1])
            tick(faults)
    return outcomes


def csv_text(lines: Iterable[Sequence[str]]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _sample(clip: Clip) -> Outcome:
    sampled = sample_clip(Path(clip.path), clip.name, clip.frames, clip.method)
    return sampled.indices, sampled.how


def _key(clip: Clip) -> str | None:
    identity = file_identity(Path(clip.path))
    return None if identity is None else result_key(identity, [_REVISION, clip.frames, clip.method])


def failed(why: str) -> Outcome:
    """The outcome of a clip without indices."""
    return [], f"failed: {why}"


def _extended(header: list[str], indices: str, first: str, second: str, cells: list[str]) -> list[str]:
    """A row with the two new cells: instead of old ones of the same columns, else behind the others."""
    new = {indices: first, HOW_COLUMN: second}
    replaced = [new.get(name, cell) for name, cell in zip(header, cells, strict=True)]
    return replaced + [cell for name, cell in new.items() if name not in header]
