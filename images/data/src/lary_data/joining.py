"""A finished store's rows joined to trajectories: which label belongs to which step of which episode."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import PairColumns
from lary_schema.datasets import DatasetFiles
from lary_schema.groups import group_of
from lary_schema.metadata import Row, RowError, read_rows
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray

from lary_data.labels import Arrays, Column, Labels, StepRow, late_row

IDX, Z, VALID, DT, MODEL = "latent_idx", "latent_z", "latent_valid", "latent_dt", "latent_model"
STEP = r"(\d+)\D*$"
"""Finds a frame's step in its file's name: the last number."""


@dataclass(frozen=True)
class LatentLabels(Labels):
    """Latents of pairs of frames."""

    dt: int

    sidecar, row = "latents.json", "pair"
    flag = VALID

    @property
    def model(self) -> str:
        return self.fingerprint_with(dt=self.dt)

    @property
    def reach(self) -> int:
        return self.dt

    @property
    def columns(self) -> tuple[Column, ...]:
        _, tokens, width = self.store.shape
        return Column(IDX, "int64", tokens, (tokens,)), Column(Z, "float32", tokens * width, (tokens, width))

    @property
    def constants(self) -> Arrays:
        return {DT: np.array(self.dt, np.int64), MODEL: np.array(self.model)}

    @property
    def facts(self) -> dict[str, Any]:
        values, (_, tokens, width) = self.store.provenance.values, self.store.shape
        return {
            "model": self.model, "key": values.model, "variant": values.variant, "dt": self.dt, "tokens": tokens,
            "width": width, "codes": self.codes,
        }  # fmt: skip

    def length(self, episode: str) -> int:
        return max((one.step for one in self.by_episode[episode]), default=-self.dt - 1) + self.dt + 1

    def read(self, rows: NDArray[np.int64]) -> Arrays:
        return {IDX: self.store.indices(rows)[:, 0], Z: self.store.tokens(rows)[:, 0].astype(np.float32)}

    def refuse_late(self, episode: str, length: int) -> None:
        if late := late_row(self, episode, length, self.dt):
            raise ContractError(
                f"episode {episode}: has {length} steps, row {late.row} has a pair of steps {late.step} and "
                f"{late.step + self.dt}; the store is of another version of this data"
            )


class Begin(NamedTuple):
    """A row of the CSV in its episode."""

    row: int
    episode: str
    step: int
    distance: int | None
    """Steps to the second frame; None: the rows are no pairs."""


def join(
    files: DatasetFiles,
    split: str,
    store: LatentReader,
    dt: int | None,
    codes: int | None,
    step: str | None = None,
) -> LatentLabels:
    """Labels of a store of image pairs. `step` is a column of steps; None: they are read in the frames' names.

    Raises ContractError for a store without indices, of clips, of another `dt` than asked for, and for rows of which
    episode or step cannot be read, or two of which claim one step.
    """
    csv = files.csv[split]
    if not isinstance(files.card.columns, PairColumns) or store.provenance.values.mode != "image":
        raise ContractError(
            f"{store.root}: is not of pairs of frames, of which labels are; a store of mode image is needed"
        )
    if store.provenance.layout.indices is None:
        raise ContractError(f"{store.root}: holds no code numbers (indices); annotate with a model that has a codebook")
    rows = list(begins(files, csv, step))
    found = {row.distance for row in rows if row.distance is not None}
    if len(found) != 1 or (dt is not None and found != {dt}):
        said = ", ".join(map(str, sorted(found)[:5])) or "none"
        raise ContractError(
            f"{csv}: its pairs are {said} steps apart{f', asked for is {dt}' if dt else ''}; make the set with one "
            "stride, and ask for that"
        )
    failed = failed_rows(store)
    return LatentLabels(store, in_episodes(csv, rows), failed, number_of_codes(store, failed, codes), found.pop())


def begins(files: DatasetFiles, csv: Path, step: str | None) -> Iterator[Begin]:
    """The rows of a CSV; `step` is the column of steps. Raises ContractError where episode or step cannot be read."""
    card = files.card
    if card.group is None:
        raise ContractError(f"dataset {card.key}: its card names no group:, so a row's episode is unknown")
    pairs = card.columns if isinstance(card.columns, PairColumns) else None
    if pairs is None and step is None:
        raise ContractError(
            f"dataset {card.key}: has clips, in whose names no step is looked for; name a column of steps by --step"
        )
    names = [pairs.source, pairs.target] if pairs else []
    for row in read_rows(csv, [card.group.column, *names, *([step] if step else [])], ()):
        episode = group_of(row, card.group, str(csv))
        distance = None
        if pairs:
            distance = _number(csv, row, pairs.target, STEP) - _number(csv, row, pairs.source, STEP)
            if distance < 1:
                raise ContractError(f"{csv}: row {row.index}: the second frame is not after the first one")
        first = _number(csv, row, step, r"^\s*(\d+)\s*$") if step else _number(csv, row, names[0], STEP)
        yield Begin(row.index, episode, first, distance)


def in_episodes(csv: Path, rows: list[Begin]) -> Mapping[str, tuple[StepRow, ...]]:
    """By episode, in the order of steps. Raises ContractError where two rows claim one step."""
    found: dict[str, list[StepRow]] = defaultdict(list)
    for row in rows:
        found[row.episode].append(StepRow(row.row, row.step))
    for episode, inside in found.items():
        if len({one.step for one in inside}) != len(inside):
            raise ContractError(f"{csv}: episode {episode}: two rows begin at one step")
    return {name: tuple(sorted(inside, key=lambda one: one.step)) for name, inside in found.items()}


def _number(csv: Path, row: Row, column: str, pattern: str) -> int:
    try:
        found = re.search(pattern, Path(row[column]).stem)
    except RowError as error:
        raise ContractError(f"{csv}: row {row.index}: {error}") from None
    if found is None:
        raise ContractError(
            f"{csv}: row {row.index}: column {column!r} has {row[column]!r}, in which no step is found; name a column "
            "of steps by --step"
        )
    return int(found.group(1))


def failed_rows(store: LatentReader) -> frozenset[int]:
    return frozenset(failure.row for failure in store.failures)


def number_of_codes(store: LatentReader, failed: frozenset[int], codes: int | None) -> int:
    """Of the codebook: `codes`, else the largest number in use plus one. Raises ContractError for a larger number."""
    rows = np.array([row for row in range(store.rows) if row not in failed], np.int64)
    largest = max((int(store.indices(rows[at : at + 65536]).max()) for at in range(0, len(rows), 65536)), default=0)
    if codes is not None and largest >= codes:
        raise ContractError(f"{store.root}: has code number {largest}, and --codes says {codes}")
    return codes or max(2, largest + 1)
